from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from graphcl.errors import InputError
from graphcl.report import page, write_report
from graphcl.report.html import section
from graphcl.report.record import FILES as EVERY_RUN
from graphcl.report.record import RunRecord

FILES = ("own.json",)  # of the pipeline "own" below
ATTACK = "<script>alert(1)</script>"
RANKING_FILES = (*EVERY_RUN, "item_map.parquet")


def make_run(folder: Path, *, item: str = "B00", items: int = 400, category: str | None = None) -> Path:
    """A run folder with plausible numbers."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    config = {"model": "sasrec", "data": "synthetic-shop", "hidden": 64, "dropout": 0.5, "seed": 0, "stride": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def metrics(scale: float) -> dict[str, float]:
        names = ("HR", "Recall", "Precision", "NDCG", "MRR", "MAP")
        return {f"{name}@{k}": scale * k**0.5 / (3 + i) for k in (5, 10, 20) for i, name in enumerate(names)}

    buckets = [
        {"name": name, "users": users, "targets": users, "items": 100 * (4 - i), **metrics(0.02 * (i + 1))}
        for i, (name, users) in enumerate([("0 (unseen)", 33), ("1-9", 9231), ("10-49", 8000), ("50+", 5100)])
    ]
    protocol = {
        "split": "leave-one-out", "ranking": "full, all 12,101 items", "seen items": "kept as candidates",
        "ties": "optimistic", "users evaluated": "22,363",
    }  # fmt: skip
    document = {
        "protocol": protocol, "validation": metrics(0.05), "test": metrics(0.04), "buckets": buckets,
        "best_epoch": 12, "epochs": 20,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(document))
    with (folder / "history.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["epoch", "loss", "cross_entropy", "auxiliary", "valid_HR@20", "valid_HR@5", "valid_NDCG@20", "seconds"]
        )
        for epoch in range(1, 21):
            loss = 9.4 * epoch**-0.12
            table.writerow(
                [epoch, loss, loss, 0.1 * loss, 0.13 * (1 - 0.8**epoch), 0.01, "" if epoch == 3 else 0.06, 11.0]
            )
    manifest = {
        "versions": {"python": "3.11.7", "torch": "2.13.0"}, "seed": 0, "wall_seconds": 431.7,
        "peak_memory_bytes": 913_000_000, "data": {"source": "amazon-beauty", "hash": "a" * 64, "users": 22363},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    edges = np.linspace(-4, 8, 41)
    positive, negative = (np.histogram(rng.normal(m, 1.2, 5000), edges)[0].tolist() for m in (2.5, -0.5))
    scores = {"edges": edges.tolist(), "positive": positive, "negative": negative, "auc": 0.93}
    about = {"explained_variance": [0.31, 0.08], "items": items, "shown": items}
    exposure = {f"{name}@{k}": 0.01 * k for k in (5, 10, 20) for name in ("Coverage", "Popularity", "Gini")}
    (folder / "analysis.json").write_text(
        json.dumps({"score_histograms": scores, "exposure": exposure, "item_map": about})
    )
    columns: dict[str, Any] = {
        "item": [item, *(f"B{number:05}" for number in range(items - 1))],
        "x": rng.normal(size=items),
        "y": rng.normal(size=items),
        "train_count": rng.zipf(1.6, items).clip(max=5000),
    }
    if category is not None:
        columns["category"] = [category] * (items // 2) + ["hair"] * (items - items // 2 - 1) + [None]
    pl.DataFrame(columns).write_parquet(folder / "item_map.parquet")
    return folder


def figures_of(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"const figure = (.*?); addEventListener", page)]


def without_library(page: str) -> str:
    """The page without the plotting library, which is not ours."""
    start, end = page.index("<script>") + 8, page.index("</script></head>")
    return page[:start] + page[end:]


def test_report_shows_the_numbers_with_their_protocol(tmp_path: Path) -> None:
    out = write_report(make_run(tmp_path / "run"))
    assert out == tmp_path / "run" / "report.html"
    text = html.unescape(re.sub(r"<[^>]+>", " ", without_library(out.read_text(encoding="utf-8"))))
    test = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    for value in test.values():
        assert f"{value:.4f}" in text
    for fact in ("sasrec on amazon-beauty", "leave-one-out", "kept as candidates", "optimistic", "22,363", "2.13.0"):
        assert fact in text
    for heading in ("Metrics", "Training loss", "Validation metrics", "Hot and cold items", "Item embeddings", "Run"):
        assert heading in text
    assert text.count("7 min 12 s") == 2  # card and manifest
    assert "871 MiB" in text
    assert "93.0% of the pairs" in text


def test_report_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    ours = without_library(page)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", ours)
    assert "@import" not in ours
    assert "url(" not in ours
    assert "default-src 'none'" in ours
    assert page.count("<script>") == 1 + len(figures_of(page))
    assert len(page) < 6_000_000


def test_figures_hold_the_data(tmp_path: Path) -> None:
    loss, validation, buckets, scores, embedding = figures_of(write_report(make_run(tmp_path / "run")).read_text())
    assert [trace["name"] for trace in loss["data"]] == ["loss", "auxiliary"]  # the part equal to the loss is one line
    assert [trace["name"] for trace in validation["data"]] == ["valid_HR@20", "valid_NDCG@20"]
    assert validation["data"][1]["y"][2] is None
    assert [trace["name"] for trace in buckets["data"]] == ["HR@20", "NDCG@20"]
    assert buckets["data"][0]["x"] == ["0 (unseen)", "1-9", "10-49", "50+"]
    assert len(scores["data"]) == 2
    assert len(embedding["data"][0]["text"]) == 400


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", item=ATTACK, category=f"{ATTACK}\u2028<b>")
    for name in ("config.yaml", "manifest.json", "metrics.json"):
        values = yaml.safe_load((folder / name).read_text())
        values[ATTACK] = {ATTACK: ATTACK}
        if name == "metrics.json":
            values["protocol"][ATTACK] = ATTACK
            values["test"] = {f"{ATTACK}@20": 0.5, ATTACK: 0.25, **values["test"]}
            values["buckets"][0]["name"] = ATTACK
        (folder / name).write_text(json.dumps(values))
    rows = (folder / "history.csv").read_text().replace("auxiliary", ATTACK)
    (folder / "history.csv").write_text(rows)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert ATTACK not in page
    # Only the library, and one script a figure: no text opened an element of its own.
    assert page.count("<script") == page.count("</script") == 1 + len(figures_of(page))
    assert "\u2028" not in page
    # Inside the figures plotly reads tags and decodes entities: the text arrives escaped once.
    texts = [text for trace in figures_of(page)[-1]["data"] for text in trace["text"]]
    assert any(text.startswith("&lt;script&gt;alert(1)&lt;/script&gt;<br>") for text in texts)
    assert not any("<script" in text for text in texts)
    assert all("<script" not in json.dumps(figure["data"]) for figure in figures_of(page))


def test_large_catalogues_are_sampled(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", items=9000)).read_text()
    (trace,) = figures_of(page)[-1]["data"]
    assert len(trace["text"]) == 3000
    assert "3,000 of 9,000 items" in page


def test_categories_colour_the_map(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", category="nails")).read_text()
    assert sorted(trace["name"] for trace in figures_of(page)[-1]["data"]) == ["hair", "nails", "none"]


def test_analysis_that_a_run_did_not_make_is_said_to_be_absent(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "analysis.json").write_text("{}")
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "buckets": []}))
    page = write_report(folder).read_text()
    assert "recorded no score distribution" in page
    assert "recorded no metrics by item popularity" in page
    assert len(figures_of(page)) == 3


@pytest.mark.parametrize("name", RANKING_FILES)
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"incomplete run folder: {re.escape(name)} is missing; finish the run"):
        write_report(folder)
    assert not (folder / "report.html").exists()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "metrics.json": (lambda path: path.write_text("{"), "metrics.json: is not valid JSON"),
    "manifest.json": (lambda path: path.write_text("[]"), "manifest.json: is not a JSON object"),
    "config.yaml": (lambda path: path.write_text("a: ["), "config.yaml: is not valid YAML"),
    "history.csv": (lambda path: path.write_text("epoch,loss\n1,x\n"), "history.csv, row 2, column 'loss': is not a"),
    "item_map.parquet": (lambda path: path.write_bytes(b"PAR1"), "item_map.parquet: cannot be read as Parquet"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "run")
    damage, message = DAMAGE[name]
    damage(folder / name)
    with pytest.raises(InputError, match=re.escape(message)):
        write_report(folder)


def test_other_faults_of_a_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        write_report(tmp_path / "absent")
    folder = make_run(tmp_path / "run")
    with pytest.raises(InputError, match="cannot be written there; give a file in an existing folder"):
        write_report(folder, tmp_path / "absent" / "report.html")
    (folder / "history.csv").write_text("epoch,loss\n")
    with pytest.raises(InputError, match="holds no epoch"):
        write_report(folder)
    (folder / "history.csv").write_text("loss\n1\n")
    with pytest.raises(InputError, match="column 'epoch': column is missing"):
        write_report(folder)
    (folder / "metrics.json").write_text('{"test": {}}')
    with pytest.raises(InputError, match="has no table of validation metrics"):
        write_report(folder)


def test_the_pipeline_of_the_run_decides_the_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    monkeypatch.setitem(page._SECTIONS, "own", __name__)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "pipeline": "own"}))
    with pytest.raises(InputError, match=r"incomplete run folder: own\.json is missing"):
        write_report(folder)
    (folder / "own.json").write_text("{}")
    text = write_report(folder).read_text()
    assert "<section><h2>Nodes &lt; edges</h2>run</section>" in text
    assert "Hot and cold" not in text
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "pipeline": "alchemy"}))
    with pytest.raises(InputError, match=r"config.yaml: unknown pipeline 'alchemy'; use one of: sequential, coll"):
        write_report(folder)


def sections(record: RunRecord) -> Iterator[str]:
    """What a report of the pipeline "own" shows."""
    yield section("Nodes < edges", record.name)


def test_report_goes_where_it_is_asked_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    before = {path.name for path in folder.iterdir()}
    (tmp_path / "other.html").write_text("old")
    assert write_report(folder, tmp_path / "other.html") == tmp_path / "other.html"
    assert (tmp_path / "other.html").read_text().startswith("<!doctype html>")
    assert {path.name for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "run"]


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", items=4000)
    assert write_report(folder).read_bytes() == write_report(folder, tmp_path / "again.html").read_bytes()
