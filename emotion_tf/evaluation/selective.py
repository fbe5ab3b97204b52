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


def risk_coverage(label: np.ndarray, probabilities: np.ndarray) -> Curve:
    """Returns the curve of El-Yaniv and Wiener 2010 with its area (Geifman 2019, "Bias-Reduced Uncertainty Estimation",
    section 2).

    Utterances of equal confidence have no order among each other: the area uses the mean risk over all their orders.

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
    """
    confidence = probabilities.max(axis=1)
    wrong = (probabilities.argmax(axis=1) != label).astype(float)
    levels, level, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    ordered = np.repeat(np.bincount(level, wrong) / counts, counts)
    risk = np.cumsum(ordered) / np.arange(1, len(label) + 1)
    ends = np.cumsum(counts) - 1
    return Curve(-levels, (ends + 1) / len(label), risk[ends], float(risk.mean()))


def score_threshold(label: np.ndarray, probabilities: np.ndarray, threshold: float) -> SelectiveScores:
    """Returns the results above a threshold; without any answer the precision is nan."""
    answered = probabilities.max(axis=1) >= threshold
    correct = probabilities.argmax(axis=1)[answered] == label[answered]
    precision = float(correct.mean()) if answered.any() else float("nan")
    return SelectiveScores(int(answered.sum()), float(answered.mean()), precision)


def fit_thresholds(
    label: np.ndarray, probabilities: np.ndarray, targets: Sequence[float] = PRECISIONS
) -> list[Threshold]:
    """Fits, on the validation split, the threshold of each target precision that answers most utterances.

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
        targets: precisions.

    Returns:
        The thresholds of the targets that at least 20 answers reach. A target that all utterances together reach
        needs no threshold and is left out.
    """
    curve = risk_coverage(label, probabilities)
    thresholds = []
    for target in targets:
        reached = (1 - curve.risk >= target) & (curve.coverage * len(label) >= MIN_ANSWERED - 1e-9)
        if reached.any() and not reached[-1]:
            last = int(np.flatnonzero(reached)[-1])
            precision = float(1 - curve.risk[last])
            thresholds.append(Threshold(target, float(curve.threshold[last]), float(curve.coverage[last]), precision))
    return thresholds


def with_abstentions(labels: Sequence[str], probabilities: np.ndarray, threshold: float) -> list[str]:
    """Returns the most probable label of each utterance, or "abstained" below the threshold: (N, C) -> N labels."""
    predicted = [labels[i] for i in probabilities.argmax(axis=1)]
    answered = probabilities.max(axis=1) >= threshold if len(probabilities) else []
    return [label if is_answered else ABSTAINED for label, is_answered in zip(predicted, answered, strict=True)]
