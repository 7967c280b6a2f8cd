from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from replay import differences, main, replay_case, replay_file
from replay_cases import Case, read_document, runner_of

HERE = Path(__file__).parent
FILES = ["graph-contrastive.json", "losses.json", "multimodal-recommendation.json", "sequential-recommendation.json"]
COVERED = {
    "cl4srec_loss",
    "clhe.bundle_encoder",
    "clhe.full",
    "clhe.infonce",
    "clhe.metrics",
    "clhe.modality_dropout",
    "clhe.modality_fusion",
    "clhe.recon",
    "contrastive_regulariser",
    "crop_mask_reorder",
    "duorec_loss",
    "engine_weighted_lse",
    "hgnn.operator",
    "htcl.symmetric_infonce",
    "htcl.triplet_infonce",
    "lightgcl.original",
    "lightgcl.released",
    "lightgcn.mean_with_ego",
    "lightgcn.sum",
    "mclrec_cl2_and_R",
    "mclrec_training_step",
    "metrics.mmhcl",
    "mmhcl.bpr",
    "mmhcl.contrastive",
    "mmhcl.forward",
    "mmhcl.lr_schedule",
    "mmhcl.train_step",
    "mmhcl.u2u_rw",
    "mmhcl.u2u_rw_empty_user",
    "mmhcl.ui_adj_sym",
    "mmhcl.ui_adj_sym_empty_user",
    "model_augmenter",
    "normalize_adj",
    "ntxent",
    "ntxent_cold",
    "ntxent_large",
    "ranking_metrics",
    "sample_synthesizer",
    "sasrec_encoder",
    "sasrec_encoder_left_padded",
    "selfrec.losses",
    "semantic_retrieval",
    "sgl.edge_drop",
    "simgcl",
    "sparse_positives",
    "split_and_prefix_rows",
    "sracl_losses",
    "xsimgcl",
}


def perturbed(value: Any) -> Any:
    """The same structure with its last number changed."""
    if isinstance(value, dict):
        last = list(value)[-1]
        return {**value, last: perturbed(value[last])}
    if isinstance(value, list):
        return [*value[:-1], perturbed(value[-1])] if value else [1]
    return value + 1e-3 if isinstance(value, float) else value + 1


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHCL_DATA", raising=False)


@pytest.mark.parametrize("name", FILES)
def test_no_committed_case_fails(name: str) -> None:
    results = list(replay_file(HERE / name))
    assert results
    assert [str(result) for result in results if result.outcome == "FAIL"] == []
    passed = {result.id for result in results if result.outcome == "PASS"}
    assert passed >= COVERED & {result.id for result in results}


def test_every_expected_case_is_in_some_file() -> None:
    assert {identity for name in FILES for identity in read_document(HERE / name).cases} >= COVERED


@pytest.mark.parametrize("name", FILES)
def test_a_changed_number_fails_every_covered_case(name: str) -> None:
    document = read_document(HERE / name)
    for one in document.cases.values():
        if one.id in COVERED:
            for key, value in one.expected.items():
                wrong = replace(one, expected={**one.expected, key: perturbed(value)})
                assert replay_case(wrong).outcome == "FAIL", (one.id, key)


def test_an_expected_key_that_is_not_computed_fails() -> None:
    document = read_document(HERE / "sequential-recommendation.json")
    one = document.cases["ranking_metrics"]
    result = replay_case(Case(one.id, one.inputs, {**one.expected, "unheard_of": 1.0}, document=document))
    assert result.outcome == "FAIL"
    assert "unheard_of was not computed" in result.detail


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "sasrec_encoder": lambda case: case["inputs"]["params"][4].update(k=4.5),
    "ranking_metrics": lambda case: case["inputs"]["scores"].update(step=1.7),
    "split_and_prefix_rows": lambda case: case["inputs"].update(max_len=2),
    "semantic_retrieval": lambda case: case["inputs"].update(k=2),
    "engine_weighted_lse": lambda case: case["params"].update(tau=0.4),
    "sparse_positives": lambda case: case["params"]["weights"].__setitem__(0, 3.0),
    "ntxent": lambda case: case["inputs"]["z1"].update(k=0.5),
    "ntxent_cold": lambda case: case["params"].update(tau=0.003),
}


