"""Unlearning: make a trained recommender lose users or items, or an embedder nodes, without training from scratch."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.losses import LAFAlignment, LAFExtraction, RepresentationVAE
from graphcl.models import ModelConfig, build_config
from graphcl.pipelines.checkpoints import TrainingState
from graphcl.pipelines.runs import RunFolder
from graphcl.pipelines.unlearning_data import Removal, plan_removal
from graphcl.pipelines.unlearning_report import UnlearningReport, check_what_is_left

__all__ = ["Unlearned", "Unlearner", "UnlearningSettings"]


class UnlearningSettings(ModelConfig):
    """Settings of :class:`Unlearner`.

    Args:
        seed: of the autoencoders, of the samples of each step, and of the checks.
        steps: of label-agnostic forgetting, each an extraction step and an alignment step; 0 leaves it out.
        batch_size: samples of each kind (that stay, that go) a step, at most.
        extraction_rate, alignment_rate: learning rates of the two Adams, as shares of the root mean square of each
            parameter.
        temperature: of the forgotten samples in the alignment.
        autoencoder_steps, autoencoder_learning_rate: training of each of the two autoencoders.
        autoencoder_hidden, autoencoder_latent: their widths.
        divergence_weight: of their Kullback-Leibler term.
        repair_epochs: epochs of the model's own training on what stays, after forgetting; 0 leaves it out.
        top: length of the lists that are compared.
        negatives: others that each interaction is told from in the membership test.

    Example:
        >>> UnlearningSettings(repair_epochs=0).steps
        50
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    steps: NonNegativeInt = 50
    batch_size: PositiveInt = 256
    extraction_rate: PositiveFloat = 0.003
    alignment_rate: PositiveFloat = 0.003
    temperature: PositiveFloat = 5.0
    autoencoder_steps: PositiveInt = 300
    autoencoder_learning_rate: PositiveFloat = 1e-3
    autoencoder_hidden: PositiveInt = 128
    autoencoder_latent: PositiveInt = 16
    divergence_weight: NonNegativeFloat = 0.025
    repair_epochs: NonNegativeInt = 5
    top: PositiveInt = 20
    negatives: PositiveInt = 100


class Unlearned(NamedTuple):
    """What forgetting gives.

    Attributes:
        pipeline: a new trained pipeline of the same kind, without what was to be forgotten.
        report: what is left of it, what became of the rest, and what it cost.
    """

    pipeline: Any
    report: UnlearningReport


