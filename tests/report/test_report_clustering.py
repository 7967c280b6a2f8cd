from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from graphcl.data.graph_generators import stochastic_block_model
from graphcl.errors import InputError
from graphcl.pipelines import NodeClusterer
from graphcl.report import write_report

ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("report") / "run"
    graph = stochastic_block_model(60, 3, num_features=4, separation=1.5, mixing=0.1, seed=0)
    graph.node_ids = [f"{ATTACK}{node}" if node == 0 else f"node {node}" for node in range(60)]
    graph.label_names = (ATTACK, "b", "c")
    settings: dict[str, Any] = {"epochs": 4, "warmup_epochs": 3, "widths": [8, 4], "measure_every": 1}
    NodeClusterer(oracle=True, progress=False, **settings).fit(graph, folder)
    write_report(folder)
    return folder


def page_of(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def figures_of(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"const figure = (.*?); addEventListener", page)]


def text_of(page: str) -> str:
    start, end = page.index("<script>"), page.index("</script></head>")
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<script>.*?</script>", " ", page[:start] + page[end + 9 :])))


def test_the_report_shows_the_result_its_protocol_and_its_rivals(trained: Path) -> None:
    text = text_of(page_of(trained))
    metrics = json.loads((trained / "metrics.json").read_text())
    for value in (metrics["test"][name] for name in ("accuracy", "nmi", "ari", "macro_f1", "modularity", "silhouette")):
        assert f"{value:.4f}" in text
    for rival in metrics["baselines"]:
        assert rival["name"] in text
        assert f"{rival['metrics']['nmi']:.4f}" in text
    for phrase in ("last epoch (7)", "no label was seen", "3, the number of classes", "It is no result of the method"):
        assert phrase in text
    assert "best 7" not in text


def test_the_report_draws_every_picture_that_is_promised(trained: Path) -> None:
    page = page_of(trained)
    for heading in ("By cluster", "By label", "Classes and clusters", "Cluster sizes", "The graph between the clusters",
                    "Loss in the warm-up", "Quality without labels", "Nodes that change their cluster",
                    "With labels, for the oracle only"):  # fmt: skip
        assert heading in page
    figures = figures_of(page)
    clusters, labels, confusion, sizes, blocks, warmup, loss, quality = figures[:8]
    analysis = json.loads((trained / "analysis.json").read_text())
    assert sum(len(trace["text"]) for trace in clusters["data"]) == 60
    assert [trace["name"] for trace in labels["data"]][1:] == ["b", "c"]
    # A cluster and the class that it is matched with have one colour.
    order = [f"cluster {cluster}" for cluster in analysis["confusion"]["clusters"]]
    assert [trace["name"] for trace in clusters["data"]] == order
    colors = [[trace["marker"]["color"] for trace in figure["data"]] for figure in (clusters, labels)]
    assert colors[0] == colors[1]
    assert [sum(row) for row in confusion["data"][0]["z"]] == pytest.approx([1, 1, 1])
    assert confusion["data"][0]["x"] == order
    assert sorted(sizes["data"][0]["y"], reverse=True) == sizes["data"][0]["y"]
    assert blocks["data"][0]["x"] == blocks["data"][0]["y"] == order
    assert [sum(row) for row in blocks["data"][0]["z"]] == pytest.approx([1, 1, 1], abs=1e-5)
    assert [trace["name"] for trace in warmup["data"]] == ["loss"]
    assert [trace["name"] for trace in loss["data"]] == ["loss", "contrast", "kl"]
    assert [trace["name"] for trace in quality["data"]] == ["modularity", "conductance", "silhouette"]
    assert loss["data"][0]["x"] == [4, 5, 6, 7]


def test_text_of_the_data_stays_text(trained: Path) -> None:
    page = page_of(trained)
    assert "alert(1)" in page
    assert ATTACK not in page
    assert page.count("<script") == page.count("</script") == 1 + len(figures_of(page))


def test_a_run_without_labels_estimates_and_baselines_has_a_report_too(tmp_path: Path) -> None:
    graph = stochastic_block_model(60, 3, num_features=4, separation=1.5, mixing=0.1, seed=0)
    del graph.y
    settings: dict[str, Any] = {"epochs": 2, "warmup_epochs": 0, "widths": [4], "baselines": False, "progress": False}
    NodeClusterer(num_clusters="eigengap", max_clusters=5, **settings).fit(graph, tmp_path / "run")
    write_report(tmp_path / "run")
    text = text_of(page_of(tmp_path / "run"))
    assert "By label" not in text
    assert "Classes and clusters" not in text
    assert "Oracle" not in text
    assert "Number of clusters" in text
    assert "the largest stands at 3" in text
    assert "estimated by eigengap" in text
    bars = figures_of(page_of(tmp_path / "run"))[-1]["data"][0]
    assert bars["x"] == [2, 3, 4, 5]


def test_a_damaged_run_is_refused_by_the_file(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    pl.DataFrame({"node": ["a"]}).write_parquet(copy / "node_map.parquet")
    with pytest.raises(InputError, match=r"node_map\.parquet, column 'x': column is missing"):
        write_report(copy)
    (copy / "node_map.parquet").unlink()
    with pytest.raises(InputError, match=r"node_map\.parquet is missing"):
        write_report(copy)