@pytest.mark.parametrize("identity", CHANGES)
def test_changed_inputs_change_the_result(identity: str, tmp_path: Path) -> None:
    name = "sequential-recommendation.json" if identity in _ids("sequential-recommendation.json") else "losses.json"
    raw = json.loads((HERE / name).read_text())
    raw["cases"] = [entry for entry in raw["cases"] if entry["id"] == identity]
    unchanged = copy.deepcopy(raw)
    CHANGES[identity](raw["cases"][0])
    for document, status in ((unchanged, 0), (raw, 1)):
        path = tmp_path / "oracle.json"
        path.write_text(json.dumps(document))
        assert main([str(path)]) == status


def test_other_sizes_and_parameters_are_computed() -> None:
    """Cases of the committed formats with other shapes, against the formulas in plain torch."""
    rows, columns, tau = 5, 7, 0.7
    log_weight = [0.1 * j for j in range(columns)]
    masked = [[4, 6], [4, 0], [1, 3]]
    params = {"tau": tau, "log_weight": log_weight, "masked_pairs": masked, "total": "sum(lse)+2.0*sum(first_moment)"}
    inputs = {"x": {"shape": [rows, 3], "k": 2, "grad": True}, "c": {"shape": [columns, 3], "k": 0.3, "grad": False}}
    one = Case("engine_weighted_lse", inputs, {}, params=params)
    runner = runner_of(one)
    assert runner is not None
    computed = runner(one)
    assert isinstance(computed, dict)
    x, candidates = (_wave(rows, 3, 2), _wave(columns, 3, 0.3))
    scores = x @ candidates.T
    logits = scores / tau + torch.tensor(log_weight, dtype=torch.float64)
    for i, j in masked:
        logits[i, j] = -math.inf
    lse = torch.logsumexp(logits, 1)
    mean = (torch.exp(logits - lse[:, None]) * scores).sum(1)
    torch.testing.assert_close(computed["lse"], lse)
    torch.testing.assert_close(computed["value"], lse.sum() + 2 * mean.sum())
    assert set(computed["grad_norm"]) == {"x"}


def test_a_wider_and_shallower_encoder_is_built_from_the_file() -> None:
    document = read_document(HERE / "sequential-recommendation.json")
    inputs = copy.deepcopy(dict(document.cases["sasrec_encoder"].inputs))
    kept = [spec for spec in inputs["params"] if not spec["name"].startswith("layer1")]
    inputs["params"] = [{**spec, "shape": [2 * size for size in spec["shape"]]} for spec in kept]
    inputs["params"][0]["shape"][0] = inputs["n_ids_including_padding"]  # no mask row
    inputs["params"][1]["shape"][0] = inputs["max_len"]
    inputs |= {"n_layers": 1, "n_heads": 4, "hidden": 16, "inner": 32}
    one = Case("sasrec_encoder", inputs, {}, document=document)
    runner = runner_of(one)
    assert runner is not None
    computed = runner(one)
    assert isinstance(computed, dict)
    assert computed["h"].shape == (4, 16)
    assert len(computed["scores_row0_ids_1_to_n_minus_1"]) == 11


def test_users_in_any_order_keep_it() -> None:
    sequences = {"9": [4, 1, 2, 7], "10": [2, 3, 1], "3": [1, 4, 2, 3]}
    expected = {
        "train_rows": [[9, [4], 1], [3, [1], 4]],
        "valid": [[9, [1], 2], [10, [2], 3], [3, [4], 2]],
        "test": [[9, [2], 7], [10, [3], 1], [3, [2], 3]],
        "same_target": [[], []],
    }
    one = Case("split_and_prefix_rows", {"sequences": sequences, "max_len": 1}, expected)
    assert str(replay_case(one)) == "PASS split_and_prefix_rows"


def test_ranks_alone_are_a_case() -> None:
    inputs = {"scores": {"shape": [2, 3], "step": 1.0}, "target_columns": [2, 0]}
    assert replay_case(Case("ranking_metrics", inputs, {"ranks": [1, 1]})).outcome == "PASS"
    assert replay_case(Case("ranking_metrics", inputs, {"ranks": [1, 3]})).outcome == "FAIL"


def test_cases_that_share_an_id_are_all_replayed(tmp_path: Path) -> None:
    raw = json.loads((HERE / "sequential-recommendation.json").read_text())
    one = next(entry for entry in raw["cases"] if entry["id"] == "ranking_metrics")
    wrong = {**one, "expected": {"ranks": [9]}}
    path = tmp_path / "oracle.json"
    path.write_text(json.dumps({**raw, "cases": [wrong, one, one]}))
    results = list(replay_file(path))
    assert [str(result).split(":")[0] for result in results] == [
        "FAIL ranking_metrics", "PASS ranking_metrics#2", "PASS ranking_metrics#3",
    ]  # fmt: skip


