"""Time and memory of clustering: the block loss beside all pairs, an epoch of PamC, growth with nodes and edges.

    python benchmarks/clustering_speed.py [--parts loss epoch scale] [--data FOLDER]

``loss``: one forward and backward of a loss on N = 9,298 embeddings of width 10 in K = 10 clusters, positives of a
3-neighbour graph (the sizes of the papers' USPS, on made-up points) within 1 or 4 steps. The peer is the
authors' all-pairs loss written down from its formula, dense. ``epoch``: one full-batch epoch on the clustering
benchmark's DBLP, with the papers' encoder and with our defaults, beside the authors' epoch written down from the
formulas (a second pass for the target, dense one-hot, torch's linear layers). ``scale``: 10 epochs (2 of them warm-up)
with the default settings on stochastic block models, full batch.

Every case runs in a process of its own: time is the median of the steps (on the wall clock; with one thread, of the
processor), memory the growth of the peak resident size (VmHWM) over what was resident before. Writes
benchmarks/results/clustering_speed.json and .md; parts that are not asked for keep their rows.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmark_machine import processor
from benchmark_memory import growth_mib, memory_bytes, reset_peak
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.data import load_graph, stochastic_block_model
from graphcl.functional import pamc, scgc
from graphcl.graphs import adjacency, influence_matrix, knn_graph
from graphcl.kernels import SparseMatrix
from graphcl.models import ClusteringBatch, PamC
from graphcl.models.pamc import PamCConfig

RESULTS = Path(__file__).parent / "results"
LOSS_NODES, LOSS_CLUSTERS, LOSS_WIDTH = 9_298, 10, 10
PAPER = {
    "encoder": "mlp",
    "widths": (500, 500, 2000, 10),
    "features": "none",
    "min_neighbors": 0,
    "radius": None,
    "order": 1,
}
#: Nodes and undirected edges of the graphs that grow.
SIZES = ((10_000, 100_000), (100_000, 500_000), (100_000, 1_000_000), (100_000, 2_000_000), (1_000_000, 10_000_000))
SCALE_EPOCHS = (2, 8)

Row = dict[str, Any]
Step = Callable[[], object]


def loss_setting(num_nodes: int, order: int, most: int | None) -> tuple[Tensor, Tensor, SparseMatrix]:
    """Embeddings, clusters, influence."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(LOSS_CLUSTERS, 5, generator=generator)
    ids = torch.randint(LOSS_CLUSTERS, (num_nodes,), generator=generator)
    points = centres[ids] + 0.7 * torch.randn(num_nodes, 5, generator=generator)
    graph = knn_graph(points, 3, metric="euclidean", symmetric="union")
    z = torch.randn(num_nodes, LOSS_WIDTH, generator=generator).requires_grad_()
    return z, ids, influence_matrix(graph, order, max_entries=most)


def authors_all_pairs(z: Tensor, influence: Tensor, tau: float) -> Tensor:
    """SCGC* as its formula says, dense: products over products of norms, diagonal 0, exponential, two sums."""
    norms = (z * z).sum(1, keepdim=True).sqrt()
    cosine = (1 - torch.eye(z.shape[0])) * ((z @ z.T) * (norms @ norms.T) ** -1)
    similarity = torch.exp(tau * cosine)
    ratio = (similarity * influence).sum(1) * similarity.sum(1) ** -1
    return -torch.log(ratio + 1e-8).mean()


#: Form of the loss, order of the influence, most positives a node.
LOSS_CASES: tuple[tuple[str, int, int | None], ...] = (
    ("authors' all pairs, dense", 1, None),
    ("all pairs, streamed", 1, None),
    ("1,024 drawn negatives", 1, None),
    ("PamC", 1, None),
    ("PamC", 4, 64),
    ("PamC", 4, None),
)


def loss_step(form: str, num_nodes: int, order: int, most: int | None) -> tuple[Callable[[], float], int]:
    """One forward and backward, and the number of positives."""
    z, ids, influence = loss_setting(num_nodes, order, most)
    dense = influence.to_dense() if form.startswith("authors") else torch.empty(0)
    losses: dict[str, Callable[[], Any]] = {
        "authors' all pairs, dense": lambda: authors_all_pairs(z, dense, 0.5),
        "all pairs, streamed": lambda: scgc(z, influence, temperature=2.0),
        "1,024 drawn negatives": lambda: scgc(
            z, influence, temperature=2.0, negatives=torch.randint(num_nodes, (min(1024, num_nodes),))
        ),
        "PamC": lambda: pamc(z, ids, influence, num_clusters=LOSS_CLUSTERS, temperature=2.0),
    }

    def step() -> float:
        value = losses[form]()
        torch.autograd.grad(value, z)
        return float(value.detach())

    return step, influence.num_entries


def loss_case(form: str, order: int, most: int | None) -> Row:
    small, _ = loss_step(form, 200, order, most)
    step, entries = loss_step(form, LOSS_NODES, order, most)
    # The transpose of the positives is sorted once and kept; it counts as memory of the first step.
    return {"form": form, "order": order, "most": most, "entries": entries, **timed(small, step, seconds=5.0)}


