"""HTCL on films: vectors from titles, years and genres that learn whom films please, for films that nobody has rated.

On MovieLens 100K where it is at hand (`pip install --no-deps recbole` ships it), else on a made-up shop.
"""

from dataclasses import replace

import numpy as np

from graphcl.data import ItemFeatures, Split, load_dataset, table_features
from graphcl.data.splits import TEST, TRAIN, VALID
from graphcl.errors import InputError
from graphcl.pipelines import CollaborativeRecommender, ItemAligner

try:
    log = load_dataset("ml-100k", features=True).interactions
    likes, text = {"liked": 4.0, "disliked": 2.0, "min_shared": 20}, "movie_title"
except InputError:
    log = load_dataset("synthetic-shop").interactions
    likes, text = {"min_shared": 5}, "category"

# A fifth of the items is hidden from training as a whole, and a tenth for validation: nobody has met them.
generator = np.random.default_rng(0)
fate = generator.choice([TEST, VALID, TRAIN], log.num_items, p=[0.2, 0.1, 0.7]).astype(np.uint8)
part = fate[log.item]
order = np.lexsort((part, log.user))
split = Split(replace(log.take(order), time=None), part[order], "whole items")
attributes = table_features(log.item_features, log.item_ids)
print("\n".join(attributes.lines()))

settings = {"text_modalities": [text], "epochs": 8, "batch_size": 512, "validate_every": 4, "progress": False, **likes}
for name, semantic_epochs in (("first stage alone", 8), ("both stages", 3)):
    aligner = ItemAligner("htcl", semantic_epochs=semantic_epochs, **settings).fit(split, item_features=attributes)
    found = aligner.evaluate("test").metrics.to_dict()
    print(f"HTCL, {name}: Recall@20 of unmet items {found['Recall@20']:.4f}")

# The vectors are item features like any others: of every item, met or not.
vectors = aligner.embed("items").vectors
adapted = ItemFeatures(log.item_ids, {"htcl": vectors}, {"htcl": np.ones(log.num_items, dtype=np.bool_)})
settings = {
    "epochs": 6, "batch_size": 4096, "learning_rate": 0.01, "anchors": 256, "validate_every": 3, "progress": False,
}  # fmt: skip
for name, features in (("attributes", attributes), ("HTCL vectors", adapted)):
    recommender = CollaborativeRecommender("mmhcl", **settings).fit(split, item_features=features)
    print(
        f"MMHCL with {name}: Recall@20 of unmet items {recommender.evaluate('test').metrics.to_dict()['Recall@20']:.4f}"
    )
