"""MMHCL on made-up pictures and texts: train, compare, see what each modality gives, recommend items nobody has met."""

import numpy as np

from graphcl.data import IdMap, Interactions, read_item_features, split_by_ratio
from graphcl.pipelines import CollaborativeRecommender

# 500 users with one of 12 tastes; an item has a taste too, its picture shows it and its text less clearly.
generator = np.random.default_rng(0)
tastes, num_users, num_items = 12, 500, 360
item_taste = generator.integers(tastes, size=num_items)
user_taste = generator.integers(tastes, size=num_users)
user = np.repeat(np.arange(num_users), 12)
liked = [np.flatnonzero(item_taste == taste) for taste in range(tastes)]
item = np.where(
    generator.random(user.size) < 0.7,
    [generator.choice(liked[taste]) for taste in np.repeat(user_taste, 12)],
    generator.integers(num_items, size=user.size),
)
met = item < num_items - 20  # the last 20 items are new: nobody has met them
log = Interactions.from_arrays(user[met], item[met])


def show(noise: float) -> np.ndarray:
    """Features of all items, new ones included."""
    return np.eye(tastes)[item_taste] + noise * generator.standard_normal((num_items, tastes))


catalogue = IdMap(np.arange(num_items))
media = read_item_features(
    {"image": (np.arange(num_items), show(0.2)), "text": (np.arange(num_items), show(0.6))}, catalogue
)
print("\n".join(media.lines()))

settings = {"epochs": 15, "learning_rate": 5e-3, "batch_size": 512, "hidden": 32, "progress": False}
split = split_by_ratio(log, (0.6, 0.2, 0.2))
for name in ("lightgcn", "mmhcl"):
    more = {"catalogue": "features", "neighbours": 8} if name == "mmhcl" else {}
    recommender = CollaborativeRecommender(name, **settings, **more)
    recommender.fit(split, **({"item_features": media} if name == "mmhcl" else {}))
    print(
        name, {metric: round(value, 3) for metric, value in list(recommender.evaluate().metrics.to_dict().items())[-6:]}
    )

for record in recommender.ablate():
    print("without", record["without"] or "nothing", "Recall@20", round(record["metrics"]["Recall@20"], 3))

lists = recommender.recommend(None, k=20)
new = lists.filter(lists["item"] >= num_items - 20)
fits = item_taste[new["item"].to_numpy()] == user_taste[new["user"].to_numpy()]
print(f"{new.height} of {lists.height} recommendations are new items; {fits.mean():.0%} of them suit the user's taste")
