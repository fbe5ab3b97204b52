"""Rules for the values of options. Each function raises a UserError if its rule is broken."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from emotion_tf import remote
from emotion_tf.errors import UserError, nearest
from emotion_tf.streams import is_stream

MAX_ITEMS = 32
"""Largest number of numbers that one option takes."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that an option takes; the annotation of its field: `epochs: Annotated[int, Range(1, 100)]`.

    Attributes:
        low: least number.
        high: largest number.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        low = f"above {self.low:,} and up to" if self.above else f"from {self.low:,} to"
        return f"{low} {'below ' * self.below}{self.high:,}"

    def contains(self, value: float) -> bool:
        """Whether a number is in the range. NaN is not."""
        return self.low <= value <= self.high and not (
            (self.above and value == self.low) or (self.below and value == self.high)
        )

    def check(self, name: str, value: float | tuple[float, ...] | None) -> None:
        """Raises UserError unless a number, or each of several, is in the range. None is no number."""
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if len(numbers) > MAX_ITEMS:
            raise UserError(f"Invalid `{name}`. Expected at most {MAX_ITEMS} numbers. Received: {len(numbers)}.")
        for number in numbers:
            if not self.contains(number):
                raise UserError(f"Invalid `{name}`. Expected a number {self}. Received: {number}.")


SHARE = Range(0, 1)
RATE = Range(0, 1, below=True)
"""A dropout rate, or another share that cannot be everything."""
SEED = Range(0, 2**32 - 1)
PROCESSES = Range(0, 256)


class Output(enum.Enum):
    """What a command writes at the path of an option; the annotation of it: `out: Annotated[Path, Output.FILE]`."""

    FILE = "file"
    FOLDER = "folder"
    FOLDER_OR_URL = "folder, here or in object storage"

    def check(self, name: str, path: Path) -> None:
        """Checks that a file, or a folder with missing parents, can be created. What exists may be replaced.

        Raises:
            UserError: the file is a folder, or its folder is missing; the path leads through a file; the folder is not
                writable; it is a URL where only a local path can be.
        """
        if remote.is_url(path):
            if self is not Output.FOLDER_OR_URL:
                raise UserError(f"Invalid `{name}`. Expected a local {self.value}. Received: {remote.url_of(path)}.")
            return
        if (self is not Output.FILE and os.path.lexists(path)) or (self is Output.FILE and is_stream(path)):
            return
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise UserError(f"Invalid `{name}`. Expected the name of a file. Received the folder {path}; add a name.")
        folder = next(parent for parent in target.parents if parent.exists())
        if not folder.is_dir():
            raise UserError(f"Invalid `{name}`. Expected a name in a folder. Received {path}, but {folder} is a file.")
        if self is Output.FILE and folder != target.parent:
            raise UserError(
                f"Invalid `{name}`. Expected a file in a folder that exists. Received: {path}. Create the folder "
                f"{target.parent}, or choose another."
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(
                f"Invalid `{name}`. Expected a name in a folder that you may write. Received {path}, but {folder} is "
                "not writable."
            )


def check_outputs(annotated: Any, values: Mapping[str, Any]) -> None:
    """Checks the paths that a command writes.

    Args:
        annotated: dataclass, or function.
        values: its fields or arguments, of which some may be dataclasses.
    """
    for name, value in values.items():
        if dataclasses.is_dataclass(value):
            check_outputs(type(value), vars(value))
        for output in getattr(_hints(annotated).get(name), "__metadata__", ()):
            if isinstance(output, Output) and value is not None:
                output.check(option(name), value)


def ranges_of(annotated: Any) -> dict[str, Range]:
    """Returns the ranges of the fields of a dataclass, or of the parameters of a function: name -> range."""
    return {
        name: limits
        for name, hint in _hints(annotated).items()
        for limits in getattr(hint, "__metadata__", ())
        if isinstance(limits, Range)
    }


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    return get_type_hints(annotated, include_extras=True)


def check_fields(values: Any, section: str = "") -> None:
    """Checks every number of a dataclass with the range of its field, and every path.

    Args:
        values: the dataclass.
        section: of the configuration, such as `text`. Empty: the fields are options of their own, such as `--seeds`.

    Raises:
        UserError: a number is outside its range, or a path cannot be that of a file.
    """
    limits = ranges_of(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        name = f"{section}.{field.name}" if section else option(field.name)
        if field.name in limits:
            limits[field.name].check(name, value)
        elif isinstance(value, str) and section:  # texts of the configuration are names and paths
            check_path(name, value)
        else:
            check_paths(name, value)


def check_paths(name: str, value: Any) -> None:
    """Checks a value, or each of several, that is a `Path`."""
    for path in value if isinstance(value, tuple) else (value,):
        if isinstance(path, Path):
            check_path(name, str(path))


def check_path(name: str, path: str) -> None:
    """Raises UserError for a path that no file can have: functions of `pathlib` would raise other errors."""
    try:
        encoded = os.fsencode(path)
        is_valid = len(encoded) < 4096 and all(len(part) < 256 for part in encoded.split(b"/")) and b"\0" not in encoded
    except UnicodeEncodeError:
        is_valid = False
    if not is_valid:
        raise UserError(
            f"Invalid `{name}`. Expected a path of less than 4,096 bytes, and of 256 in each name. Received: {path!r}."
        )
    remote.check_url(name, path)


def option(name: str) -> str:
    """Returns the option of a field, such as `--face-size`."""
    return f"--{name.replace('_', '-')}"


def names(table: Collection[str], several: bool = False) -> Any:
    """Returns the annotation with which `--help` lists the names that an option takes."""
    return value(f"{{{','.join(table)}}}{' ...' * several}")


def value(metavar: str) -> Any:
    """Returns the annotation with which `--help` says what an option takes, such as FILE."""
    return tyro.conf.arg(metavar=metavar)


SPLIT = names(("train", "dev", "test"))


def one_of(name: str, value: str, valid: Collection[str]) -> None:
    """Raises UserError for a name that is not valid."""
    if value not in valid:
        raise UserError(
            f"Invalid `{name}`. Expected one of: {', '.join(valid)}. Received: {value!r}.{nearest(value, list(valid))}"
        )


def several_of(name: str, values: tuple[str, ...], valid: Collection[str]) -> None:
    """Raises UserError for no names, a repeated name, or one that is not valid."""
    for value in values:
        one_of(name, value, valid)
    if not values or len(set(values)) < len(values):
        raise UserError(
            f"Invalid `{name}`. Expected one or more different names of: {', '.join(valid)}. Received: {list(values)}."
        )


def effects(section: str, config: Any, *options: tuple[str, Any, Any, str]) -> None:
    """Raises UserError for an option that was set and has no effect beside the others.

    Args:
        section: of the configuration, such as `text`.
        config: its values.
        options: for each rule the option's name, whether it was set, whether it has an effect, and when it has one.
    """
    for name, is_set, has_effect, condition in options:
        if is_set and not has_effect:
            raise UserError(
                f"Invalid `{section}.{name}`. It has an effect only {condition}. Received: {getattr(config, name)}."
            )


def effect_of_choice(name: str, value: float, option: str, choice: str, names: Collection[str]) -> None:
    """Raises UserError for a value that has an effect only if `option` is one of the names."""
    if choice not in names:
        raise UserError(
            f"Invalid `{name}`. It has an effect only with --{option} {' or '.join(names)}. Received: {value} with "
            f"{choice}. Leave it out, or choose --{option} {next(iter(names))}."
        )
