"""The mistakes of which a model was most confident, and what may be shown beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHOWN = 12


@dataclass(frozen=True)
class Explanation:
    """Why a model predicted what it did, as somebody else found out.

    Attributes:
        words: the words of the utterance in order, each with its attribution: above 0 it speaks for the prediction.
        pictures: titles and PNGs, such as a heat map over the face.
        note: what is to be said of them.
    """

    words: Sequence[tuple[str, float]] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    note: str = ""

    @property
    def shades(self) -> list[tuple[str, float]]:
        """The words with their attributions divided by the largest: -1 to 1."""
        most = max((abs(value) for _, value in self.words), default=0.0) or 1.0
        return [(word, value / most) for word, value in self.words]


def worst(label: np.ndarray, probabilities: np.ndarray, count: int = SHOWN) -> list[int]:
    """Rows of the wrong predictions with the highest probability, the most confident first.

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
        count: most rows.
    """
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != label)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count].tolist()
