"""Meta-path views of a large academic graph, and an epoch of MEOW on sampled neighbourhoods: time, memory, exponents.

    python benchmarks/embedding_scale.py --papers 62500 125000 250000 500000 1000000

A graph of N papers has 2 N authors, N / 500 venues, N / 50 terms and 10 N edges: 5 N of papers with authors, 4 N with
terms, N with venues. Papers have a field, and so have the others; most edges stay within a field. How many papers an
author, a term or a venue has is drawn from a power law that is cut at the same size at all N, so that nothing but N
grows. Papers and authors have 32 features.

Every size is a process of its own. A phase is timed by wall and by processor time, with the peak of the resident memory
at its end. Sizes of several calls are merged into benchmarks/results/embedding_scale.json and .md, with the exponent of
N fitted to each phase.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_machine import processor
from benchmark_results import read_results, write_results
from numpy.typing import NDArray

from graphcl.graphs.metapath_construction import metapath_adjacency
from graphcl.models.meow import MEOW, MEOWConfig
from graphcl.pipelines.runs import library_versions, write_json

RESULTS = Path(__file__).parent / "results"
METAPATHS = ("PAP", "PVP", "PTP")
FEATURES = 32
NEIGHBOURS = 20
# The papers of an author, term or venue follow (rank in a block of this many) ** -0.5, so that the largest have about
# half the square root of this number times the mean.
BLOCK = 400
#: Of the model; the bound on a view and the sampled neighbourhoods are what makes the size possible.
SETTINGS: dict[str, Any] = {
    "metapaths": METAPATHS,
    "k": NEIGHBOURS,
    "clusters": (300, 1000),
    "kmeans_restarts": 1,
    "norm": "row",
    "batch_size": 2048,
    "fanout": (2, 1),
    "context_k": 50,
}
PARTS: dict[str, tuple[str, ...]] = {
    "views": ("graph", *(f"view {path}" for path in METAPATHS)),
    "training": ("graph", "inputs", "epoch"),
}


def academic_graph(papers: int, *, seed: int = 0) -> Any:
    """PyG ``HeteroData`` with node types paper, author, venue and term."""
    from torch_geometric.data import HeteroData

    generator = np.random.default_rng(seed)
    counts = {"author": 2 * papers, "venue": max(1, papers // 500), "term": max(1, papers // 50)}
    fields = max(2, papers // 20_000)
    field = generator.integers(fields, size=papers)
    graph = HeteroData(metapaths=list(METAPATHS), target="paper")
    centres = generator.standard_normal((fields, FEATURES), dtype=np.float32)
    graph["paper"].x = _features(generator, centres, field)
    # Node i of another type belongs to field i modulo the number of fields.
    graph["author"].x = _features(generator, centres, np.arange(counts["author"]) % fields)
    for kind, each in (("author", 5), ("term", 4), ("venue", 1)):
        graph[kind].num_nodes = counts[kind]
        paper = np.repeat(np.arange(papers), each)
        chosen = _drawn(generator, counts[kind], paper.size, field[paper], fields)
        graph["paper", "to", kind].edge_index = torch.from_numpy(np.stack([paper, chosen]))
    return graph


def _features(generator: np.random.Generator, centres: NDArray[np.float32], field: NDArray[np.int64]) -> torch.Tensor:
    x = generator.standard_normal((field.size, FEATURES), dtype=np.float32)
    x += centres[field]
    return torch.from_numpy(x)


def _drawn(
    generator: np.random.Generator, nodes: int, size: int, field: NDArray[np.int64], fields: int
) -> NDArray[np.int64]:
    """Nodes by a power law within blocks, nine in ten from the field that is asked for."""
    block = min(BLOCK, max(1, nodes // fields))
    chance = np.arange(1, block + 1) ** -0.5
    blocks = max(1, nodes // block)
    rank = generator.choice(block, size=size, p=chance / chance.sum())
    position = generator.integers(blocks, size=size) * block + rank
    inside = generator.random(size) < 0.9
    shifted = position - position % fields + field
    return np.minimum(np.where(inside, shifted, position), nodes - 1)


class Phases:
    """Times of phases, and the peak of the resident memory at their ends."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    def __call__(self, name: str, run: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        self.found[name] = {
            "seconds": round(time.perf_counter() - wall, 2),
            "processor_seconds": round(time.process_time() - cpu, 2),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }
        print(name, self.found[name], flush=True)
        return result


def measure_views(papers: int, phases: Phases) -> dict[str, Any]:
    """Coarse views of all meta-paths, one after the other."""
    graph = phases("graph", lambda: academic_graph(papers))
    entries = {}
    for path in METAPATHS:
        view = phases(f"view {path}", lambda path=path: metapath_adjacency(graph, path, target="paper", k=NEIGHBOURS))
        if int(view.row_offsets.diff().max()) > NEIGHBOURS:
            raise RuntimeError(f"a row of {path} has more than {NEIGHBOURS} entries")
        entries[path] = view.num_entries
    nodes = {kind: int(graph[kind].num_nodes) for kind in graph.node_types}
    return {"nodes": nodes, "edges": int(graph.num_edges), "view_entries": entries}