class Unlearner:
    r"""Make a trained pipeline forget users, items or nodes by label-agnostic forgetting (LAF) on its representations.

    Paper: Shen et al., "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models", 2024,
    https://arxiv.org/abs/2404.00506. Two small variational autoencoders learn the representations s of what stays and u
    of what goes, as the trained model (the teacher, t) gives them. Then two steps with an Adam each alternate:

    .. math:: L_{\text{extract}} = \sum_i f(\|\hat s_i - s_i\|^2) - \sum_j f(\|\hat u_j - u_j\|^2), \quad
        f(m) = e^{m / (m + 1)}

    .. math:: L_{\text{align}} = \sum_i \Bigl[ (1 - \cos(s_i, s_i^t))
        - \log \sum_j e^{(1 - \cos(u_j, u_j^t)) / T} \Bigr]

    After that the data are taken out: ids, rows of embedding tables, edges and features. Rows that only forgotten
    interactions had trained start afresh. Last, ``repair_epochs`` epochs of the model's own training on the data that
    stay; the epoch is chosen as the pipeline's settings say. What is a sample, and what its representation, is told by
    `graphcl.pipelines.unlearning_data.RankingRemoval` and `NodeRemoval`.

    Deviations: representations are scaled to a mean squared length of 1 before the autoencoders, and learning rates are
    a share of the root mean square of each parameter, so that one set of settings serves every model; the number of
    steps is given in place of epochs; repair is on by default (the paper's variant with supervision, LAF+R,
    repairs for one epoch), and with ``repair_epochs=0`` it is LAF as published. It is approximate unlearning: nothing
    is proved about what is left, which is why it is measured.

    Args:
        **settings: settings of :class:`UnlearningSettings`.

    Raises:
        InputError: for an unknown setting or a value out of range.

    Example:
        >>> import numpy as np
        >>> from graphcl.data import Interactions
        >>> from graphcl.pipelines import CollaborativeRecommender
        >>> users = np.repeat(np.arange(20), 6)
        >>> log = Interactions.from_arrays(users, (users + np.tile(np.arange(6), 20)) % 9)
        >>> recommender = CollaborativeRecommender("lightgcn", epochs=2, hidden=8, progress=False).fit(log)
        >>> after, report = Unlearner(steps=2, repair_epochs=1).forget(recommender, users=[3], items=[0])
        >>> after.num_items, report.forgotten["users"], sorted(report.membership)
        (8, 1, ['after', 'before'])
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = build_config(UnlearningSettings, settings)

    def forget(
        self,
        pipeline: Any,
        *,
        users: Iterable[Any] = (),
        items: Iterable[Any] = (),
        nodes: Iterable[Any] = (),
        compare_retraining: bool = False,
    ) -> Unlearned:
        """A new pipeline that has forgotten, and a check of what is left; the given one stays as it is.

        Args:
            pipeline: a trained `CollaborativeRecommender`, `SequentialRecommender` or `NodeEmbedder`.
            users, items: external ids to forget in a recommender.
            nodes: external ids of (target) nodes to forget in an embedder.
            compare_retraining: also train from scratch on the data that stay, with the pipeline's own settings, to
                compare with.

        Returns:
            The new pipeline and the report.

        Raises:
            InputError: nothing or everything is to be forgotten, an id is unknown, the pipeline is not fitted or of a
                kind that cannot forget, what is left cannot be trained on, or repair diverges.

        Complexity: ``2 steps`` forward and backward passes of the model over the whole graph (over batches for
        sequential models and embedders that sample), and ``repair_epochs`` epochs.
        """
        removal = plan_removal(pipeline, users=users, items=items, nodes=nodes)
        after = removal.blank()
        model = after._new_model(removal.data)
        # What cannot be trained on or carried over is refused before any work is done.
        after._training(model, removal.data)
        removal.carry(pipeline._fitted()[0], model)
        seconds = {"forgetting": 0.0, "repair": 0.0}

        started = time.perf_counter()
        student = copy.deepcopy(pipeline._fitted()[0]).eval()
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            losses = forget_representations(student, removal, self.settings)
        removal.carry(student, model)
        seconds["forgetting"] = time.perf_counter() - started

        started = time.perf_counter()
        repaired = self._repair(after, model, removal)
        seconds["repair"] = time.perf_counter() - started
        _adopt(after, model, removal, repaired, sum(seconds.values()))

        retrained = retrain(removal) if compare_retraining else None
        report = check_what_is_left(removal, after, retrained, self.settings, seconds, losses)
        after._unlearning = report.to_dict()
        return Unlearned(after, report)

    def _repair(self, after: Any, model: nn.Module, removal: Removal) -> TrainingState:
        """Epochs of the model's own training on the data that stay; changes the model."""
        epochs = self.settings.repair_epochs
        if not epochs:
            return TrainingState()
        from graphcl.pipelines.training import train

        source, validate, plan = after._training(model, removal.data)
        plan = replace(plan, epochs=epochs, patience=epochs, validate_every=1, progress=False)
        with tempfile.TemporaryDirectory(prefix="graphcl-") as scratch:
            folder = RunFolder(Path(scratch) / "run")
            folder.prepare(resume=False, overwrite=False)
            return train(model, source, validate, plan, folder.checkpoints, {})


def _adopt(after: Any, model: nn.Module, removal: Removal, repaired: TrainingState, seconds: float) -> None:
    """Make the new pipeline a trained one; its history is that of the old one, then the repair."""
    old: TrainingState = removal.before._state
    more = [{**record, "epoch": record["epoch"] + old.epoch} for record in repaired.history]
    after._state = TrainingState(
        epoch=old.epoch + repaired.epoch,
        steps=old.steps + repaired.steps,
        best_epoch=old.epoch + repaired.best_epoch if repaired.epoch else old.best_epoch,
        best_value=repaired.best_value if repaired.epoch else old.best_value,
        waited=repaired.waited if repaired.epoch else old.waited,
        history=[dict(record) for record in old.history] + more,
        identity={"settings": after._identity(), "data": after._hash_data(removal.data)},
    )
    after._seconds = removal.before._seconds + seconds
    after._model, after._data = model.to("cpu").eval(), removal.data


