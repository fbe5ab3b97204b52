"""Words of messages."""

from __future__ import annotations


def plural(count: int, noun: str, many: str = "") -> str:
    """Returns a number with its noun: `1 epoch`, `2,000 epochs`; `many` is a plural that does not end with s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"
