"""Node embeddings of a graph with types and of one without, probed by the papers' protocols (some seconds)."""

import torch
from torch_geometric.data import HeteroData

from graphcl.data import load_graph
from graphcl.pipelines import NodeEmbedder

# Papers with words, authors and subjects; a paper shares its authors and its subject with others of its class.
draw = torch.Generator().manual_seed(0)
papers, classes = 300, 3
topic = torch.arange(papers) % classes
library = HeteroData(target="paper", metapaths=("PAP", "PSP"))
library["paper"].y = topic
words = torch.rand(papers, 30, generator=draw) < 0.1 + 0.2 * (torch.arange(30) % classes == topic[:, None])
library["paper"].x = words.float()
library["author"].num_nodes, library["subject"].num_nodes = 90, 12
authors = topic + classes * torch.randint(30, (2, papers), generator=draw)
library["paper", "by", "author"].edge_index = torch.stack([torch.arange(papers).repeat(2), authors.flatten()])
subjects = (topic + (torch.rand(papers, generator=draw) < 0.2)) % classes
subjects = subjects + classes * torch.randint(4, (papers,), generator=draw)
library["paper", "on", "subject"].edge_index = torch.stack([torch.arange(papers), subjects])
part = torch.randperm(papers, generator=draw)
library["paper"].train_mask, library["paper"].val_mask = part < 60, (part >= 60) & (part < 120)
library["paper"].test_mask = part >= 120

embedder = NodeEmbedder("heco", hidden=32, num_positives=5, epochs=30, progress=False).fit(library)
found = embedder.evaluate()
print("heco:", {name: round(value, 3) for name, value in found.metrics.to_dict().items() if value is not None})
for name, value in found.protocol.items():
    print(f"  {name}: {value}")

# A generated graph of four communities without masks: k-means against the classes, and measures without labels.
blocks = load_graph("sbm", num_nodes=400, num_classes=4, seed=0)
embedder = NodeEmbedder("grace", epochs=30, progress=False).fit(blocks)
metrics = embedder.evaluate().metrics.to_dict()
print("grace:", {name: round(value, 3) for name, value in metrics.items() if value is not None})
print("vectors:", embedder.embed().vectors.shape)
