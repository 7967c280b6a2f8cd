"""The command line as a user meets it: a trained run, every command on it, and bad input of every kind."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.cli.app import run

SMALL = ["--set", "hidden=8", "--set", "heads=1", "--set", "inner=8", "--set", "max_length=10", "--epochs", "2"]


def write_log(path: Path, users: int = 40, items: int = 25, length: int = 8) -> Path:
    """A log with text ids for users and numbers with holes for items."""
    rng = np.random.default_rng(0)
    rows = ["customer,product,when"]
    for user in range(users):
        start = int(rng.integers(items))
        rows += [f"c-{user:03d},{7 * ((start + step) % items) + 3},{1000 * user + step}" for step in range(length)]
    path.write_text("\n".join(rows) + "\n")
    return path


COLUMNS = ["--user-column", "customer", "--item-column", "product", "--time-column", "when"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    log = write_log(folder / "log.csv")
    assert run(["train", "sasrec", "--data", str(log), "--out", str(folder / "run"), *COLUMNS, *SMALL]) == 0
    return folder / "run"


def test_train_leaves_a_complete_run_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {
        "config.yaml",
        "metrics.json",
        "history.csv",
        "model.safetensors",
        "ids.parquet",
        "manifest.json",
        "checkpoints",
        "report.html",
    } <= names
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert not [name for name in names if name.startswith(".")]


def test_evaluate_recomputes_the_saved_metrics(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(trained), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    saved = json.loads((trained / "metrics.json").read_text())["test"]
    assert measured["HR@20"] == pytest.approx(saved["HR@20"], abs=1e-12)
    assert measured["NDCG@20"] == pytest.approx(saved["NDCG@20"], abs=1e-12)
    assert run(["evaluate", str(trained), "--split", "valid", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] != measured


def test_recommendations_are_what_evaluate_ranked(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recs.parquet"
    assert run(["recommend", str(trained), "--users", "all", "-k", "20", "--out", str(out)]) == 0
    recs = pl.read_parquet(out)
    assert set(recs["user"]) == {f"c-{user:03d}" for user in range(40)}
    assert set(recs["item"]) <= {7 * item + 3 for item in range(25)}
    log = pl.read_csv(trained.parent / "log.csv")
    target = log.sort("when").group_by("customer").last().select("customer", pl.col("product").alias("item"))
    hits = recs.join(target, left_on=["user", "item"], right_on=["customer", "item"])
    capsys.readouterr()
    assert run(["evaluate", str(trained), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert hits.height / 40 == pytest.approx(metrics["HR@20"], abs=1e-12)
    gain = sum(1 / math.log2(rank + 1) for rank in hits["rank"]) / 40
    assert gain == pytest.approx(metrics["NDCG@20"], abs=1e-9)


def test_recommend_for_a_file_of_users(trained: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("c-007\nc-003\n\nc-007\n")
    out = tmp_path / "recs.csv"
    assert run(["recommend", str(trained), "--users", str(users), "-k", "3", "--out", str(out)]) == 0
    assert pl.read_csv(out)["user"].to_list() == ["c-007"] * 3 + ["c-003"] * 3


def test_embed_writes_ids_and_vectors(trained: Path, tmp_path: Path) -> None:
    items, users = tmp_path / "items.npz", tmp_path / "users.parquet"
    assert run(["embed", str(trained), "--out", str(items)]) == 0
    assert run(["embed", str(trained), "--out", str(users), "--what", "users"]) == 0
    loaded = np.load(items, allow_pickle=False)
    assert loaded["vectors"].shape == (25, 8)
    assert loaded["ids"].tolist() == [7 * item + 3 for item in range(25)]
    assert pl.read_parquet(users).height == 40


def test_report_is_one_page(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert run(["report", str(trained), "--out", str(out)]) == 0
    text = out.read_text()
    assert "NDCG" in text
    assert 'src="http' not in text


def test_datasets(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "list", "--json"]) == 0
    names = [recipe["name"] for recipe in json.loads(capsys.readouterr().out)]
    assert {"ml-100k", "amazon-beauty", "amazon-sports", "amazon-toys", "yelp", "synthetic-shop", "cora"} <= set(names)
    assert run(["datasets", "list"]) == 0
    table = capsys.readouterr().out
    assert "heterogeneous" in table
    assert run(["datasets", "info", "ml-100k"]) == 0
    assert "1,682" in capsys.readouterr().out.replace("1682", "1,682")
    assert run(["datasets", "check", str(trained.parent / "log.csv"), *COLUMNS]) == 0
    assert "320" in capsys.readouterr().out


def test_graphs_and_named_data_are_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "check", "digits"]) == 0
    assert "1797 of type node" in capsys.readouterr().out
    assert run(["datasets", "check", "synthetic-shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["users"] == 2000
    edges = tmp_path / "edges.csv"
    edges.write_text("source,target\na,b\nb,c\nc,c\n")
    assert run(["datasets", "check", str(edges)]) == 0
    assert "1 self-loops" in capsys.readouterr().out
    typed = tmp_path / "typed.csv"
    typed.write_text("source,source_type,target,target_type\np1,paper,a,author\np2,paper,a,author\n")
    assert run(["datasets", "check", str(typed), "--load", "target=paper"]) == 0
    assert "2 of type paper to author" in capsys.readouterr().out
    typed.write_text("source,source_type,target\np1,paper,a\n")
    assert "there is no column 'target_type'" in error_of(["datasets", "check", str(typed)], capsys)
    line = error_of(["datasets", "check", str(edges), "--kind", "graph", "--user-column", "source"], capsys)
    assert "--user-column does not apply" in line
    assert "unread" in error_of(["datasets", "check", str(edges), "--kind", "graph", "--load", "unread=1"], capsys)


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail as bad input; return its one line."""
    capsys.readouterr()
    assert run(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


BAD_TABLES = {
    "missing column": (b"who,item\n1,2\n", ["user"]),
    "empty file": (b"", ["empty"]),
    "header only": (b"user,item\n", ["row"]),
    "one user only": (b"user,item\n1,2\n1,3\n1,4\n1,5\n", ["one user"]),
    "not utf-8": (b"user,item\n1,2\n1,\xff\xfe\n", ["UTF-8"]),
    "NaN time": (b"user,item,time\n1,2,3\n1,2,nan\n2,3,4\n", ["row 3", "time"]),
    "unparsable time": (b"user,item,time\n1,2,3\n1,2,soon\n2,3,4\n", ["row 3", "time"]),
    "negative id": (b"user,item\n1,2\n1,-3\n2,3\n", ["row 3", "item"]),
}


@pytest.mark.parametrize("case", list(BAD_TABLES))
def test_bad_tables_end_with_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = BAD_TABLES[case]
    table = tmp_path / "bad.csv"
    table.write_bytes(content)
    line = error_of(["train", "sasrec", "--data", str(table), "--out", str(tmp_path / "run"), *SMALL], capsys)
    assert "bad.csv" in line
    for word in expected:
        assert word in line, line
    assert not (tmp_path / "run").exists()


def test_unknown_names_get_the_nearest_known_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert "'sasrec'" in error_of(["train", "sasrce", "--data", "synthetic-shop", *out], capsys)
    assert "'hidden'" in error_of(["train", "sasrec", "--data", "synthetic-shop", *out, "--set", "hiden=8"], capsys)
    assert "synthetic-shop" in error_of(["train", "sasrec", "--data", "synthetic-shpo", *out], capsys)
    assert "KEY=VALUE" in error_of(["train", "sasrec", "--data", "synthetic-shop", *out, "--set", "hidden"], capsys)
    assert "hidden" in error_of(["train", "sasrec", "--data", "synthetic-shop", *out, "--set", "hidden=x"], capsys)
    assert "'train'" in error_of(["trian"], capsys)
    assert "--data" in error_of(["train", "sasrec"], capsys)
    assert not (tmp_path / "run").exists()


def test_bad_config_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "sasrec", "--data", "synthetic-shop", "--out", str(tmp_path / "run"), "--config"]
    config = tmp_path / "settings.yaml"
    assert "settings.yaml" in error_of([*command, str(config)], capsys)
    config.write_text("hidden: 8\n  heads: [\n")
    assert "row" in error_of([*command, str(config)], capsys)
    config.write_text("- hidden\n")
    assert "mapping" in error_of([*command, str(config)], capsys)
    config.write_text("hidde: 8\n")
    assert "'hidden'" in error_of([*command, str(config)], capsys)
    config.write_text("!!python/object/apply:os.system ['true']\n")
    assert "YAML" in error_of([*command, str(config)], capsys)


