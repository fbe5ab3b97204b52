"""Rules for the values of options. Each function raises a UserError if its rule is broken."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tyro

from emotion_tf.errors import UserError, nearest


def names(table: Collection[str], several: bool = False) -> Any:
    """Returns the annotation with which `--help` lists the names that an option takes."""
    return tyro.conf.arg(metavar="|".join(table) + " ..." * several)


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


def number(name: str, value: float, least: float, is_open: bool = False) -> None:
    """Raises UserError for a number that is infinite or below `least` (`is_open`: or equal to it)."""
    if not least <= value < float("inf") or (is_open and value == least):
        rule = "above" if is_open else "of at least"
        raise UserError(f"Invalid `{name}`. Expected a finite number {rule} {least}. Received: {value}.")


def between(name: str, value: float, least: float, most: float) -> None:
    """Raises UserError for a number outside [least, most]."""
    if not least <= value <= most:
        raise UserError(f"Invalid `{name}`. Expected a number from {least} to {most}. Received: {value}.")


def share(name: str, value: float, closed: bool = False) -> None:
    """Raises UserError for a number outside [0, 1), or with `closed` outside [0, 1]."""
    if not (0 <= value < 1 or (closed and value == 1)):
        raise UserError(
            f"Invalid `{name}`. Expected a number from 0 to {'1' if closed else 'below 1'}. Received: {value}."
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
