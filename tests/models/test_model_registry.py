"""Every registered model keeps the contract; names and settings that are not known say what was meant."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphcl.errors import InputError
from graphcl.models import SASRec, SASRecConfig, SequentialModel, build_config, get_model, list_models, register_model
from graphcl.models.registry import unregister_model
from graphcl.pipelines.batches import training_windows
from graphcl.pipelines.contrast_rows import ContrastSource, rows_by_target
from graphcl.pipelines.semantic_rows import retrieve_rows


def small(name: str) -> Any:
    model = get_model(name)
    config = build_config(model.config_class, {"hidden": 8, "max_length": 6})
    return model(12, config, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list_models("sequential"))
def test_sequential_models_keep_the_contract(name: str) -> None:
    model = small(name)
    assert isinstance(model, SequentialModel)
    assert isinstance(model, nn.Module)
    assert model.item_embeddings().shape[0] == 12
    sequences = torch.tensor([[1, 2, 0], [3, 4, 5]])
    model.eval()
    users = model(sequences, torch.tensor([2, 3]))
    assert users.shape == (2, model.item_embeddings().shape[1])
    alone = model(sequences[:1, :2], torch.tensor([2]))
    torch.testing.assert_close(alone, users[:1])
    items, offsets = np.arange(1, 11), np.array([0, 7, 10])
    windows = training_windows(items, offsets, max_length=6)
    model.train()
    rows = training_windows(items, offsets, max_length=6, rows="prefix")
    vectors = np.random.default_rng(0).standard_normal((12, 64)).astype(np.float32)
    retrieval = retrieve_rows(rows, offsets, vectors, k=2, max_length=6)
    source = ContrastSource(windows, 100, 0, rows, rows_by_target(rows, 12), retrieval)
    loss, parts = model.objective(next(source.batches(0, 0, 1)))
    assert loss.ndim == 0
    assert bool(torch.isfinite(loss))
    assert parts
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("name", list_models())
def test_config_survives_its_dictionary(name: str) -> None:
    kind = get_model(name).config_class
    config = kind()
    assert kind.model_validate(config.model_dump()) == config
    assert kind.model_validate_json(config.model_dump_json()) == config


def test_unknown_names_say_what_was_meant() -> None:
    with pytest.raises(InputError, match=r"unknown model 'sasrek'; did you mean 'sasrec'\?"):
        get_model("sasrek")
    with pytest.raises(InputError, match="unknown model 'sasrec'; use one of"):
        get_model("sasrec", task="clustering")
    with pytest.raises(InputError, match=r"unknown setting 'hiden'; did you mean 'hidden'\?"):
        build_config(SASRecConfig, {"hiden": 3})
    with pytest.raises(InputError, match=r"setting 'dropout' does not accept 1\.5"):
        build_config(SASRecConfig, {"dropout": 1.5})
    with pytest.raises(InputError, match=r"run\.yaml: setting 'layers' does not accept 'two'"):
        build_config(SASRecConfig, {"layers": "two"}, path="run.yaml")
    assert get_model("SASRec") is SASRec


def test_a_model_of_ones_own_is_found_by_name() -> None:
    @register_model("of-ones-own", task="sequential")
    class OfOnesOwn(SASRec):
        """Same encoder, another name."""

    try:
        assert get_model("of-ones-own") is OfOnesOwn
        with pytest.raises(ValueError, match="'of-ones-own' is taken by"):
            register_model("of-ones-own", task="sequential")(SASRec)
    finally:
        unregister_model("of-ones-own")
    assert "of-ones-own" not in list_models()


def test_listing_models_loads_no_tensor_library() -> None:
    script = "import sys; from graphcl.models import list_models; list_models(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
