"""The modalities: one row each, in the order in which towers, reports and patterns of presence count them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TEXT, FACE = "text", "face"


@dataclass(frozen=True)
class Modality:
    """A modality.

    Attributes:
        name: name of its tower and of its part of the configuration (`--NAME.*`).
        about: what its tower reads.
    """

    name: str
    about: str


MODALITIES = {
    row.name: row
    for row in (
        Modality(TEXT, "the utterance, and the lines around it"),
        Modality(FACE, "aligned crops of the speaker's face"),
    )
}


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of modalities in the order of `MODALITIES`."""
    return tuple(sorted(names, key=list(MODALITIES).index))
