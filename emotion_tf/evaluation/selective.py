"""Predicting only where one is sure enough: what it costs in coverage, and where the line is to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ABSTAINED = "abstained"
FEWEST_KEPT = 20
PRECISIONS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Curve(NamedTuple):
    """Risk against coverage.

    Attributes:
        threshold: float (K,), falling: the different confidences.
        coverage: float (K,), share of utterances at least that confident.
        risk: float (K,), share of wrong ones among them.
        area: area under the curve, AURC: the mean risk over all coverages; lower is better.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    area: float


class Threshold(NamedTuple):
    """The least confidence at which predictions on validation are as precise as wanted.

    Attributes:
        wanted: precision.
        threshold: the confidence.
        coverage: share of the validation utterances that were kept.
        precision: share of right ones among them.
    """

    wanted: float
    threshold: float
    coverage: float
    precision: float


class Kept(NamedTuple):
    """What a threshold leaves: how many utterances, their share, and the share of right ones among them."""

    utterances: int
    coverage: float
    precision: float


def risk_coverage(label: np.ndarray, probabilities: np.ndarray) -> Curve:
    """The curve of El-Yaniv and Wiener 2010 with its area (Geifman 2019, "Bias-Reduced Uncertainty Estimation", 2).

    Utterances of equal confidence come in no order: inside them the area takes the mean risk of all orders.

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
    """
    confidence = probabilities.max(axis=1)
    wrong = (probabilities.argmax(axis=1) != label).astype(float)
    levels, place, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    of_level = np.bincount(place, wrong) / counts
    ordered = np.repeat(of_level, counts)
    risk = np.cumsum(ordered) / np.arange(1, len(label) + 1)
    ends = np.cumsum(counts) - 1
    return Curve(-levels, (ends + 1) / len(label), risk[ends], float(risk.mean()))


def kept(label: np.ndarray, probabilities: np.ndarray, threshold: float) -> Kept:
    """What is left at a threshold; the precision of nothing is nan."""
    sure = probabilities.max(axis=1) >= threshold
    right = probabilities.argmax(axis=1)[sure] == label[sure]
    return Kept(int(sure.sum()), float(sure.mean()), float(right.mean()) if sure.any() else float("nan"))


def choose_thresholds(
    label: np.ndarray, probabilities: np.ndarray, wanted: Sequence[float] = PRECISIONS
) -> list[Threshold]:
    """For each wanted precision the threshold that keeps most utterances. To be given the validation split.

    Args:
        label: int (N,), true classes.
        probabilities: float (N, C).
        wanted: precisions.

    Returns:
        Those that can be had with at least 20 utterances kept; without those that all utterances together reach.
    """
    curve = risk_coverage(label, probabilities)
    found = []
    for precision in wanted:
        enough = (1 - curve.risk >= precision) & (curve.coverage * len(label) >= FEWEST_KEPT - 1e-9)
        if enough.any() and not enough[-1]:
            last = int(np.flatnonzero(enough)[-1])
            found.append(
                Threshold(
                    precision, float(curve.threshold[last]), float(curve.coverage[last]), float(1 - curve.risk[last])
                )
            )
    return found


def with_abstentions(labels: Sequence[str], probabilities: np.ndarray, threshold: float) -> list[str]:
    """The most probable of C labels for each of N utterances, or "abstained" below the threshold: (N, C) -> N words."""
    best = [labels[i] for i in probabilities.argmax(axis=1)]
    sure = probabilities.max(axis=1) >= threshold if len(probabilities) else []
    return [label if keep else ABSTAINED for label, keep in zip(best, sure, strict=True)]
