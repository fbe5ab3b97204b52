"""Reads and writes dataclasses as JSON. Unknown keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from emotion_tf.errors import UserError, nearest

Kind = TypeVar("Kind")


def write_json(config: Any) -> str:
    """Returns a dataclass as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def read_json(kind: type[Kind], path: Path) -> Kind:
    """Reads a dataclass from a JSON file.

    Raises:
        UserError: the file is missing or no JSON, or has an unknown key or an invalid value.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No configuration at {path}. Expected the config.json of a run in saved_models/.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot read the configuration {path}: {error}. Expected JSON like the config.json of a run."
        ) from None
    return from_dict(kind, values, str(path))


def from_dict(kind: type, values: Any, where: str) -> Any:
    """Builds a dataclass from JSON values. Raises UserError for an unknown key or a wrong type."""
    if not isinstance(values, dict):
        raise UserError(
            f"Invalid {where}. Expected an object with keys {', '.join(_names(kind))}. Received: {values!r}."
        )
    for key in values:
        if key not in _names(kind):
            raise UserError(
                f"Unknown key {key!r} in {where}. Expected: {', '.join(_names(kind))}.{nearest(key, _names(kind))}"
            )
    hints = get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)  # type: ignore[arg-type]
    if isinstance(value, list) and str(kind).startswith("tuple"):
        return tuple(_value(kind.__args__[0], item, where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(kind, type) or type(value) is not kind:
        raise UserError(f"Invalid {where}. Expected {getattr(kind, '__name__', kind)}. Received: {value!r}.")
    return value


def _names(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]