@pytest.mark.parametrize("missing", ["model.safetensors", "ids.parquet", "config.yaml", "manifest.json"])
def test_an_incomplete_run_folder_is_named(
    missing: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    (copy / missing).unlink()
    line = error_of(["evaluate", str(copy)], capsys)
    assert missing in line
    assert "train" in line


def test_a_run_is_not_overwritten_by_accident(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "model.safetensors").read_bytes()
    data = str(trained.parent / "log.csv")
    assert "--overwrite" in error_of(
        ["train", "sasrec", "--data", data, "--out", str(trained), *COLUMNS, *SMALL], capsys
    )
    assert (trained / "model.safetensors").read_bytes() == before


def test_bad_outputs_and_users(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recommend = ["recommend", str(trained), "--users"]
    assert ".parquet" in error_of([*recommend, "all", "--out", str(tmp_path / "recs.txt")], capsys)
    assert "folder" in error_of([*recommend, "all", "--out", str(tmp_path_with_suffix(tmp_path))], capsys)
    assert "nobody.txt" in error_of(
        [*recommend, str(tmp_path / "nobody.txt"), "--out", str(tmp_path / "r.csv")], capsys
    )
    strangers = tmp_path / "strangers.txt"
    strangers.write_text("martian\n")
    assert "martian" in error_of([*recommend, str(strangers), "--out", str(tmp_path / "r.csv")], capsys)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == []


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("accelerator=gpu", "accelerator=cpu"),
        ("devices=4096", "processors"),
        ("hidden=7", "multiple of heads"),
        ("layers=yes", "layers"),
        ("pipeline=clustering", "pipeline"),
        ("model=sasrek", "model"),
        ("learning_rate=1e30", "lower learning_rate"),
        ("learning_rate=.inf", "lower learning_rate"),
        ("batch_size=99999999999999999999", "batch_size"),
        ("seed=99999999999999999999", "seed"),
    ],
)
def test_settings_that_cannot_work_leave_nothing(
    setting: str,
    word: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    data = str(trained.parent / "log.csv")
    command = ["train", "sasrec", "--data", data, "--out", str(tmp_path / "run"), *COLUMNS, *SMALL]
    line = error_of([*command, "--set", "progress=false", "--set", "heads=2", "--set", setting], capsys)
    assert word in line, line
    assert not (tmp_path / "run").exists()


def test_settings_of_a_run_serve_another_one(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, config = str(trained.parent / "log.csv"), str(trained / "config.yaml")
    again = tmp_path / "again"
    command = ["train", "sasrec", "--data", data, "--out", str(again), *COLUMNS, "--config", config, "--json"]
    assert run(command) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert measured == json.loads((trained / "metrics.json").read_text())["test"]
    assert (again / "config.yaml").read_text() == (trained / "config.yaml").read_text()


def test_files_have_the_permissions_of_the_process(trained: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert run(["embed", str(trained), "--out", str(tmp_path / "items.npz")]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "items.npz").stat().st_mode & 0o777 == 0o640


def test_places_that_cannot_be_written(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("here")
    data = str(trained.parent / "log.csv")
    for command in (
        ["train", "sasrec", "--data", data, *COLUMNS, *SMALL, "--out", str(tmp_path / "file" / "run")],
        ["recommend", str(trained), "--users", "all", "--out", str(tmp_path / "file" / "recs.parquet")],
        ["embed", str(trained), "--out", str(tmp_path / "file" / "items.npz")],
        ["report", str(trained), "--out", str(tmp_path / "file" / "page.html")],
    ):
        line = error_of(command, capsys)
        assert str(tmp_path / "file") in line
        assert "written" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_data_that_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    train = ["train", "sasrec", "--out", str(tmp_path / "run"), "--data"]
    assert "folder" in error_of([*train, str(folder)], capsys)
    array = tmp_path / "log.json"
    array.write_text('[{"user": 1, "item": 2}]')
    assert "one object a line" in error_of([*train, str(array)], capsys)
    (tmp_path / "log.csv").write_text("user,item,time\n1,2,3\n1,2,soon\n1,3,4\n1,4,5\n2,2,6\n2,3,7\n")
    bad = str(tmp_path / "log.csv")
    assert "row 3" in error_of([*train, bad], capsys)
    assert run([*train, bad, "--on-bad-rows", "drop", *SMALL]) == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["interactions"] == 5


def test_damaged_artefacts_are_named_once(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.yaml", "manifest.json", "ids.parquet", "interactions.parquet", "model.safetensors"):
        copy = tmp_path / name
        shutil.copytree(trained, copy)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2] + b"[{")
        line = error_of(["evaluate", str(copy)], capsys)
        assert f"{name}/{name}:" in line
        assert line.count(";") == 1


def test_more_items_than_the_catalogue_holds(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "recs.csv"
    assert "25 items" in error_of(["recommend", str(trained), "--users", "all", "-k", "26", "--out", str(out)], capsys)
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".parquet", ".user"])
def test_users_come_from_any_table(suffix: str, trained: Path, tmp_path: Path) -> None:
    wanted = ["c-007", "c-003"]
    users = tmp_path / f"users{suffix}"
    table = pl.DataFrame({"userId": wanted, "age": [1, 2]})
    if suffix == ".txt":
        users.write_text("\n".join(wanted), encoding="utf-8-sig")
    elif suffix == ".csv":
        users.write_text("userId;age\r\nc-007;1\r\nc-003;2\r\n", encoding="utf-8-sig")
    elif suffix == ".tsv":
        table.write_csv(users, separator="\t")
    elif suffix == ".jsonl":
        table.write_ndjson(users)
    elif suffix == ".parquet":
        table.write_parquet(users)
    else:
        users.write_text("user_id:token\tage:float\nc-007\t1\nc-003\t2\n")
    out = tmp_path / "recs.csv"
    assert run(["recommend", str(trained), "--users", str(users), "-k", "2", "--out", str(out)]) == 0
    assert pl.read_csv(out)["user"].to_list() == ["c-007"] * 2 + ["c-003"] * 2


def test_unknown_users_are_left_out_on_request(trained: Path, tmp_path: Path) -> None:
    users, out = tmp_path / "users.txt", tmp_path / "recs.csv"
    users.write_text("martian\nc-003\n")
    command = ["recommend", str(trained), "--users", str(users), "-k", "1", "--out", str(out)]
    assert run([*command, "--on-unsupported", "ignore"]) == 0
    assert pl.read_csv(out)["user"].to_list() == ["c-003"]


def tmp_path_with_suffix(folder: Path) -> Path:
    taken = folder / "taken.csv"
    taken.mkdir()
    taken.rename(folder / "taken.parquet")
    return folder / "taken.parquet"


def test_a_wrong_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "amazon-beauty").mkdir()
    (tmp_path / "amazon-beauty" / "sequences.txt").write_text("1 1 2 3\n2 3 2 1\n")
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path))
    line = error_of(["train", "sasrec", "--data", "amazon-beauty", "--out", str(tmp_path / "run")], capsys)
    assert "sequences.txt" in line
    assert "sha256" in line.lower() or "checksum" in line


def test_our_own_fault_is_status_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("graphcl.data.diagnose", explode)
    assert run(["datasets", "check", "x.csv"]) == 1
    assert "bug" in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"
    for command in (["train"], ["evaluate"], ["recommend"], ["embed"], ["report"], ["datasets", "check"]):
        assert run([*command, "--help"]) == 0
        assert "Usage: graphcl" in capsys.readouterr().out
