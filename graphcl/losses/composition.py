"""Mixtures of losses with weights and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from graphcl.losses.protocol import Loss, split_output

__all__ = ["CosineSchedule", "LinearSchedule", "Schedule", "Sum", "Term"]

#: Weight at a step.
Schedule: TypeAlias = Callable[[int], float]


@dataclass(frozen=True)
class LinearSchedule:
    """A weight that goes from ``start`` to ``stop`` in equal parts over ``steps`` steps, after ``delay`` steps.

    >>> ramp = LinearSchedule(0.0, 1.0, steps=4, delay=2)
    >>> [ramp(step) for step in (0, 2, 3, 6, 100)]
    [0.0, 0.0, 0.25, 1.0, 1.0]
    """

    start: float
    stop: float
    steps: int
    delay: int = 0

    def __post_init__(self) -> None:
        _check_steps(self.steps, self.delay)

    def __call__(self, step: int) -> float:
        return self.start + (self.stop - self.start) * _progress(step, self.steps, self.delay)


@dataclass(frozen=True)
class CosineSchedule:
    """A weight that goes from ``start`` to ``stop`` along a half cosine over ``steps`` steps, after ``delay`` steps.

    >>> CosineSchedule(1.0, 0.0, steps=2)(1)
    0.5
    """

    start: float
    stop: float
    steps: int
    delay: int = 0

    def __post_init__(self) -> None:
        _check_steps(self.steps, self.delay)

    def __call__(self, step: int) -> float:
        done = 0.5 * (1.0 - math.cos(math.pi * _progress(step, self.steps, self.delay)))
        return self.start + (self.stop - self.start) * done


class Term(nn.Module):
    """One loss of a `Sum`: which of the named inputs it takes, and its weight.

    Args:
        loss: any `Loss`: a module (then its state is part of the sum) or a function.
        inputs: names of its positional arguments.
        weight: a number, or a schedule from the step to a number.
        options: argument name to input name, for keyword arguments.

    Raises:
        TypeError: ``loss`` is not callable.
    """

    def __init__(
        self, loss: Loss, *inputs: str, weight: float | Schedule = 1.0, options: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"loss must be callable, got {type(loss).__name__}")
        self.loss = loss
        self.inputs = inputs
        self.weight = weight
        self.options = dict(options or {})

    def forward(self, named: Mapping[str, Any], step: int) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Weighted loss, loss before its weight, and the parts of the loss."""
        missing = [name for name in (*self.inputs, *self.options.values()) if name not in named]
        if missing:
            raise ValueError(f"the loss needs {', '.join(missing)}, got {', '.join(sorted(named)) or 'no inputs'}")
        output = self.loss(
            *(named[name] for name in self.inputs),
            **{argument: named[name] for argument, name in self.options.items()},
        )
        value, parts = split_output(output)
        weight = self.weight(step) if callable(self.weight) else self.weight
        return weight * value, value, parts

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, weight={self.weight}"


class Sum(nn.Module):
    """Weighted sum of losses over named inputs; the parts of all of them in one dictionary.

    A term that returns parts of its own contributes them as ``term/part``. A `Sum` fits into a `Sum`: pass
    ``Term(inner, options={...})``. Schedules read the step counter, which is part of the state: call `advance` once a
    step or once an epoch, whichever the schedules count.

    Args:
        terms: name to `Term`.

    Returns (of ``forward(**inputs)``):
        The sum and a dictionary of every term before its weight, and of its parts.

    Raises:
        ValueError: no terms, a name with a dot or a slash, or a missing input.

    >>> import torch
    >>> from graphcl.losses import NTXent
    >>> total = Sum(
    ...     fit=Term(torch.nn.functional.mse_loss, "prediction", "target"),
    ...     contrast=Term(NTXent(temperature=1.0), "z1", "z2", weight=0.1),
    ... )
    >>> z = torch.eye(3)
    >>> loss, parts = total(prediction=z, target=z, z1=z, z2=z)
    >>> loss, sorted(parts)
    (tensor(0.0905), ['contrast', 'fit'])
    """

    def __init__(self, **terms: Term) -> None:
        super().__init__()
        if not terms:
            raise ValueError("a sum needs at least one term, got none")
        for name, term in terms.items():
            if not isinstance(term, Term):
                raise TypeError(f"{name} must be a Term, got {type(term).__name__}")
            if "/" in name or "." in name:
                raise ValueError(f"names of terms must not hold '/' or '.', got {name!r}")
        # The prefix keeps names such as "items" from meeting the methods of the container.
        self.terms = nn.ModuleDict({f"term_{name}": term for name, term in terms.items()})
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def advance(self) -> None:
        """Count one step (or epoch) of the schedules, in sums inside this one too."""
        for module in self.modules():
            if isinstance(module, Sum):
                module.step += 1

    def forward(self, **inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        step = int(self.step)
        weighted, parts = [], {}
        for key, term in self.terms.items():
            name = key.removeprefix("term_")
            contribution, value, inner = term(inputs, step)
            weighted.append(contribution)
            parts[name] = value
            parts.update({f"{name}/{part}": number for part, number in inner.items()})
        total = weighted[0]
        for contribution in weighted[1:]:
            total = total + contribution
        return total, parts


def _progress(step: int, steps: int, delay: int) -> float:
    return min(max((step - delay) / steps, 0.0), 1.0)


def _check_steps(steps: int, delay: int) -> None:
    if steps < 1 or delay < 0:
        raise ValueError(f"steps must be at least 1 and delay at least 0, got {steps} and {delay}")
