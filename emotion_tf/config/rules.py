"""What values of the configuration must be; each rule with its message (UserError)."""

from __future__ import annotations

from collections.abc import Collection

from emotion_tf.errors import UserError, nearest


def one_of(name: str, value: str, valid: Collection[str]) -> None:
    """Refuses a name that is not in the table."""
    if value not in valid:
        raise UserError(
            f"Invalid `{name}`. Expected one of: {', '.join(valid)}. Received: {value!r}.{nearest(value, list(valid))}"
        )


def several_of(name: str, values: tuple[str, ...], valid: Collection[str]) -> None:
    """Refuses none at all, the same twice, or one that is not in the table."""
    for value in values:
        one_of(name, value, valid)
    if not values or len(set(values)) < len(values):
        raise UserError(
            f"Invalid `{name}`. Expected one or more different of: {', '.join(valid)}. Received: {list(values)}."
        )


def number(name: str, value: float, least: float, open_below: bool = False) -> None:
    """Refuses what is not finite or below `least` (`open_below`: at it, too)."""
    if not least <= value < float("inf") or (open_below and value == least):
        rule = "above" if open_below else "of at least"
        raise UserError(f"Invalid `{name}`. Expected a finite number {rule} {least}. Received: {value}.")


def between(name: str, value: float, least: float, most: float) -> None:
    """Raises UserError for a number outside the range, whose ends belong to it."""
    if not least <= value <= most:
        raise UserError(f"Invalid `{name}`. Expected a number from {least} to {most}. Received: {value}.")


def share(name: str, value: float, closed: bool = False) -> None:
    """Refuses what is not from 0 to below 1 (`closed`: to 1)."""
    if not (0 <= value < 1 or (closed and value == 1)):
        raise UserError(
            f"Invalid `{name}`. Expected a number from 0 to {'1' if closed else 'below 1'}. Received: {value}."
        )


def acts(name: str, value: float, choice: str, chosen: str, names: Collection[str]) -> None:
    """Refuses a value that does nothing beside what `choice` chose: it acts only with the `names`."""
    if chosen not in names:
        raise UserError(
            f"Invalid `{name}`. It acts only with {choice} {' or '.join(names)}. Received: {value} with {chosen}. "
            f"Leave it out, or choose --{choice} {next(iter(names))}."
        )
