"""Runs side by side: grouping, choice by validation, tests over seeds and users, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from scipy.stats import ttest_rel

from graphcl.errors import InputError
from graphcl.report import compare_runs, write_comparison

PROTOCOL = {"part": "test", "ties": "optimistic", "history": "training items"}


def write_run(
    path: Path,
    model: str = "sasrec",
    seed: int = 0,
    test: float = 0.5,
    valid: float = 0.5,
    ranks: list[float | None] | None = None,
    **more: Any,
) -> Path:
    """A run folder as far as a comparison reads it."""
    path.mkdir(parents=True)
    config = {"pipeline": "sequential", "model": model, "seed": seed, "metric": "NDCG@20", **more.get("config", {})}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    metrics: dict[str, Any] = {"test": {"NDCG@20": test, "HR@1": test / 2}, "validation": {"NDCG@20": valid}}
    metrics["protocol"] = {**PROTOCOL, **more.get("protocol", {})}
    (path / "metrics.json").write_text(json.dumps(metrics))
    manifest = {"pipeline": "sequential", "seed": seed, "wall_seconds": 1.0}
    manifest["data"] = {"hash": "a", "source": "log.csv", **more.get("data", {})}
    (path / "manifest.json").write_text(json.dumps(manifest))
    if ranks is not None:
        users = np.arange(len(ranks))
        pl.DataFrame({"user": users, "rank": pl.Series(ranks, dtype=pl.Float32)}).write_parquet(
            path / "test_ranks.parquet"
        )
    return path


def test_groups_means_and_paired_tests(tmp_path: Path) -> None:
    values = {32: [0.30, 0.34, 0.31], 64: [0.33, 0.35, 0.335], 16: [0.2, 0.21, 0.24]}
    for hidden, tests in values.items():
        for seed, test in enumerate(tests):
            write_run(tmp_path / f"{hidden}-{seed}", seed=seed, test=test, config={"hidden": hidden, "layers": 2})
    paths = [tmp_path / f"{hidden}-{seed}" for hidden in values for seed in (2, 0, 1)]
    found = compare_runs(paths)
    assert [group.name for group in found.groups] == ["sasrec hidden=64", "sasrec hidden=32", "sasrec hidden=16"]
    assert found.reference == "sasrec hidden=32"
    best = found.groups[0]
    assert best.seeds == (0, 1, 2)
    assert best.summary("NDCG@20")["mean"] == pytest.approx(np.mean(values[64]))
    assert best.summary("NDCG@20")["deviation"] == pytest.approx(np.std(values[64], ddof=1))
    expected = [float(ttest_rel(values[other], values[32]).pvalue) for other in (64, 16)]
    assert best.against_seeds is not None
    assert best.against_seeds.p == pytest.approx(expected[0])
    assert best.p_seeds == pytest.approx(
        max(expected[0], 2 * min(expected)) if expected[0] > expected[1] else 2 * expected[0]
    )
    assert best.against_users is None
    assert any("over users" in note for note in found.notes)
    other = compare_runs(paths, "HR@1", reference="sasrec hidden=16")
    assert (other.metric, other.reference) == ("HR@1", "sasrec hidden=16")


def test_users_are_paired_with_their_mean_over_seeds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gains = {}
    for model in ("sasrec", "mclrec"):
        for seed in range(2):
            ranks = [None if rank > 40 else float(rank) for rank in rng.integers(1, 50, size=30)]
            write_run(tmp_path / model / f"seed-{seed}", model, seed, test=rng.random(), ranks=ranks)
            gains[model, seed] = [1 / np.log2(1 + rank) if rank and rank <= 20 else 0.0 for rank in ranks]
    found = compare_runs([tmp_path / "sasrec", tmp_path / "mclrec"])
    test = next(group for group in found.groups if group.name == "mclrec").against_users
    means = [np.mean([gains[model, seed] for seed in range(2)], axis=0) for model in ("mclrec", "sasrec")]
    assert test is not None
    assert test.pairs == 30
    assert test.p == pytest.approx(float(ttest_rel(*means).pvalue), rel=1e-9)


def test_the_choice_among_settings_is_by_validation_alone(tmp_path: Path) -> None:
    for hidden, valid, test in ((8, 0.4, 0.1), (16, 0.3, 0.9)):
        for seed in range(2):
            write_run(tmp_path / f"{hidden}/{seed}", seed=seed, test=test, valid=valid, config={"hidden": hidden})
    write_run(tmp_path / "other/0", "gru4rec", 0, test=0.5)
    found = compare_runs([tmp_path], best=True)
    assert {group.name for group in found.groups} == {"sasrec hidden=8", "gru4rec"}
    assert found.tried == {"sasrec": 2, "gru4rec": 1}
    assert any("equal budgets" in note for note in found.notes)


def test_one_seed_is_not_tested_and_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "sasrec")
    write_run(tmp_path / "b", "gru4rec", test=0.6)
    found = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert found.groups[0].p_seeds is None
    assert any("needs two seeds" in note for note in found.notes)
    assert compare_runs([tmp_path / "a"]).notes == ("one group: nothing to test",)


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data": {"hash": "b"}}, "other data"),
        ({"protocol": {"ties": "mean"}}, "another protocol"),
        ({}, "with seed 0, and so is"),
    ]
    for number, (more, message) in enumerate(cases):
        second = write_run(tmp_path / f"b{number}", **more)
        with pytest.raises(InputError, match=message):
            compare_runs([first, second])
    for name in ("manifest.json", "metrics.json"):
        (write_run(tmp_path / f"without-{name}") / name).unlink()
        with pytest.raises(InputError, match=f"incomplete run: {name}"):
            compare_runs([first, tmp_path / f"without-{name}"])
    with pytest.raises(InputError, match=r"did you mean 'NDCG@20'"):
        compare_runs([first], "NDCG@10")
    with pytest.raises(InputError, match="there is no group"):
        compare_runs([first], reference="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run"):
        compare_runs([tmp_path / "empty"])
    soft = write_run(tmp_path / "soft", "gru4rec", protocol={"history": "all"})
    assert any("history" in note for note in compare_runs([first, soft]).notes)


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "sasrec", config={"path": "<script>alert(1)</script>"})
    write_run(tmp_path / "b", "sasrec", config={"path": "x"})
    page = write_comparison(compare_runs([tmp_path / "a", tmp_path / "b"]), tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert 'src="http' not in page
    assert "NDCG@20" in page
    with pytest.raises(InputError, match="existing folder"):
        write_comparison(compare_runs([tmp_path / "a"]), tmp_path / "no" / "page.html")
