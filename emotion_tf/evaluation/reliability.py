"""Reliability diagrams, the expected calibration error, and that of each class."""

from __future__ import annotations

from collections.abc import Sequence
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


def confidence_of(probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns the probabilities of the predicted classes: (N, C) and int (N,) -> (N,)."""
    return probabilities[np.arange(len(predicted)), predicted]


def rank(labels: Sequence[str], probabilities: np.ndarray, predicted: str) -> list[tuple[str, float]]:
    """Returns the labels with their probabilities (C,): the predicted one first, then the most probable ones."""
    pairs = zip(labels, probabilities.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (pair[0] != predicted, -pair[1]))


def reliability(
    correct: np.ndarray, confidence: np.ndarray, weight: np.ndarray | None = None, bins: int = BINS
) -> list[Bin]:
    """Bins predictions by confidence (Guo 2017, equation 2).

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), probability of the predicted class.
        weight: float (N,), or None for equal weights.
        bins: number of bins of equal width.

    Returns:
        The bins that are not empty.
    """
    weight = np.ones(len(correct)) if weight is None else weight
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sums = np.stack([np.bincount(index, weight * x, bins) for x in (np.ones(len(correct)), confidence, correct)])
    return [
        Bin(i / bins, (i + 1) / bins, float(n), float(c / n), float(a / n)) for i, (n, c, a) in enumerate(sums.T) if n
    ]


def calibration_error(
    correct: np.ndarray, confidence: np.ndarray, weight: np.ndarray | None = None, bins: int = BINS
) -> float:
    """Returns the expected calibration error: mean |accuracy - confidence| over the bins (Guo 2017, equation 3)."""
    filled = reliability(correct, confidence, weight, bins)
    total = sum(row.weight for row in filled)
    return sum(row.weight * abs(row.accuracy - row.confidence) for row in filled) / total


def class_calibration_errors(
    label: np.ndarray, probabilities: np.ndarray, weight: np.ndarray | None = None, bins: int = BINS
) -> np.ndarray:
    """Returns the calibration error of the probability of each class, float (C,); their mean is the classwise error.

    Kull 2019, "Beyond temperature scaling", equation 3; Nixon 2019, "Measuring Calibration in Deep Learning", section
    4.2.

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
        weight: float (N,), or None for equal weights.
        bins: number of bins of equal width.
    """
    return np.array([calibration_error(label == c, p, weight, bins) for c, p in enumerate(probabilities.T)])
