"""The most confident mistakes of a model, and their explanations for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_MISTAKES = 12


@dataclass(frozen=True)
class Explanation:
    """What supports a prediction, prepared for the page.

    Attributes:
        words: words of the utterance in order, each with its attribution; above 0 it supports the prediction.
        pictures: titles and PNGs, such as heat maps of the face.
        note: a sentence below them.
    """

    words: Sequence[tuple[str, float]] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    note: str = ""

    @property
    def shades(self) -> list[tuple[str, float]]:
        """The words with their attributions scaled to [-1, 1]."""
        peak = max((abs(value) for _, value in self.words), default=0.0) or 1.0
        return [(word, value / peak) for word, value in self.words]


def worst_mistakes(
    correct: np.ndarray, confidence: np.ndarray, weight: np.ndarray, count: int = MAX_MISTAKES
) -> list[int]:
    """Returns the rows of the wrong predictions with the highest confidence, in descending order.

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), probability of the predicted class.
        weight: float (N,); utterances of weight 0 do not count.
        count: maximum number of rows.
    """
    wrong = np.flatnonzero(~correct & (weight > 0))
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count].tolist()
