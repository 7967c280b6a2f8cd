"""Train a contrastive sequential recommender with two encoders, and recommend for a new history.

python examples/contrast_sequences.py
"""

from __future__ import annotations

import numpy as np

from graphcl.data import Interactions
from graphcl.pipelines import SequentialRecommender


def main() -> None:
    """Users walk round a circle of items from places of their own; the next item is what is to be found."""
    generator = np.random.default_rng(0)
    users, length, items = 200, 8, 30
    start = generator.integers(items, size=users)
    walk = (np.repeat(start, length) + np.tile(np.arange(length), users)) % items
    log = Interactions.from_arrays(np.repeat(np.arange(users), length), [f"item-{item}" for item in walk])
    for encoder in ("sasrec", "gru4rec"):
        recommender = SequentialRecommender(
            "mclrec", encoder=encoder, hidden=16, max_length=6, epochs=6, batch_size=128, learning_rate=0.01,
            progress=False,
        ).fit(log)  # fmt: skip
        print(f"MCLRec with {encoder}: HR@5 {recommender.evaluate('test').metrics.to_dict()['HR@5']:.3f}")
    print(recommender.recommend_for_histories([["item-3", "item-4", "item-5"]], k=3))


if __name__ == "__main__":
    main()
