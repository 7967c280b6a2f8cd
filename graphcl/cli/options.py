"""Settings and options as a person writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphcl.errors import InputError


def refuse_options(options: Mapping[str, Any], reason: str) -> None:
    """Refuse options of the other kind of data by name."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')} does not apply: {reason}", "leave it out")


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of settings; nothing but plain values can come out of it."""
    if path is None:
        return {}
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", "give an existing YAML file", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", "save the file as UTF-8", path=path) from error
    except yaml.YAMLError as error:
        row = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else None
        raise InputError("not valid YAML", "write one 'key: value' a line", path=path, row=row) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError("not a mapping of settings", "write one 'key: value' a line", path=path)
    return {str(key): value for key, value in settings.items()}


def parse_assignments(
    assignments: list[str], option: str = "--set", example: str = "learning_rate=0.001"
) -> dict[str, Any]:
    """Turn ``["learning_rate=0.001", ...]`` into settings; values are read as YAML scalars, lists or mappings."""
    import yaml

    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise InputError(f"{option} {assignment!r} is not KEY=VALUE", f"write for example {option} {example}")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"{option} {key}: {value!r} is not a value", "quote text that holds : or [") from error
    return settings


def parse_alternatives(assignments: list[str]) -> dict[str, list[Any]]:
    """Turn ``["hidden=32,64", "fanout=[5, 5]"]`` into the values of each setting that are to be tried.

    Commas outside brackets, braces and quotes separate values, so a list stays one value; of a setting that is
    given twice the last one counts. Each value is read as `parse_assignments` reads it.

    Raises:
        InputError: for what is no assignment or no value, and for a value that is given twice.

    Example:
        >>> parse_alternatives(["hidden=32,64", "fanout=[5, 5]"])
        {'hidden': [32, 64], 'fanout': [[5, 5]]}
    """
    alternatives: dict[str, list[Any]] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        given: dict[str, list[Any]] = {}
        for value in _split_outside_brackets(text):
            for name, parsed in parse_assignments([f"{key}{separator}{value}"]).items():
                values = given.setdefault(name, [])
                if any(parsed == other and type(parsed) is type(other) for other in values):
                    raise InputError(f"--set {name} holds {value.strip()} twice", "give each value once")
                values.append(parsed)
        alternatives |= given
    return alternatives


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not parts[-1].strip(" [{,"):
            quote = letter  # an apostrophe inside a word opens nothing
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return parts
