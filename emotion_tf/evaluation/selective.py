"""Selective prediction: a model abstains where its confidence is below a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import NamedTuple

import numpy as np

from emotion_tf.documents import Score, Share

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

    target: Share
    threshold: Score | None = None
    coverage: Score = 0.0
    precision: Score | None = None


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


def score_threshold(
    correct: np.ndarray, confidence: np.ndarray, threshold: float, weight: np.ndarray | None = None
) -> SelectiveScores:
    """Returns the results above a threshold; without any answer of positive weight the precision is nan."""
    weight = np.ones(len(correct)) if weight is None else weight
    answered = np.where(confidence >= threshold, weight, 0.0)
    total = float(answered.sum())
    precision = float(answered @ correct) / total if total else float("nan")
    return SelectiveScores(int((answered > 0).sum()), total / float(weight.sum()), precision)


def round_down(threshold: float, digits: int) -> float:
    """Rounds a threshold down, so that one that is printed excludes no prediction above it."""
    return float(Decimal(str(threshold)).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def format_threshold(threshold: float) -> str:
    """Returns a threshold for `--abstain-below`. Nine digits tell neighbouring float32 probabilities apart."""
    return f"{round_down(threshold, 9):.9f}" if threshold else "none needed"


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
    tests = np.flatnonzero(effective >= max(MIN_ANSWERED, np.log(ERROR) / np.log(target)))
    failures = np.flatnonzero(bounds[tests] < target)
    successes = tests[: failures[0]] if len(failures) else tests
    if not len(successes):
        return Threshold(target)
    level = float(levels[successes[-1]])
    scores = score_threshold(correct, confidence, level)
    is_last = successes[-1] == len(levels) - 1
    return Threshold(target, 0.0 if is_last else level, scores.coverage, scores.precision)


def lower_bounds(
    correct: np.ndarray, confidence: np.ndarray, dialogue: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower 90 % bound of the precision above each level, and the effective number of answers.

    The bound is exact for independent answers (Clopper and Pearson 1934). Those of a dialogue are correlated: n answers
    are worth n / (1 + (m - 1) r), where m is the number of answers in a dialogue, averaged over answers, and r bounds
    their correlation (Kish 1965, design effect; Korn and Graubard 1998 for the exact bound in effective numbers): the
    larger of the bounds for all predictions and for those above the level, where few errors tell less.

    Args:
        correct: bool (N,), whether the prediction is correct.
        confidence: float (N,), calibrated probability of the predicted class.
        dialogue: (N,), dialogue of each utterance.
        levels: float (K,), in descending order; the highest confidence reaches the first, the lowest reaches the last.
    """
    members = np.unique(dialogue, return_inverse=True)[1].reshape(-1)
    step = np.searchsorted(-levels, -confidence)  # the first level that the utterance reaches
    counts = np.zeros((2, len(levels), int(members.max()) + 1))
    np.add.at(counts[0], (step, members), 1.0)
    np.add.at(counts[1], (step, members), correct)
    answers, hits = counts.cumsum(axis=1)
    total, correlation = answers.sum(axis=1), correlation_bound(answers, hits)
    design = 1 + ((answers**2).sum(axis=1) / total - 1) * np.maximum(correlation, correlation[-1])
    effective, successes = total / design, hits.sum(axis=1) / design
    from scipy.special import betaincinv  # not at import: a client has no SciPy

    bounds = betaincinv(np.maximum(successes, 1e-9), effective - successes + 1, ERROR)
    return np.where(successes > 0, bounds, 0.0), effective


def correlation_bound(answers: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Returns the upper 90 % bound of the correlation of two predictions' correctness in a dialogue, float (...,).

    It is the F bound of the intraclass correlation in a one-way analysis of variance (Shrout and Fleiss 1979; Donner
    1986 for dialogues of unequal length). Without variance inside the dialogues it is 1. If all predictions are
    correct, or all wrong, they show no correlation: the bound is then the lowest that one exception can give.

    Args:
        answers: float (..., G), number of predictions in each dialogue, which may be 0.
        hits: float (..., G), number of correct ones among them.
    """
    total, right, sizes = answers.sum(axis=-1), hits.sum(axis=-1), np.maximum(answers, 1)
    between = (answers > 0).sum(axis=-1) - 1
    within = total - between - 1
    squares_within = (hits * (1 - hits / sizes)).sum(axis=-1)
    squares = (hits**2 / sizes).sum(axis=-1) - right**2 / total
    # one exception in the longest dialogue
    is_uniform, longest = (right == 0) | (right == total), sizes.max(axis=-1)
    squares_within = np.where(is_uniform, 1 - 1 / longest, squares_within)
    squares = np.where(is_uniform, 1 / longest - 1 / total, squares)
    size = (total - (answers**2).sum(axis=-1) / total) / np.maximum(between, 1)
    is_defined = (between > 0) & (within > 0) & (squares_within > 0)
    inside = np.where(is_defined, squares_within / np.maximum(within, 1), 1.0)
    from scipy.special import fdtri

    quantile = fdtri(np.maximum(between, 1), np.maximum(within, 1), ERROR)
    ratio = squares / np.maximum(between, 1) / inside / quantile
    return np.where(is_defined, np.clip((ratio - 1) / (ratio + size - 1), 0, 1), 1.0)


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
