"""Reliability diagrams and the expected calibration error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 15


class Bin(NamedTuple):
    """Predictions of similar confidence: bounds, total weight, mean confidence and accuracy."""

    low: float
    high: float
    weight: float
    confidence: float
    accuracy: float


def reliability(
    label: np.ndarray, probabilities: np.ndarray, weight: np.ndarray | None = None, bins: int = BINS
) -> list[Bin]:
    """Bins predictions by confidence, the probability of the predicted class (Guo 2017, equation 2).

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
        weight: float (N,), or None for equal weights.
        bins: number of bins of equal width.

    Returns:
        The bins that are not empty.
    """
    weight = np.ones(len(label)) if weight is None else weight
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == label
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sums = np.stack([np.bincount(index, weight * x, bins) for x in (np.ones(len(label)), confidence, correct)])
    return [
        Bin(i / bins, (i + 1) / bins, float(n), float(c / n), float(a / n)) for i, (n, c, a) in enumerate(sums.T) if n
    ]


def calibration_error(
    label: np.ndarray, probabilities: np.ndarray, weight: np.ndarray | None = None, bins: int = BINS
) -> float:
    """Returns the expected calibration error: mean |accuracy - confidence| over the bins (Guo 2017, equation 3)."""
    filled = reliability(label, probabilities, weight, bins)
    total = sum(row.weight for row in filled)
    return sum(row.weight * abs(row.accuracy - row.confidence) for row in filled) / total
