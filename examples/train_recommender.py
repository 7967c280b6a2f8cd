"""From a table of interactions to recommendations, on a generated shop (about ten seconds on one core)."""

from graphcl.data import leave_one_out, synthetic_shop
from graphcl.pipelines import SequentialRecommender

split = leave_one_out(synthetic_shop(num_users=400, num_items=120, seed=0))
recommender = SequentialRecommender("sasrec", hidden=32, max_length=20, epochs=8, seed=0, progress=False).fit(split)

metrics = recommender.evaluate("test").metrics.to_dict()
print(f"HR@20 {metrics['HR@20']:.3f}  NDCG@20 {metrics['NDCG@20']:.3f}  (20 of 120 items at random would give 0.167)")

some_users = split.interactions.user_ids.external[:2]
print(recommender.recommend(some_users, k=3))