def authors_epoch(x: Tensor, influence: SparseMatrix, num_clusters: int) -> Step:
    """An epoch of PamC as the formulas say, in plain torch: MLP f-500-500-2000-10, alpha = beta = 2, tau 1."""
    widths = (x.shape[1], 500, 500, 2000, 10)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    centres = nn.Parameter(torch.randn(num_clusters, 10))
    parameters = [p for layer in layers for p in layer.parameters()] + [centres]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    edges, weights = influence.to_edge_index()
    assert weights is not None
    target_node, source = edges[1], edges[0]

    def forward() -> tuple[Tensor, Tensor]:
        h = x
        for layer in layers[:-1]:
            h = F.relu(layer(h))
        z = layers[-1](h)
        q = 1.0 / (1.0 + ((z.unsqueeze(1) - centres) ** 2).sum(2))
        return z, (q.t() / q.sum(1)).t()

    def step() -> float:
        with torch.no_grad():
            _, q = forward()
            weight = q**2 / q.sum(0)
            p = (weight.t() / weight.sum(1)).t()
        z, q = forward()
        one_hot = F.one_hot(q.argmax(1), num_clusters).to(z.dtype)
        meta = one_hot.t() @ z
        meta = meta / meta.norm(dim=1, keepdim=True).clamp(min=1e-12)
        repulsion = torch.exp((meta @ meta.t()) * (1 - torch.eye(num_clusters))).sum(1)
        unit = z / z.norm(dim=1, keepdim=True)
        cosine = (unit[target_node] * unit[source]).sum(1) * (target_node != source)
        positive = torch.zeros(z.shape[0]).index_add(0, target_node, weights * torch.exp(cosine))
        contrast = -torch.log(positive + 1e-10).mean() + torch.log(repulsion + 1e-10).mean()
        loss = 2 * contrast + 2 * F.kl_div(q.log(), p, reduction="batchmean")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def our_epoch(batch: ClusteringBatch, model: PamC) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> float:
        loss, _ = model.objective(batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.detach())

    return step


def batch_of(model: PamC, x: Tensor, graph: SparseMatrix, phase: Any) -> ClusteringBatch:
    """All nodes as one step."""
    graph = model.prepare_graph(x, graph)
    return ClusteringBatch(
        x=model.prepare_features(x, graph),
        influence=model.influence(graph),
        graph=None,
        num_anchors=x.shape[0],
        phase=phase,
        cluster_mass=None,
        total=x.shape[0],
    )


def epoch_case(form: str, folder: str | None) -> Row:
    if folder:
        os.environ["GRAPHCL_DATA"] = folder
    data = load_graph("dblp-clustering").graph
    graph, x, clusters = adjacency(data, self_loops=False), data.x.float(), int(data.y.max()) + 1
    settings: dict[str, Any] = {} if form == "PamC, defaults" else PAPER
    model = PamC(x.shape[1], clusters, PamCConfig(**settings), generator=torch.Generator().manual_seed(0))
    batch = batch_of(model, x, graph, "cluster")
    if form.startswith("authors"):
        step = authors_epoch(x, batch.influence, clusters)
    else:
        model.initialize_clusters(model.encode(batch.x), seed=0)
        step = our_epoch(batch, model)
    return {"form": form, **timed(step, step, seconds=5.0)}


