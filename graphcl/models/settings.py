"""Settings that refuse what they do not know and say what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from graphcl.errors import InputError, nearest

Config = TypeVar("Config", bound=BaseModel)

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ModelConfig(BaseModel):
    """Base of every settings class: typed, frozen, unknown keys refused.

    Attributes:
        symbols: names that a paper's formula has for settings, such as ``lambda``; pipelines take them as well.
    """

    symbols: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse yes and no (true and false) where a number belongs, which would count as 1 and 0."""
        name = info.field_name
        if isinstance(value, bool) and name is not None and cls.model_fields[name].annotation is not bool:
            raise ValueError("yes and no are no values of this setting")
        return value


def nearest_names(name: str, known: Iterable[str]) -> str:
    """A remedy that names the known name closest to ``name``, or all of them when none is close.

    Example:
        >>> nearest_names("hiden", ["hidden", "layers"])
        "did you mean 'hidden'?"
        >>> nearest_names("x", ["hidden", "layers"])
        'use one of: hidden, layers'
    """
    known = sorted(known)
    return nearest(name, known).strip() or "use one of: " + ", ".join(known)


def named_settings(kind: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their own names, where some may be given by the symbols of the paper.

    Args:
        kind: the settings class; its ``symbols`` are understood.
        values: settings by name or symbol.

    Returns:
        Settings by name.

    Raises:
        InputError: for a setting that is given twice.

    Example:
        >>> from graphcl.models import CL4SRecConfig
        >>> named_settings(CL4SRecConfig, {"lambda": 0.2, "hidden": 32})
        {'contrast_weight': 0.2, 'hidden': 32}
    """
    symbols: Mapping[str, str] = getattr(kind, "symbols", {})
    named: dict[str, Any] = {}
    for given, value in values.items():
        name = symbols.get(given, given)
        if name in named:
            symbol = next(symbol for symbol, meant in symbols.items() if meant == name)
            raise InputError(f"{name} is given twice, also by its symbol {symbol}", "give one of them")
        named[name] = value
    return named


def build_config(kind: type[Config], values: Mapping[str, Any], *, path: str | Path | None = None) -> Config:
    """Validate settings and turn the first fault into one line that names the key and the remedy.

    Args:
        kind: the settings class.
        values: settings by name.
        path: the file that they came from, named in the message.

    Returns:
        An instance of ``kind``.

    Raises:
        InputError: for an unknown key (with the nearest known one) or a value of the wrong type or range.

    Example:
        >>> from graphcl.models import SASRecConfig
        >>> build_config(SASRecConfig, {"hidden": 32}).hidden
        32
    """
    for key in values:
        if key not in kind.model_fields:
            raise InputError(f"unknown setting {key!r}", nearest_names(key, kind.model_fields), path=path)
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors()[0]
        reason = str(fault["msg"]).removeprefix("Value error, ")
        if not fault["loc"]:
            # The settings fit one by one but not together; the class says why.
            raise InputError(f"settings do not fit together: {reason}", "change one of them", path=path) from error
        name = ".".join(str(part) for part in fault["loc"])
        raise InputError(f"setting {name!r} does not accept {fault['input']!r}", reason, path=path) from error