def test_cases_that_need_data_say_so() -> None:
    results = {result.id: result for result in replay_file(HERE / "sequential-recommendation.json")}
    for identity in ("published_checkpoint_beauty", "dataset_statistics"):
        assert results[identity].outcome == "NOT COVERED"
        assert "GRAPHCL_DATA" in results[identity].detail


def test_statistics_of_a_small_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "amazon-beauty").mkdir()
    (tmp_path / "amazon-beauty" / "sequences.txt").write_text("1 3 1 2 4\n2 1 3 1 3 5\n3 1 2 3\n")
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path))
    expected = {
        "users": 3, "items": 5, "actions": 12, "train_rows": 3, "rows_with_one_input_item": 2,
        "sum_of_targets": 1 + 3 + 1, "sum_of_all_input_ids_max_len_1": 3 + 1 + 3,
        "users_whose_test_target_is_in_history": 0, "test_items_absent_from_train": 2,
    }  # fmt: skip
    good = replay_case(Case("dataset_statistics", {}, {"QinHsiu/MCLRec Amazon_Beauty": expected}))
    assert str(good) == "PASS dataset_statistics"
    both = {"QinHsiu/MCLRec Amazon_Beauty": expected, "QinHsiu/MCLRec Yelp": expected}
    partly = replay_case(Case("dataset_statistics", {}, both))
    assert partly.outcome == "NOT COVERED"
    assert "1 of 2 parts agree" in partly.detail
    wrong = replay_case(Case("dataset_statistics", {}, {**both, "QinHsiu/MCLRec Amazon_Beauty": {"users": 4}}))
    assert wrong.outcome == "FAIL"


def test_stated_tolerances_are_read() -> None:
    tolerances = {name: read_document(HERE / name) for name in FILES}
    assert (tolerances[FILES[0]].relative, tolerances[FILES[0]].absolute) == (0.0, 1e-6)
    assert (tolerances[FILES[1]].relative, tolerances[FILES[1]].absolute) == (1e-8, 1e-10)
    assert (tolerances[FILES[2]].relative, tolerances[FILES[2]].absolute) == (1e-5, 2e-7)
    assert (tolerances[FILES[3]].relative, tolerances[FILES[3]].absolute) == (0.0, 1e-8)
    checkpoint = tolerances[FILES[3]].cases["published_checkpoint_beauty"]
    assert checkpoint.tolerance() == (0.0, 1e-4)


def test_differences_name_the_place() -> None:
    assert list(differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.1], "b": 1}, 0, 1e-8)) == [
        "a[1]: got 2.0, expected 2.1",
        "b was not computed",
    ]
    assert list(differences(torch.ones(2), [1.0], 0, 1e-8)) == [": got [1.0, 1.0], expected a list of 1"]
    assert list(differences(float("nan"), 1.0, 0, 1)) == [": got nan, expected 1.0"]
    assert list(differences("x", "y", 0, 1)) == [": got 'x', expected 'y'"]
    assert list(differences([1], [1.0 + 1e-9], 0, 1e-8)) == []


def test_a_crash_in_a_runner_is_a_failure_of_that_case_only() -> None:
    result = replay_case(Case("ranking_metrics", {"scores": {"shape": [1, 2]}}, {"ranks": [1]}))
    assert str(result) == "FAIL ranking_metrics: KeyError: 'target_columns'"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, str(HERE / "replay.py"), str(HERE / "sequential-recommendation.json")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert "PASS ranking_metrics" in lines
    assert lines[-1].endswith("not covered")
    assert ", 0 failed, " in lines[-1]
    assert main([str(tmp_path / "absent.json")]) == 2
    (tmp_path / "bad.json").write_text("[]")
    assert main([str(tmp_path / "bad.json")]) == 2
    assert "there is no list or table of cases" in capsys.readouterr().err


def _ids(name: str) -> set[str]:
    return set(read_document(HERE / name).cases)


def _wave(rows: int, columns: int, k: float) -> torch.Tensor:
    i, j = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(columns, dtype=torch.float64)
    return torch.sin(0.7 * i + 1.3 * j + 0.37 * i * j + k)
