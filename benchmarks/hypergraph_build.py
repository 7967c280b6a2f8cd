"""How long hypergraphs take to build and how much memory, up to a million nodes and ten million incidences.

    python benchmarks/hypergraph_build.py [--quick] [--repeats 5]

Every builder runs on random input of one incidence in ten nodes, hyperedges as many as nodes. Beside `membership` stand
two other forms of the same thing: SciPy's incidence matrix, and the table of Python tuples that object libraries keep
(at the smallest size only). Reported are the 20, 50 and 80 per cent quantiles of the time, the peak extra memory of one
call, and the exponents fitted over the sizes. With ``GRAPHCL_DATA`` set, the user graph of TikTok is measured too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from benchmark_machine import processor
from benchmark_memory import limit_memory
from kernels_sparse import _peak_extra

from graphcl.graphs import (
    BipartiteGraph,
    Hypergraph,
    attribute_hypergraph,
    concatenate_hypergraphs,
    items_sharing_users,
    khop_hypergraph,
    knn_hypergraph,
    membership_hypergraph,
    session_hypergraph,
    users_sharing_items,
)
from graphcl.kernels import SparseMatrix
from graphcl.views import hyperedge_drop

SIZES = (1_000_000, 2_000_000, 5_000_000, 10_000_000)
DEGREE = 10
WIDTH = 64
RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]
Run = Callable[[], object]


def cases(incidences: int) -> dict[str, Run]:
    """What is measured at one size, by name."""
    nodes = incidences // DEGREE
    generator = torch.Generator().manual_seed(0)
    node = torch.randint(nodes, (incidences,), generator=generator)
    hyperedge = torch.randint(nodes, (incidences,), generator=generator)
    codes = torch.randint(nodes // DEGREE, (nodes, DEGREE), generator=generator)
    graph = BipartiteGraph.from_arrays(node, hyperedge, num_users=nodes, num_items=nodes)
    start = torch.arange(nodes).repeat_interleave(DEGREE - 1)
    ring = SparseMatrix.from_coo(
        start, (start + torch.arange(1, DEGREE).repeat(nodes)) % nodes, shape=(nodes, nodes), check=False
    )
    thirds = [
        membership_hypergraph(node[part::3], hyperedge[part::3], num_nodes=nodes, num_hyperedges=nodes)
        for part in range(3)
    ]
    hypergraph = users_sharing_items(graph)
    operators = {"hgnn": hypergraph.propagation(), "mmhcl_user": hypergraph.shared_propagation("row")}
    x = torch.randn(nodes, WIDTH, generator=generator).requires_grad_()
    upstream = torch.randn(nodes, WIDTH, generator=generator)

    def convolve(name: str) -> object:
        return torch.autograd.grad((operators[name] @ x * upstream).sum(), x)

    return {
        "membership": lambda: membership_hypergraph(node, hyperedge, num_nodes=nodes, num_hyperedges=nodes),
        "sessions": lambda: session_hypergraph(hyperedge, node, num_items=nodes),
        "attributes": lambda: attribute_hypergraph(codes),
        "user-item graph": lambda: BipartiteGraph.from_arrays(node, hyperedge, num_users=nodes, num_items=nodes),
        "items sharing users": lambda: items_sharing_users(_uncached(graph)),
        "one hop": lambda: khop_hypergraph(ring, 1),
        "concatenation of three": lambda: concatenate_hypergraphs(thirds),
        "drop of hyperedges": lambda: hyperedge_drop(hypergraph, 0.2, torch.Generator().manual_seed(0)),
        "operator hgnn": hypergraph.propagation,
        "operator mmhcl_user": lambda: hypergraph.shared_propagation("row"),
        f"convolution hgnn, d = {WIDTH}, both passes": lambda: convolve("hgnn"),
        f"convolution mmhcl_user, d = {WIDTH}, both passes": lambda: convolve("mmhcl_user"),
        "membership, SciPy": lambda: _scipy(node.numpy(), hyperedge.numpy(), nodes),
    }


def _uncached(graph: BipartiteGraph) -> BipartiteGraph:
    """The graph without the matrices it has built, so that building is what is measured."""
    return BipartiteGraph(graph.num_users, graph.num_items, graph.user, graph.item, check=False)


def _scipy(node: Any, hyperedge: Any, nodes: int) -> object:
    matrix = scipy.sparse.coo_array((np.ones(len(node), np.float32), (node, hyperedge)), shape=(nodes, nodes)).tocsr()
    matrix.sum_duplicates()
    return matrix


def python_tuples(incidences: int) -> Run:
    """The same memberships as a table from the tuple of members to a weight."""
    generator = torch.Generator().manual_seed(0)
    nodes = incidences // DEGREE
    node, hyperedge = (torch.randint(nodes, (incidences,), generator=generator).tolist() for _ in range(2))

    def build() -> object:
        members: list[set[int]] = [set() for _ in range(nodes)]
        for one, other in zip(node, hyperedge, strict=True):
            members[other].add(one)
        return {tuple(sorted(one)): 1.0 for one in members}

    return build


def measure(name: str, run: Run, incidences: int, repeats: int) -> Row:
    """Quantiles of the seconds of one call and its peak extra memory in MiB."""
    # The first call warms the allocator up; its memory is what counts.
    row: Row = {"case": name, "incidences": incidences, "peak_extra_mib": _peak_extra(lambda: _discard(run))}
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    cuts = statistics.quantiles(seconds, n=5, method="inclusive")
    row["seconds"] = {"p20": cuts[0], "median": statistics.median(seconds), "p80": cuts[3]}
    return row


def _discard(run: Run) -> None:
    run()


def tiktok(repeats: int) -> list[Row]:
    """The user graph of MMHCL on TikTok: factored, formed and counted; empty without the data."""
    path = Path(os.environ.get("GRAPHCL_DATA", "")) / "tiktok" / "tiktok.inter"
    if not path.is_file():
        return []
    user, item, part = np.loadtxt(path, skiprows=1, dtype=np.int64).T
    kept = part == 0

    def load() -> Hypergraph:
        graph = BipartiteGraph.from_arrays(user[kept], item[kept], num_users=9_308, num_items=6_710)
        return users_sharing_items(graph)

    runs: dict[str, Run] = {
        "tiktok, from arrays to the factored operator": lambda: load().shared_propagation("row"),
        "tiktok, from arrays to the formed matrix": lambda: load().clique_matrix(),
        "tiktok, entries counted": lambda: load().count_neighbours(),
    }
    return [measure(name, run, int(kept.sum()), repeats) for name, run in runs.items()]


def nearest(repeats: int) -> list[Row]:
    """Exact nearest neighbours, which are quadratic in the nodes; incidences are 10 a node."""
    rows = []
    for nodes in (5_000, 10_000, 20_000):
        x = torch.randn(nodes, 128, generator=torch.Generator().manual_seed(0))
        rows.append(measure("10 nearest of d = 128, exact", lambda x=x: knn_hypergraph(x, 10), nodes * 10, repeats))
    return rows


def exponents(rows: list[Row]) -> dict[str, tuple[float, float]]:
    """Slope of log time and of log memory over log incidences, for every case measured at several sizes."""
    found = {}
    for name in dict.fromkeys(row["case"] for row in rows):
        series = [row for row in rows if row["case"] == name]
        if len({row["incidences"] for row in series}) > 1:
            sizes = [math.log(row["incidences"]) for row in series]
            times = [math.log(row["seconds"]["median"]) for row in series]
            memory = [math.log(max(row["peak_extra_mib"] or 1.0, 1.0)) for row in series]
            found[name] = (_slope(sizes, times), _slope(sizes, memory))
    return found


def _slope(xs: list[float], ys: list[float]) -> float:
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def page(rows: list[Row], about: Row) -> str:
    """The results as a Markdown page."""
    lines = [
        "# Building hypergraphs",
        "",
        f"Nodes = hyperedges = incidences / {DEGREE}; {about['threads']} thread(s), {about['processor']}, "
        f"torch {about['torch']}; see benchmarks/hypergraph_build.py.",
        "",
        "| case | incidences | seconds (p20, p80) | peak extra memory |",
        "|---|---|---|---|",
    ]
    for row in rows:
        time_of = row["seconds"]
        lines.append(
            f"| {row['case']} | {row['incidences']:,} | {time_of['median']:.4f} ({time_of['p20']:.4f}, "
            f"{time_of['p80']:.4f}) | {row['peak_extra_mib']:.0f} MiB |"
        )
    lines += ["", "Fitted exponents over incidences:", "", "| case | time | memory |", "|---|---|---|"]
    lines += [f"| {name} | {time_of:.2f} | {memory:.2f} |" for name, (time_of, memory) in exponents(rows).items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two smaller sizes only")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "hypergraph_build.json")
    arguments = parser.parse_args()
    limit_memory()
    rows: list[Row] = []
    for incidences in SIZES[:2] if arguments.quick else SIZES:
        for name, run in cases(incidences).items():
            rows.append(measure(name, run, incidences, arguments.repeats))
            print(rows[-1], flush=True)
    rows.append(measure("membership, Python tuples", python_tuples(SIZES[0]), SIZES[0], arguments.repeats))
    rows += nearest(arguments.repeats) + tiktok(arguments.repeats)
    about = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    text = page(rows, about)
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