def scale_case(num_nodes: int, num_edges: int) -> Row:
    degree = 2 * num_edges / num_nodes
    drawn = stochastic_block_model(num_nodes, 10, average_degree=degree, num_features=64, separation=0.3, seed=0)
    graph = adjacency(drawn, self_loops=False)
    labels, x = drawn.y, drawn.x
    del drawn
    before = reset_peak()
    model = PamC(64, 10, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    start = time.perf_counter()
    batch = batch_of(model, x, graph, "warmup")
    row: Row = {"nodes": num_nodes, "edges": num_edges, "prepare_seconds": time.perf_counter() - start}
    row["positives"] = batch.influence.num_entries
    for phase, epochs in zip(("warmup", "cluster"), SCALE_EPOCHS, strict=True):
        batch = ClusteringBatch(**{**vars(batch), "phase": phase})
        if phase == "cluster":
            start = time.perf_counter()
            with torch.no_grad():
                model.initialize_clusters(model.encode(batch.x), seed=0)
            row["kmeans_seconds"] = time.perf_counter() - start
        step, seconds = our_epoch(batch, model), []
        for _ in range(epochs):
            start = time.perf_counter()
            row["loss"] = step()
            seconds.append(time.perf_counter() - start)
        row[f"{phase}_seconds"] = statistics.median(seconds)
    row["extra_mib"] = growth_mib(before)
    row["peak_mib"] = memory_bytes("VmHWM") / 2**20
    found = model.assignments(batch.x)
    table = torch.zeros(10, 10, dtype=torch.int64).index_put((found, labels), torch.ones_like(labels), accumulate=True)
    row["purity"] = float(table.amax(1).sum()) / num_nodes
    return row


def timed(before: Step, step: Step, *, seconds: float) -> Row:
    """Median seconds of a step, and the extra memory of its first time; ``before`` loads the libraries."""
    before()
    resident = reset_peak()
    step()
    extra = growth_mib(resident)
    # On one thread its own time is what counts, whatever else runs on the machine.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = clock()
        step()
        times.append(clock() - start)
    return {"seconds": statistics.median(times), "fastest": min(times), "steps": len(times), "extra_mib": extra}


def isolated(case: Callable[..., Row], *arguments: Any) -> Row:
    """A case in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(case, arguments)


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "loss": lambda options: [isolated(loss_case, *case) for case in LOSS_CASES],
    "epoch": lambda options: [
        isolated(epoch_case, form, options.data)
        for form in ("authors' epoch (plain torch)", "PamC, the papers' encoder", "PamC, defaults")
    ],
    "scale": lambda options: [isolated(scale_case, *size) for size in SIZES if size[0] <= options.most_nodes],
}


def slope(rows: list[Row], size: str, cost: str) -> float:
    """Exponent of a least-squares line through logarithms."""
    xs, ys = ([math.log(row[field]) for row in rows] for field in (size, cost))
    middle = statistics.mean(xs)
    below = sum((x - middle) ** 2 for x in xs)
    return sum((x - middle) * (y - statistics.mean(ys)) for x, y in zip(xs, ys, strict=True)) / below


def report(found: dict[str, list[Row]], about: dict[str, Any]) -> str:
    """Markdown of all parts."""
    lines = ["# Speed and memory of clustering", "", f"{about['machine']}; see benchmarks/clustering_speed.py.", ""]
    if rows := found.get("loss"):
        peer = rows[0]
        lines += [
            f"## One loss step: N = {LOSS_NODES:,}, d = {LOSS_WIDTH}, K = {LOSS_CLUSTERS}",
            "",
            "| form | order | positives | ms | peak extra MiB | times faster | times smaller |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['form']} | {row['order']} | {row['entries']:,} | {1e3 * row['seconds']:,.1f} | "
            f"{row['extra_mib']:,.0f} | {peer['seconds'] / row['seconds']:,.1f} | "
            f"{peer['extra_mib'] / max(row['extra_mib'], 0.1):,.1f} |"
            for row in rows
        ]
    if rows := found.get("epoch"):
        lines += ["", "## One epoch on DBLP (4,057 nodes)", "", "| form | ms | times faster |", "|---|---|---|"]
        lines += [
            f"| {row['form']} | {1e3 * row['seconds']:,.1f} | {rows[0]['seconds'] / row['seconds']:,.1f} |"
            for row in rows
        ]
    if rows := found.get("scale"):
        lines += [
            "",
            f"## Growth: full batch, default settings, 64 features, {sum(SCALE_EPOCHS)} epochs",
            "",
            "| nodes | edges | positives | prepare s | k-means s | warm-up epoch s | epoch s | peak MiB | purity |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['nodes']:,} | {row['edges']:,} | {row['positives']:,} | {row['prepare_seconds']:.1f} | "
            f"{row['kmeans_seconds']:.1f} | {row['warmup_seconds']:.2f} | {row['cluster_seconds']:.2f} | "
            f"{row['peak_mib']:,.0f} | {row['purity']:.3f} |"
            for row in rows
        ]
        tenfold = [row for row in rows if row["edges"] == 10 * row["nodes"]]
        if len(tenfold) > 1:
            for cost, name in (("cluster_seconds", "an epoch"), ("prepare_seconds", "preparing")):
                lines += ["", f"Time of {name} grows as N^{slope(tenfold, 'nodes', cost):.2f} at 10 edges a node."]
        same = [row for row in rows if row["nodes"] == 100_000]
        if len(same) > 1:
            for cost, name in (("cluster_seconds", "an epoch"), ("prepare_seconds", "preparing")):
                lines += ["", f"Time of {name} grows as E^{slope(same, 'edges', cost):.2f} at 100,000 nodes."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", help="folder of data sets; by default GRAPHCL_DATA")
    parser.add_argument("--most-nodes", type=int, default=SIZES[-1][0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    path = options.out / "clustering_speed.json"
    found = json.loads(path.read_text())["parts"] if path.exists() else {}
    threads = torch.get_num_threads()
    machine = f"{processor()}, {threads} threads, torch {torch.__version__}"
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        found[part] = PARTS[part](options)
        about = {"machine": machine, "cores": os.cpu_count()}
        path.write_text(json.dumps({"about": about, "parts": found}, indent=1) + "\n")
        (options.out / "clustering_speed.md").write_text(report(found, about))
    print((options.out / "clustering_speed.md").read_text())


if __name__ == "__main__":
    main()
