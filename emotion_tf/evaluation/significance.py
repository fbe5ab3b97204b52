"""Confidence intervals and significance tests of predictions, by resampling dialogues."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from emotion_tf.evaluation.metrics import weighted_f1

MAX_DRAWS = 20_000_000  # float64 numbers: 160 MB, one second
MIN_RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """A difference of weighted F1 with its 95 % interval and p-values.

    Attributes:
        difference: first minus second.
        low, high: bounds of the interval.
        p_value: one-sided p-value of the hypothesis that the first is not better.
        two_sided: two-sided p-value: twice the smaller one-sided p-value, at most 1.
    """

    difference: float
    low: float
    high: float
    p_value: float
    two_sided: float


def paired_bootstrap(
    label: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    group: np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    weight: np.ndarray | None = None,
) -> Difference:
    """Runs a paired bootstrap of weighted F1(first) - weighted F1(second) that resamples dialogues.

    Utterances of one dialogue are not independent, so dialogues are drawn (cluster bootstrap; Efron, Tibshirani 1993,
    chapter 8). The p-value is the inversion of the interval: the two-sided one is below 0.05 exactly if the interval
    excludes 0. With few dialogues it cannot be small: with 10,000 resamples at least 0.0064 for 10 dialogues, 0.0010
    for 30.

    Args:
        label: int (N,), true classes.
        first: int (N,), predicted classes; or (S, N), several sets of predictions, whose mean F1 counts.
        second: int (N,) or (S, N), predicted classes to compare with.
        group: (N,), dialogue of each utterance.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
        weight: float (N,), or None for equal weights.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    sides = [np.atleast_2d(side) for side in (first, second)]
    draws = _draws(members.max() + 1, resamples, seed)
    resampled = [
        np.mean(
            [_f1_of_counts(draws, _dialogue_counts(label, predicted, members, weight)) for predicted in side], axis=0
        )
        for side in sides
    ]
    differences = resampled[0] - resampled[1]
    scores = [float(np.mean([weighted_f1(label, predicted, weight) for predicted in side])) for side in sides]
    groups = int(members.max()) + 1
    low, high = _bounds(differences, groups)
    no_better, no_worse = (_p_value(d, groups) for d in (differences, -differences))
    return Difference(scores[0] - scores[1], low, high, no_better, min(1.0, 2 * min(no_better, no_worse)))


