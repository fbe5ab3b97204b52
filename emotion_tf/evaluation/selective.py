"""Selective prediction: a model abstains where its confidence is below a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta
from scipy.stats import f as f_distribution

ABSTAINED = "abstained"
PRECISIONS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ERROR = 0.1
"""Probability that a promised precision is not kept."""
CONFIDENCE = 1 - ERROR
PROMISE = f"with {100 * CONFIDENCE:.0f} % confidence"
MIN_ANSWERED = 30
"""Effective answers of the first test: with fewer, one or two errors end the sequence of tests."""
COVERAGES = 100
"""Thresholds are tested at the coverages 1/100, 2/100, ..., 1."""


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
    """The lowest confidence above which a precision is promised.

    Attributes:
        target: the promised precision.
        threshold: the confidence; 0 if all predictions together keep the promise, None if nothing can be promised.
        coverage: share of the validation utterances with at least that confidence.
        precision: share of correct predictions among them; None without a threshold.
    """

    target: float
    threshold: float | None = None
    coverage: float = 0.0
    precision: float | None = None


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
    correct: np.ndarray,
    confidence: np.ndarray,
    dialogue: np.ndarray,
    weight: np.ndarray,
    targets: Sequence[float] = PRECISIONS,
) -> list[Threshold]:
    """Fits, on the validation split, the lowest threshold above which each target precision is promised.

    The promise: in the population, P(correct | confidence >= threshold) is at least the target, with 90 % confidence,
    for each threshold by itself. A threshold is tested by the lower bound of its precision (see `lower_bounds`). The
    tests run from the most confident predictions down, at coverages that are set beforehand, and end where a bound is
    below the target. Each test of a fixed sequence that ends at its first failure may use the whole error (Angelopoulos
    2021, "Learn then Test", fixed sequence testing; Geifman and El-Yaniv 2017 for selective prediction). The coverages
    depend on the labels only through the temperatures, which hardly change the order of the utterances.
    `benchmarks/promised_precision.py` simulates how often the promise is kept.

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), calibrated probability of the predicted class.
        dialogue: (N,), dialogue of each utterance.
        weight: float (N,), weights of the utterances; those of weight 0 do not count.
        targets: precisions.

    Returns:
        A row for each target. None at all if a weight is neither 0 nor 1, since nothing can be promised then, or if
        all are 0.
    """
    rows = weight > 0
    if not rows.any() or not np.isin(weight, (0, 1)).all():
        return []
    correct, confidence, dialogue = correct[rows], confidence[rows], dialogue[rows]
    ranks = np.ceil(np.arange(1, COVERAGES + 1) * len(correct) / COVERAGES).astype(int)
    levels = np.unique(np.sort(confidence)[-ranks])[::-1]
    bounds, effective = lower_bounds(correct, confidence, dialogue, levels)
    return [_threshold(target, correct, confidence, levels, bounds, effective) for target in targets]


def _threshold(
    target: float,
    correct: np.ndarray,
    confidence: np.ndarray,
    levels: np.ndarray,
    bounds: np.ndarray,
    effective: np.ndarray,
) -> Threshold:
    # with fewer answers not even a test without an error succeeds: 0.95 needs 45
    tested = np.flatnonzero(effective >= max(MIN_ANSWERED, np.log(ERROR) / np.log(target)))
    failed = tested[bounds[tested] < target]
    passed = tested[tested < failed[0]] if len(failed) else tested
    if not len(passed):
        return Threshold(target)
    is_last = passed[-1] == len(levels) - 1
    scores = score_threshold(correct, confidence, levels[passed[-1]])
    return Threshold(target, 0.0 if is_last else float(levels[passed[-1]]), scores.coverage, scores.precision)


def lower_bounds(
    correct: np.ndarray, confidence: np.ndarray, dialogue: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower 90 % bound of the precision above each level, and the effective number of answers.

    The bound is exact for independent answers (Clopper and Pearson 1934). Those of a dialogue are correlated: n answers
    are worth n / (1 + (m - 1) r), where m is the number of answers in a dialogue, averaged over answers, and r is the
    bound of the correlation among all predictions (Kish 1965, design effect; Korn and Graubard 1998 for the exact bound
    in effective numbers). The correlation among confident predictions is assumed to be no higher: it could not be
    estimated from their few errors.

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), calibrated probability of the predicted class.
        dialogue: (N,), dialogue of each utterance.
        levels: float (K,), in descending order; the confidence of at least one utterance reaches the first.
    """
    members = np.unique(dialogue, return_inverse=True)[1].reshape(-1)
    step = np.searchsorted(-levels, -confidence)  # the first level that the utterance reaches
    counts = np.zeros((2, len(levels), int(members.max()) + 1))
    np.add.at(counts[0], (step, members), 1.0)
    np.add.at(counts[1], (step, members), correct)
    answers, hits = counts.cumsum(axis=1)
    total = answers.sum(axis=1)
    design = 1 + ((answers**2).sum(axis=1) / total - 1) * correlation_bound(correct, members)
    effective, successes = total / design, hits.sum(axis=1) / design
    bounds = beta.ppf(ERROR, np.maximum(successes, 1e-9), effective - successes + 1)
    return np.where(successes > 0, bounds, 0.0), effective


def correlation_bound(correct: np.ndarray, dialogue: np.ndarray) -> float:
    """Returns the upper 90 % bound of the correlation of two predictions' correctness in a dialogue.

    It is the F bound of the intraclass correlation in a one-way analysis of variance (Shrout and Fleiss 1979; Donner
    1986 for dialogues of unequal length). Without variance inside the dialogues it is 1.

    Args:
        correct: bool (N,), whether the prediction is correct.
        dialogue: (N,), dialogue of each utterance.
    """
    members = np.unique(dialogue, return_inverse=True)[1].reshape(-1)
    sizes, hits = np.bincount(members), np.bincount(members, correct)
    between, within = len(sizes) - 1, len(correct) - len(sizes)
    squares_within = float((hits * (1 - hits / sizes)).sum())
    if not between or squares_within <= 0:
        return 1.0
    squares_between = float((sizes * (hits / sizes - correct.mean()) ** 2).sum())
    size = (len(correct) - (sizes**2).sum() / len(correct)) / between
    ratio = squares_between / between / (squares_within / within) / f_distribution.ppf(ERROR, between, within)
    return float(np.clip((ratio - 1) / (ratio + size - 1), 0, 1))


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
