"""From a graph to clusters and an honest measurement, with and without labels (about ten seconds on one core)."""

import networkx

from graphcl.data import load_graph
from graphcl.pipelines import NodeClusterer

# A generated graph of four communities whose node features are noisy.
papers = load_graph("sbm", num_nodes=400, num_classes=4, seed=0)
clusterer = NodeClusterer("pamc", epochs=30, warmup_epochs=20, seed=0, progress=False).fit(papers)
found = clusterer.evaluate()
print("pamc, last epoch:", {name: round(value, 3) for name, value in found.metrics.to_dict().items() if value})
for name, value in found.protocol.items():
    print(f"  {name}: {value}")
print(clusterer.predict().head(3))

# A graph of NetworkX with its own node names, no features and no labels: the number of clusters is estimated.
friends = networkx.relabel_nodes(networkx.connected_caveman_graph(5, 12), lambda node: f"person {node}")
groups = NodeClusterer("pamc", num_clusters="eigengap", epochs=20, warmup_epochs=20, progress=False).fit(friends)
print(groups.num_clusters, "groups:", groups.predict()["cluster"].value_counts(sort=True)["count"].to_list())
