"""Make a trained recommender forget users, beside one trained without them (about ten seconds on one core)."""

from graphcl.data import leave_one_out, synthetic_shop
from graphcl.pipelines import CollaborativeRecommender, Unlearner

split = leave_one_out(synthetic_shop(num_users=300, num_items=100, seed=0))
recommender = CollaborativeRecommender(
    "lightgcn", hidden=32, epochs=40, learning_rate=5e-3, patience=40, seed=0, progress=False
).fit(split)

leaving = [7, 20, 33]
after, report = Unlearner(seed=0).forget(recommender, users=leaving, compare_retraining=True)

print("an attack on the interactions of the users (0.5 is guessing):")
for model, found in report.membership.items():
    hit_rate = report.retained[model]["HR@20"]
    print(f"  {model:9} AUC {found['users']:.3f}, HR@20 of everyone else {hit_rate:.3f}")
cost = report.cost
print(f"{cost['epochs']} epochs of repair instead of {cost['retraining_epochs']} of training")
print(after.recommend([1, 2], k=3))
