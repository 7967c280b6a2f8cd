"""What the base gives a new pipeline: here one that embeds the nodes of a graph by a linear map."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphcl import pipelines
from graphcl.cli.app import run
from graphcl.errors import InputError
from graphcl.models import ModelConfig
from graphcl.models.registry import register_model, unregister_model
from graphcl.pipelines import SequentialRecommender, create_pipeline, load_pipeline
from graphcl.pipelines.base import Clusterer, Embeddings, PipelineSettings, TrainedPipeline
from graphcl.pipelines.runs import ANALYSIS, RunFolder, write_by_rename, write_json
from graphcl.report import page
from graphcl.report.record import RunRecord
from graphcl.report.sections import training

if TYPE_CHECKING:
    from graphcl.pipelines.training import TrainingPlan

FEATURES = "features.safetensors"
FILES = (FEATURES,)


def sections(record: RunRecord) -> Iterator[str]:
    """The report of the pipeline."""
    yield training(record)


class LinearConfig(ModelConfig):
    width: int = 2
    spans: tuple[int, ...] = (2, 3)  # JSON makes a list of it


class LinearNodes(nn.Module):
    """Reconstructs the features from a few of their linear combinations."""

    config_class: ClassVar[type[ModelConfig]] = LinearConfig
    recommended: ClassVar[Mapping[str, Any]] = {"epochs": 3, "learning_rate": 0.05}

    def __init__(self, num_features: int, config: LinearConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(num_features, config.width, generator=generator))

    def embed(self, x: Tensor) -> Tensor:
        return x @ self.weight

    def objective(self, batch: WholeGraph) -> tuple[Tensor, dict[str, Tensor]]:
        return (batch.x - self.embed(batch.x) @ self.weight.T).square().mean(), {}


@dataclass(frozen=True)
class WholeGraph:
    x: Tensor

    @property
    def total(self) -> float:
        return float(self.x.shape[0])

    @property
    def num_targets(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device) -> WholeGraph:
        return WholeGraph(self.x.to(device))

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[WholeGraph]:
        yield self


class Numbers(dict[str, float | None]):
    def to_dict(self) -> dict[str, float | None]:
        return dict(self)


@dataclass(frozen=True)
class NodeMeasure:
    metrics: Numbers
    protocol: Mapping[str, str] = field(default_factory=lambda: {"nodes": "all"})

    def to_dict(self) -> dict[str, Any]:
        return {"protocol": dict(self.protocol), "metrics": self.metrics.to_dict()}


class LinearSettings(PipelineSettings):
    weight_decay: float = 0.0


class LinearEmbedder(TrainedPipeline[Tensor]):
    task: ClassVar[str] = "clustering"
    data_kind = "graph"
    embeds = ("nodes",)
    noun = "embedder"
    settings_class = LinearSettings
    artefacts = (FEATURES,)

    def _accept(self, data: Any) -> Tensor:
        x = getattr(getattr(data, "graph", data), "x", data)
        if not isinstance(x, Tensor):
            raise InputError(f"cannot embed {type(data).__name__}", "give a graph with features")
        return x.to(torch.float32)

    def _build_model(self, data: Tensor, generator: torch.Generator) -> nn.Module:
        model: nn.Module = self.model_class(data.shape[1], self.model_config, generator)
        return model

    def _training(self, model: Any, data: Tensor) -> tuple[WholeGraph, None, TrainingPlan]:
        from graphcl.pipelines.training import TrainingPlan

        plan = TrainingPlan(
            epochs=self.settings.epochs, learning_rate=self.settings.learning_rate, seed=self.settings.seed,
            weight_decay=self.settings.weight_decay, unit="nodes", progress=False, accelerator="cpu",
        )  # fmt: skip
        return WholeGraph(data), None, plan

    def _hash_data(self, data: Tensor) -> str:
        return str(data.double().sum().item())

    def _describe_data(self, data: Tensor) -> dict[str, Any]:
        return {"source": "memory", "hash": self._hash_data(data), "nodes": data.shape[0]}

    def _write_data(self, folder: RunFolder, data: Tensor) -> None:
        write_by_rename(folder.path / FEATURES, lambda path: save_file({"x": data}, path))

    def _read_data(self, folder: RunFolder) -> Tensor:
        return load_file(folder.path / FEATURES)["x"]

    def _write_results(self, folder: RunFolder, model: Any, data: Tensor) -> dict[str, Any]:
        write_json(folder.path / ANALYSIS, {})
        measured = self.evaluate()
        baselines = [{"name": "zero", "metrics": {"error": 1.0, "undefined": None}}, {"name": "x", "skipped": "big"}]
        tables = {"validation": {}, "test": measured.metrics.to_dict(), "baselines": baselines}
        return {"protocol": dict(measured.protocol), **tables}

    def evaluate(self, split: Any = "test") -> NodeMeasure:
        model, data = self._fitted()
        with torch.no_grad():
            return NodeMeasure(Numbers(error=float(model.objective(WholeGraph(data))[0]), undefined=None))

    def embed(self, what: Any = "nodes") -> Embeddings:
        model, data = self._fitted()
        with torch.no_grad():
            return Embeddings(np.arange(data.shape[0]), model.embed(data).numpy())

    def predict(self) -> pl.DataFrame:
        vectors = self.embed().vectors
        return pl.DataFrame(
            {"node": np.arange(len(vectors)), "cluster": vectors.argmax(1), "confidence": vectors.max(1)}
        )


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[LinearEmbedder]]:
    """The pipeline and its model, known by name while a test runs."""
    register_model("linear-nodes", task="clustering")(LinearNodes)
    monkeypatch.setitem(pipelines._PIPELINES, "clustering", (__name__, "LinearEmbedder"))
    monkeypatch.setitem(page._SECTIONS, "clustering", __name__)
    yield LinearEmbedder
    unregister_model("linear-nodes")


X = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))


def test_a_model_may_recommend_settings(embedder: type[LinearEmbedder]) -> None:
    assert embedder("linear-nodes").get_config()["epochs"] == 3
    assert embedder("linear-nodes", epochs=9).settings.epochs == 9
    config = create_pipeline("linear-nodes", {"width": 3, "weight_decay": 0.5}).get_config()
    assert (config["width"], config["weight_decay"], config["learning_rate"]) == (3, 0.5, 0.05)
    with pytest.raises(InputError, match=r"unknown setting 'widht'; did you mean 'width'\?"):
        embedder("linear-nodes", widht=3)


def test_fit_save_and_load(embedder: type[LinearEmbedder], tmp_path: Path) -> None:
    fitted = embedder("linear-nodes").fit(X, tmp_path / "run")
    loaded = load_pipeline(tmp_path / "run")
    assert isinstance(loaded, embedder)
    assert loaded.get_config() == fitted.get_config()
    assert np.array_equal(loaded.embed().vectors, fitted.embed().vectors)
    assert loaded.training_history == fitted.training_history
    assert fitted.best_epoch == 3
    folder = RunFolder(tmp_path / "run", "clustering", (FEATURES,))
    assert folder.is_complete
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*folder.artefacts, "checkpoints"}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"] == {"error": fitted.evaluate().metrics["error"], "undefined": None}
    assert (metrics["best_epoch"], metrics["epochs"]) == (3, 3)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["pipeline"], manifest["data"]["nodes"], manifest["parameters"]) == ("clustering", 20, 10)
    (tmp_path / "run" / FEATURES).unlink()
    with pytest.raises(InputError, match=f"incomplete run folder: {FEATURES} is missing"):
        load_pipeline(tmp_path / "run")


def test_resume_compares_settings_and_data(embedder: type[LinearEmbedder], tmp_path: Path) -> None:
    whole = embedder("linear-nodes", epochs=5).fit(X)
    embedder("linear-nodes", epochs=2).fit(X, tmp_path)
    parts = embedder("linear-nodes", epochs=5).fit(X, tmp_path, resume=True)
    assert np.array_equal(parts.embed().vectors, whole.embed().vectors)
    with pytest.raises(InputError, match=r"the run was started with width=2, not 3"):
        embedder("linear-nodes", width=3).fit(X, tmp_path, resume=True)
    with pytest.raises(InputError, match="the run was started on other data"):
        embedder("linear-nodes").fit(X + 1, tmp_path, resume=True)


def test_a_run_of_another_pipeline_is_left_alone(embedder: type[LinearEmbedder], tmp_path: Path) -> None:
    embedder("linear-nodes").fit(X, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder = SequentialRecommender._folder(tmp_path)
    for choice in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(InputError, match="holds a run of the clustering pipeline, not of the sequential one"):
            folder.prepare(**{"resume": False, "overwrite": False, **choice})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    embedder("linear-nodes", width=1).fit(X, tmp_path, overwrite=True)


def test_bad_data_and_unfitted_use(embedder: type[LinearEmbedder], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the embedder is not fitted; call fit first"):
        embedder("linear-nodes").embed()
    with pytest.raises(InputError, match="cannot embed list; give a graph with features"):
        embedder("linear-nodes").fit([1, 2], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_capabilities_are_told_apart(embedder: type[LinearEmbedder]) -> None:
    assert isinstance(embedder("linear-nodes"), Clusterer)
    assert not isinstance(SequentialRecommender(), Clusterer)


def test_a_task_without_pipeline_is_named() -> None:
    register_model("odd-one", task="alchemy")(LinearNodes)
    try:
        with pytest.raises(InputError, match="no pipeline trains 'odd-one'; register it for one of the tasks seq"):
            create_pipeline("odd-one")
    finally:
        unregister_model("odd-one")


@pytest.mark.usefixtures("embedder")
def test_the_command_line_serves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert (
        run(["train", "linear-nodes", "--data", "sbm", "--load", "num_nodes=300", "--out", out, "--epochs", "2"]) == 0
    )
    printed = capsys.readouterr().out
    for word in ("linear-nodes on sbm", "undefined", "zero", "protocol: nodes all", "report.html"):
        assert word in printed
    assert run(["evaluate", out, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert measured == json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert run(["embed", out, "--out", str(tmp_path / "nodes.parquet"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["width"], told["what"]) == (300, 2, "nodes")
    assert run(["embed", out, "--what", "clusters", "--out", str(tmp_path / "clusters.csv")]) == 0
    assert pl.read_csv(tmp_path / "clusters.csv").columns == ["node", "cluster", "confidence"]
    assert "wrote 300 nodes in" in capsys.readouterr().out


@pytest.mark.usefixtures("embedder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "linear-nodes", "--data", "sbm", "--k-core", "5"],
            "--k-core does not apply: linear-nodes trains on a",
        ),
        (["train", "linear-nodes", "--data", "sbm", "--time-column", "t"], "--time-column does not apply"),
        (["train", "linear-nodes", "--data", "sbm", "--split", "time"], "--split does not apply"),
        (
            ["train", "sasrec", "--data", "synthetic-shop", "--labels", "y.npy"],
            "--labels does not apply: sasrec trains",
        ),
        (["train", "linear-nodes", "--data", "sbm", "--load", "num_nodes"], "--load 'num_nodes' is not KEY=VALUE"),
        (["train", "linear-nodes", "--data", "sbm", "--load", "colour=red"], "colour"),
        (["train", "linear-nodes", "--data", "synthetic-shop"], "synthetic-shop"),
        (["train", "sasrec", "--data", "synthetic-shop", "--load", "user=u"], "user is set by its recipe"),
    ],
)
def test_options_that_do_not_apply_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_a_run_cannot_do_is_refused(
    embedder: type[LinearEmbedder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder("linear-nodes").fit(X, tmp_path / "run")
    out = ["--out", str(tmp_path / "file.parquet")]
    assert run(["recommend", str(tmp_path / "run"), "--users", "all", *out]) == 2
    assert "a clustering run recommends nothing" in capsys.readouterr().err
    assert run(["embed", str(tmp_path / "run"), "--what", "users", *out]) == 2
    assert "a clustering run has no users; use --what nodes or clusters" in capsys.readouterr().err
