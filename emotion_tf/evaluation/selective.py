"""Selective prediction: a model abstains where its confidence is below a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ABSTAINED = "abstained"
MIN_ANSWERED = 20
PRECISIONS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Curve(NamedTuple):
    """Risk against coverage.

    Attributes:
        threshold: float (K,), the distinct confidences in descending order.
        coverage: float (K,), share of utterances with at least that confidence.
        risk: float (K,), error rate among them.
        area: area under the curve (AURC), the mean risk over all coverages; lower is better.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    area: float


class Threshold(NamedTuple):
    """The lowest confidence at which predictions on the validation split reach a target precision.

    Attributes:
        target: the target precision.
        threshold: the confidence.
        coverage: share of the validation utterances with at least that confidence.
        precision: share of correct predictions among them.
    """

    target: float
    threshold: float
    coverage: float
    precision: float


class SelectiveScores(NamedTuple):
    """Results above a threshold: number of answered utterances, their share, and the share of correct answers."""

    utterances: int
    coverage: float
    precision: float


def risk_coverage(correct: np.ndarray, confidence: np.ndarray) -> Curve:
    """Returns the curve of El-Yaniv and Wiener 2010 with its area (Geifman 2019, "Bias-Reduced Uncertainty Estimation",
    section 2).

    Utterances of equal confidence have no order among each other: the area uses the mean risk over all their orders.

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), calibrated probability of the predicted class.
    """
    levels, level, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    ordered = np.repeat(np.bincount(level, ~correct) / counts, counts)
    risk = np.cumsum(ordered) / np.arange(1, len(correct) + 1)
    ends = np.cumsum(counts) - 1
    return Curve(-levels, (ends + 1) / len(correct), risk[ends], float(risk.mean()))


def score_threshold(correct: np.ndarray, confidence: np.ndarray, threshold: float) -> SelectiveScores:
    """Returns the results above a threshold; without any answer the precision is nan."""
    answered = confidence >= threshold
    precision = float(correct[answered].mean()) if answered.any() else float("nan")
    return SelectiveScores(int(answered.sum()), float(answered.mean()), precision)


def fit_thresholds(
    correct: np.ndarray, confidence: np.ndarray, targets: Sequence[float] = PRECISIONS
) -> list[Threshold]:
    """Fits, on the validation split, the threshold of each target precision that answers most utterances.

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), calibrated probability of the predicted class.
        targets: precisions.

    Returns:
        The thresholds of the targets that at least 20 answers reach. A target that all utterances together reach
        needs no threshold and is left out.
    """
    curve = risk_coverage(correct, confidence)
    thresholds = []
    for target in targets:
        reached = (1 - curve.risk >= target) & (curve.coverage * len(correct) >= MIN_ANSWERED - 1e-9)
        if reached.any() and not reached[-1]:
            last = int(np.flatnonzero(reached)[-1])
            precision = float(1 - curve.risk[last])
            thresholds.append(Threshold(target, float(curve.threshold[last]), float(curve.coverage[last]), precision))
    return thresholds


def with_abstentions(
    labels: Sequence[str], predicted: np.ndarray, confidence: np.ndarray, threshold: float
) -> list[str]:
    """Returns the predicted label of each utterance, or "abstained" where the confidence is below the threshold.

    Args:
        labels: C class names.
        predicted: int (N,), predicted classes.
        confidence: float (N,), calibrated probability of the predicted class.
        threshold: least confidence of an answer.
    """
    return [labels[i] if p >= threshold else ABSTAINED for i, p in zip(predicted, confidence, strict=True)]
