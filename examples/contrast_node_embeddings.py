"""NT-Xent over 5,000 nodes and their other view: 10,000 x 10,000 pairs, and the matrix never exists (a few seconds)."""

import torch

from graphcl.kernels import SparseMatrix, normalize_symmetric, spmm
from graphcl.losses import NTXent

generator = torch.Generator().manual_seed(0)
num_nodes = 5_000
edge_index = torch.randint(num_nodes, (2, 40_000), generator=generator)
features = torch.randn(num_nodes, 32, generator=generator)

adjacency = normalize_symmetric(SparseMatrix.from_edge_index(edge_index, num_nodes=num_nodes), self_loops=1.0)
encoder = torch.nn.Linear(32, 64)
loss = NTXent(temperature=0.5)
optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
for step in range(3):
    views = []
    for _ in range(2):
        kept = features * (torch.rand(1, 32, generator=generator) > 0.2)  # mask whole feature columns
        views.append(spmm(adjacency, encoder(kept)))
    value = loss(*views)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    print(f"step {step}: {value.item():.4f}")
