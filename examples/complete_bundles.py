"""CLHE on made-up outfits: train, compare with methods without training, complete an outfit, see what holes cost."""

from graphcl.data import synthetic_bundles
from graphcl.pipelines import BundleConstructor
from graphcl.pipelines.bundle_baselines import bundle_baselines

# Outfits keep to a style; pictures (content) show it, texts tell the kind of an item, users like a few styles.
bundles = synthetic_bundles(seed=0)
print(bundles.counts())

settings = {
    "epochs": 40,
    "hidden": 32,
    "learning_rate": 3e-3,
    "batch_size": 128,
    "construct_from": "view",
    "validate_every": 5,
    "progress": False,
}
constructor = BundleConstructor("clhe", **settings).fit(bundles)
print("clhe", round(constructor.evaluate().metrics.to_dict()["Recall@20"], 3))
for entry in bundle_baselines(bundles, bundles.partial("test"), [20]):
    print(entry["name"], round(entry["metrics"]["Recall@20"], 3))

print(constructor.recommend({"mine": [3, 15]}, k=3))

# Half of the items lose their picture, half their text, half every interaction.
holed = bundles.without_features(0.5)
print(
    "with holes",
    round(BundleConstructor("clhe", **settings).fit(holed).evaluate().metrics.to_dict()["Recall@20"], 3),
)