def retrain(removal: Removal) -> Any:
    """The pipeline trained from scratch on the data that stay, with the settings of the one that forgets."""
    fresh = removal.blank()
    with tempfile.TemporaryDirectory(prefix="graphcl-") as scratch:
        return fresh._fit(removal.data, fresh._folder(Path(scratch) / "run"), resume=False, overwrite=False)


def forget_representations(
    student: nn.Module, removal: Removal, settings: UnlearningSettings
) -> list[dict[str, float]]:
    """Label-agnostic forgetting on a copy of the trained model, which is changed in place.

    Args:
        student: copy of the model, in evaluation mode.
        removal: which samples go and which stay.
        settings: how.

    Returns:
        The losses ``extraction`` and ``alignment`` of each step; empty when there is nothing to take steps on.
    """
    own = removal.own_rows(student)
    with torch.no_grad():
        every = torch.cat([removal.retained, removal.forgotten])
        if settings.steps and removal.forgotten.shape[0] and removal.retained.shape[0]:
            teacher = removal.represent_before(every)
        parameters = dict(student.named_parameters())
        for name, rows in own.items():
            parameters[name][rows] = 0.0
    if not settings.steps or not removal.forgotten.shape[0] or not removal.retained.shape[0]:
        return []
    generator = torch.Generator().manual_seed(settings.seed)
    retained_teacher, forgotten_teacher = torch.split(teacher, [removal.retained.shape[0], removal.forgotten.shape[0]])
    scale = 1.0 / float(retained_teacher.square().sum(dim=1).mean().sqrt().clamp(min=1e-12))
    of_retained = fit_autoencoder(retained_teacher * scale, settings, generator)
    of_forgotten = fit_autoencoder(forgotten_teacher * scale, settings, generator)
    extraction, alignment = LAFExtraction(), LAFAlignment(settings.temperature)
    optimizers = {
        "extraction": torch.optim.Adam(relative_steps(student, settings.extraction_rate)),
        "alignment": torch.optim.Adam(relative_steps(student, settings.alignment_rate)),
    }
    losses = []
    for _ in range(settings.steps):
        stays, goes = (
            _draw(samples.shape[0], settings.batch_size, generator) for samples in (removal.retained, removal.forgotten)
        )
        chosen = torch.cat([removal.retained[stays], removal.forgotten[goes]])
        record = {}
        for name, optimizer in optimizers.items():
            s, u = torch.split(removal.represent(student, chosen), [stays.shape[0], goes.shape[0]])
            if name == "extraction":
                s, u = s * scale, u * scale
                loss = extraction(s, of_retained(s)[0], u, of_forgotten(u)[0])
            else:
                loss = alignment(s, retained_teacher[stays], u, forgotten_teacher[goes])
            optimizer.zero_grad()
            loss.backward()
            for table, rows in own.items():
                gradient = parameters[table].grad
                if gradient is not None:
                    gradient[rows] = 0.0
            optimizer.step()
            record[name] = float(loss.detach())
        losses.append(record)
    return losses


def relative_steps(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """A group for every trained parameter, whose learning rate is a share of the root mean square of its entries.

    Adam moves an entry by about its learning rate a step, whatever the gradient, and trained tables differ in size.

    Example:
        >>> relative_steps(nn.Linear(1, 1).requires_grad_(False), 0.1)
        []
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"params": [each], "lr": rate * float(each.detach().square().mean().sqrt())} for each in trained]


def fit_autoencoder(x: Tensor, settings: UnlearningSettings, generator: torch.Generator) -> RepresentationVAE:
    """A variational autoencoder of representations, trained and frozen.

    Args:
        x: ``(N, d)``.
        settings: widths and training.
        generator: initial weights, batches and noise.

    Example:
        >>> model = fit_autoencoder(torch.eye(4), UnlearningSettings(), torch.Generator().manual_seed(0))
        >>> float((model(torch.eye(4))[0] - torch.eye(4)).square().sum(1).mean()) < 0.5
        True
    """
    model = RepresentationVAE(
        x.shape[1],
        hidden=settings.autoencoder_hidden,
        latent=settings.autoencoder_latent,
        divergence_weight=settings.divergence_weight,
        generator=generator,
    ).to(x.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.autoencoder_learning_rate)
    for _ in range(settings.autoencoder_steps):
        loss: Any = model.loss(x[_draw(x.shape[0], settings.batch_size, generator)], generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def _draw(size: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Different numbers below ``size``, at most ``batch_size`` of them."""
    return torch.randperm(size, generator=generator)[:batch_size]