def intervals(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    weight: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """Returns 95 % intervals of `weighted_f1`, `accuracy` and `macro_f1`, by resampling dialogues.

    If all predictions are correct, or none is, all resamples are alike. The interval is then the exact one of as many
    trials as there are dialogues (Clopper and Pearson 1934).

    Args:
        label: int (N,), true classes.
        predicted: int (N,), predicted classes.
        group: (N,), dialogue of each utterance.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
        weight: float (N,), or None for equal weights.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    counts = _dialogue_counts(label, predicted, members, weight)
    hit, predicted_count, true = _resampled(_draws(counts.shape[0], resamples, seed), counts)
    occurs = predicted_count + true > 0
    scores = {
        "weighted_f1": (_f1(hit, predicted_count, true) * true).sum(axis=1) / true.sum(axis=1),
        "accuracy": hit.sum(axis=1) / true.sum(axis=1),
        "macro_f1": (_f1(hit, predicted_count, true) * occurs).sum(axis=1) / occurs.sum(axis=1),
    }
    bounds = {name: _bounds(values, len(counts)) for name, values in scores.items()}
    exact = _exact(label == predicted, len(counts))
    return dict.fromkeys(bounds, exact) if exact else bounds


def class_intervals(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    classes: int,
    resamples: int = 10_000,
    seed: int = 0,
    weight: np.ndarray | None = None,
) -> list[tuple[float, float]]:
    """Returns the 95 % interval of each class's F1; (nan, nan) for a class that is neither true nor predicted."""
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    counts = _dialogue_counts(label, predicted, members, weight, classes)
    hit, predicted_count, true = _resampled(_draws(counts.shape[0], resamples, seed), counts)
    f1 = np.where(predicted_count + true > 0, _f1(hit, predicted_count, true), np.nan)
    bounds = []
    for i, column in enumerate(f1.T):
        rows = (label == i) | (predicted == i)
        exact = _exact((label == predicted)[rows], len(np.unique(members[rows]))) if rows.any() else None
        bounds.append(exact or _bounds(column, len(counts)))
    return bounds


def interval(
    values: np.ndarray,
    group: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the 95 % interval of any statistic of sums over utterances, by resampling dialogues.

    Args:
        values: (N, K), contribution of each utterance to K sums.
        group: (N,), dialogue of each utterance.
        statistic: maps the sums (R, K) of R resamples to the statistic (R,); nan where it is undefined.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    sums = np.zeros((members.max() + 1, values.shape[1]))
    np.add.at(sums, members, values)
    return _bounds(statistic(_draws(len(sums), resamples, seed) @ sums), len(sums))


def _exact(correct: np.ndarray, groups: int) -> tuple[float, float] | None:
    """Returns the exact interval if all predictions are correct, or none is; else None."""
    if 0 < correct.sum() < len(correct):
        return None
    bound = 0.025 ** (1 / groups)
    return (bound, 1.0) if correct.any() else (0.0, 1 - bound)


def _bounds(values: np.ndarray, groups: int) -> tuple[float, float]:
    """Returns the expanded percentile interval of resampled values; (nan, nan) if there are too few groups or values.

    The percentiles lie a little outside 2.5 and 97.5, because a small sample varies less than its population
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"). They are order statistics, the outer ones of two
    neighbours, so that `_p_value` inverts the interval exactly.
    """
    finite = np.sort(values[np.isfinite(values)])
    if groups < 2:
        return np.nan, np.nan
    tail = norm.cdf(-np.sqrt(groups / (groups - 1)) * t.ppf(0.975, groups - 1))
    rank = int(tail * (len(finite) + 1))
    return (float(finite[rank - 1]), float(finite[-rank])) if rank else (np.nan, np.nan)


def _p_value(differences: np.ndarray, groups: int) -> float:
    """Returns the one-sided p-value of "not above 0": the level at which the bound of `_bounds` is 0."""
    if groups < 2:
        return 1.0
    differences = differences[np.isfinite(differences)]
    share = (np.sum(differences <= 0) + 1) / (len(differences) + 1)
    return float(t.cdf(norm.ppf(share) * np.sqrt((groups - 1) / groups), groups - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts the p-values of several comparisons, to control the chance of any false finding.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values)
    steps = np.maximum.accumulate([(len(order) - i) * p_values[k] for i, k in enumerate(order)])
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted.tolist()


@functools.lru_cache(maxsize=1)
def _draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """Returns the number of times each dialogue is in each resample, float64 (R, G); a report uses the same many times.

    With more than 2,000 dialogues it draws fewer than `resamples`, but at least 1,000.
    """
    resamples = min(resamples, max(MIN_RESAMPLES, MAX_DRAWS // groups))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)
    draws.setflags(write=False)
    return draws


def _dialogue_counts(
    label: np.ndarray,
    predicted: np.ndarray,
    members: np.ndarray,
    weight: np.ndarray | None = None,
    classes: int = 0,
) -> np.ndarray:
    """Returns the counts of true positives, predictions and labels of each class in each dialogue, (G, 3, C)."""
    classes = classes or int(max(label.max(), predicted.max())) + 1
    weight = np.ones(len(label)) if weight is None else weight
    groups, hit = int(members.max()) + 1, label == predicted
    kinds = ((label, weight * hit), (predicted, weight), (label, weight))
    counts = [
        np.bincount(members * classes + values, w, groups * classes).reshape(groups, classes) for values, w in kinds
    ]
    return np.stack(counts, axis=1)


def _resampled(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the counts of each resample, (3, R, C), from draws (R, G) of dialogues with counts (G, 3, C)."""
    return np.tensordot(draws, counts, axes=1).transpose(1, 0, 2)


def _f1(hit: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    # a class that is neither true nor predicted has 0 / 0; the callers leave it out
    return 2 * hit / np.where(predicted + true > 0, predicted + true, 1)


def _f1_of_counts(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the weighted F1 of each resample, from draws (R, G) of dialogues with counts (G, 3, C)."""
    hit, predicted, true = _resampled(draws, counts)
    return (_f1(hit, predicted, true) * true).sum(axis=1) / true.sum(axis=1)
