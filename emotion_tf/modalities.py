"""The modalities: one row each, in the order in which towers, reports and patterns of presence count them.

A new modality is a row here, a part of the configuration and a tower of its name (`config`, `models`), its features
in `schema`, and the code that reads them (`data`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TEXT, FACE = "text", "face"

MIN_ABSENT_SHARE = 0.01
"""Share of the training that must lack a modality to train what stands in for it."""


@dataclass(frozen=True)
class Modality:
    """A modality.

    Attributes:
        name: name of its tower, of its part of the configuration (`--NAME.*`) and of the output `NAME_present`.
        about: what its tower reads.
        title: name in tables and at the start of a sentence, without capitals.
        is_plural: whether the title is plural.
        of_others: the modality of other utterances, as an object.
        any_of_it: any value of it, no matter which, as an object.
        presence: what `NAME_present` says.
        features: features of a record (`schema.RECORD`) that are read for every model; the context only where needed.
    """

    name: str
    about: str
    title: str
    is_plural: bool
    of_others: str
    any_of_it: str
    presence: str
    features: tuple[str, ...]

    @property
    def helps(self) -> str:
        """Subject and verb: "Faces help"."""
        return f"{self.title.capitalize()} {'help' if self.is_plural else 'helps'}"

    @property
    def does_not_help(self) -> str:
        """Subject and verb: "Faces do not help"."""
        return f"{self.title.capitalize()} {'do' if self.is_plural else 'does'} not help"

    @property
    def never_absent(self) -> str:
        """Sentence about a run whose training never lacked the modality, but for `MIN_ABSENT_SHARE`."""
        rare = f"Less than {100 * MIN_ABSENT_SHARE:.0f} % of the training lacked {self.title}"
        return f"{rare}: what stands in for absent {self.title} is untrained."

    @property
    def pronoun(self) -> str:
        """The pronoun, as an object."""
        return "them" if self.is_plural else "it"


MODALITIES = {
    row.name: row
    for row in (
        Modality(
            TEXT,
            about="the utterance, and the lines around it",
            title="text",
            is_plural=False,
            of_others="the texts of other utterances",
            any_of_it="some text",
            presence="whether there was a text: the utterance, or previous lines",
            features=("utterance", "speaker", "tokens"),
        ),
        Modality(
            FACE,
            about="aligned crops of the speaker's face",
            title="faces",
            is_plural=True,
            of_others="the faces of other utterances",
            any_of_it="some face",
            presence="whether there was a face; false if no image could be decoded",
            features=("face_jpeg",),
        ),
    )
}


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of modalities in the order of `MODALITIES`."""
    return tuple(sorted(names, key=list(MODALITIES).index))


def presence_patterns(names: Iterable[str] = tuple(MODALITIES)) -> tuple[str, ...]:
    """Returns the name of every pattern of presence, 2^n for n modalities.

    A pattern is the sum of 2^i over the places i of the modalities that an utterance has: it is the index of its name.
    """
    names = tuple(names)
    subsets = ([name for i, name in enumerate(names) if pattern & 2**i] for pattern in range(2 ** len(names)))
    return tuple(_pattern_name(subset) for subset in subsets)


def _pattern_name(names: Sequence[str]) -> str:
    if len(names) < 2:
        return f"{names[0]} only" if names else "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def presence_bit(name: str) -> int:
    """Returns the summand of a modality in a pattern of presence."""
    return 2 ** list(MODALITIES).index(name)