def measure_training(papers: int, phases: Phases) -> dict[str, Any]:
    """What MEOW works on, and its first epoch."""
    graph = phases("graph", lambda: academic_graph(papers))
    config = MEOWConfig(**SETTINGS)
    generator = torch.Generator().manual_seed(0)
    inputs = phases("inputs", lambda: MEOW.prepare(graph, config, generator=generator))
    torch.manual_seed(0)
    model = MEOW.from_inputs(inputs, config, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=7e-4)
    size = config.batch_size or papers
    losses: list[float] = []

    def epoch() -> None:
        order = torch.randperm(papers, generator=generator)
        for nodes in torch.split(order, size):
            batch = inputs.batch(nodes, fanout=config.fanout, generator=generator)
            loss, _ = model.objective(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))

    model.on_epoch_start(0, generator)
    phases("epoch", epoch)
    if not all(map(math.isfinite, losses)):
        raise RuntimeError("a loss is not finite")
    tenth = max(1, len(losses) // 10)
    return {
        "steps": len(losses),
        "loss": [round(float(np.mean(part)), 4) for part in (losses[:tenth], losses[-tenth:])],
    }


def exponents(sizes: list[dict[str, Any]], phase: str, key: str) -> float | None:
    """Slope of the logarithm of a measure against that of N; None for fewer than three sizes."""
    points = [(one["papers"], one["phases"][phase][key]) for one in sizes if phase in one["phases"]]
    points = [(papers, value) for papers, value in points if value > 0]
    if len(points) < 3:
        return None
    papers, values = (np.log([point[place] for point in points]) for place in (0, 1))
    return round(float(np.polyfit(papers, values, 1)[0]), 2)


def markdown(results: dict[str, Any]) -> str:
    """Tables of both parts."""
    machine, fanout = results["machine"], SETTINGS["fanout"]
    lines = [
        "# Meta-path views and mini-batch training of a growing academic graph",
        "",
        f"`benchmarks/embedding_scale.py`, {machine['processor']}, {machine['threads']} thread(s), torch "
        f"{results['versions']['torch']}. Processor seconds: other work ran beside it, so the wall seconds, in the "
        "json file, are longer. Behind them the peak of the resident memory of the process up to the end of the phase, "
        "in GiB.",
        "",
        f"N papers, 2 N authors, N / 500 venues, N / 50 terms, 10 N edges; at most {NEIGHBOURS} neighbours a node in a "
        f"view. MEOW: batches of {SETTINGS['batch_size']}, {fanout[0]} and {fanout[1]} sampled neighbours a meta-path, "
        f"contexts of at most {SETTINGS['context_k']} nodes.",
    ]
    for part, phases in PARTS.items():
        sizes = sorted(results["sizes"].get(part, {}).values(), key=lambda one: one["papers"])
        if not sizes:
            continue
        lines += ["", f"## {part.capitalize()}", ""]
        lines += [
            "| phase | " + " | ".join(f"{one['papers']:,}" for one in sizes) + " | time grows as | peak grows as |"
        ]
        lines += ["|---" * (len(sizes) + 3) + "|"]
        for phase in phases:
            measured = [one["phases"].get(phase) for one in sizes]
            cells = [
                "" if found is None else f"{found['processor_seconds']:.1f} s, {found['peak_gib']:.2f}"
                for found in measured
            ]
            grows = [exponents(sizes, phase, key) for key in ("processor_seconds", "peak_gib")]
            cells += ["" if slope is None else f"N^{slope:.2f}" for slope in grows]
            lines.append(f"| {phase} | " + " | ".join(cells) + " |")
        if part == "views":
            for path in METAPATHS:
                cells = [f"{one['view_entries'][path]:,} entries" for one in sizes]
                lines.append(f"| {path} | " + " | ".join([*cells, "", ""]) + " |")
        else:
            cells = [" to ".join(f"{loss:.2f}" for loss in one.get("loss", ())) for one in sizes]
            lines.append("| loss, first and last tenth of the epoch | " + " | ".join([*cells, "", ""]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--papers", type=int, nargs="+", default=[62_500, 125_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", type=Path, help="measure one part at one size, in this process, into this file")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="files that --one wrote, instead of measuring")
    options = parser.parse_args()
    if options.one is not None:
        (papers,), (part,) = options.papers, options.parts
        phases = Phases()
        found = {
            "papers": papers,
            "part": part,
            **{"views": measure_views, "training": measure_training}[part](papers, phases),
        }
        write_json(options.one, {**found, "phases": phases.found})
        return
    for file in options.add:
        add(json.loads(file.read_text(encoding="utf-8")), options.out)
    if options.add:
        return
    for part in options.parts:
        for papers in options.papers:
            with tempfile.TemporaryDirectory() as folder:
                one = Path(folder) / "one.json"
                command = [sys.executable, __file__, "--papers", str(papers), "--parts", part, "--one", str(one)]
                subprocess.run(command, check=True)
                add(json.loads(one.read_text(encoding="utf-8")), options.out)


def add(found: dict[str, Any], folder: Path) -> None:
    """Put one size of one part into the results."""
    out = folder / "embedding_scale"
    results = read_results(out, sizes={})
    results["machine"] = {"processor": processor(), "threads": torch.get_num_threads()}
    results["versions"] = library_versions("scipy")
    results["settings"] = {**SETTINGS, "neighbours": NEIGHBOURS}
    results["sizes"].setdefault(found["part"], {})[str(found["papers"])] = found
    write_results(out, results, markdown(results))


if __name__ == "__main__":
    main()
