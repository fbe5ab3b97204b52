"""Confidence intervals and significance tests of predictions, over dialogues and seeds.

`benchmarks/intervals.py` simulates the error of each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # scipy.stats takes half a second to import

from emotion_tf.evaluation.jackknife import (
    LEVEL,
    Estimate,
    accuracy,
    estimate,
    f1_of,
    macro_f1,
    score_interval,
    weighted_f1,
)

Bounds = tuple[float, float] | None
MIN_ROWS = 20
"""A class with fewer utterances has no interval."""
MAX_DRAWS = 20_000_000  # float64 numbers: 160 MB, one second
MIN_RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """A difference of weighted F1 with its 95 % interval and p-values.

    Attributes:
        difference: first minus second.
        low, high: bounds of the interval; infinite if too few dialogues differ to know the variance.
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
    excludes 0. Both count only the dialogues in which the predictions differ; the others say nothing about the sign.
    With few it cannot be small: with 10,000 resamples at least 0.0064 for 10 dialogues, 0.0010 for 30.

    Args:
        label: int (N,), true classes.
        first: int (N,), predicted classes; or (S, N), several sets of predictions, whose mean F1 counts.
        second: int (N,) or (S, N), predicted classes to compare with.
        group: (N,), dialogue of each utterance.
        resamples: number of bootstrap samples.
        seed: seed of the resampling.
        weight: float (N,), or None for equal weights.
    """
    sides = [np.atleast_2d(side) for side in (first, second)]
    classes = int(max(label.max(), *(side.max() for side in sides))) + 1
    counts = [_counts_of_seeds(label, side, group, weight, classes) for side in sides]
    draws = _draws(counts[0].shape[1], resamples, seed)
    resampled, values = (
        [np.mean([weighted_f1(np.tensordot(d, of_seed, axes=1)) for of_seed in side], axis=0) for side in counts]
        for d in (draws, np.ones((1, draws.shape[1])))
    )
    differences = resampled[0] - resampled[1]
    groups = _informative(np.concatenate(sides), group, weight)
    low, high = _percentiles(differences, groups)
    no_better, no_worse = (_p_value(d, groups) for d in (differences, -differences))
    difference = float(values[0][0] - values[1][0])
    return Difference(difference, low, high, no_better, min(1.0, 2 * min(no_better, no_worse)))


def crossed_difference(
    label: np.ndarray, first: np.ndarray, second: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None
) -> tuple[Difference, Estimate]:
    """Tests the difference of two configurations' mean weighted F1 over seeds and dialogues, which are crossed.

    Each side's seeds and the dialogues add their variance; the test is Student's t with the degrees of freedom of all
    three (Satterthwaite 1946), and its interval. Seeds are not paired: with other options the same seed draws other
    numbers.

    Args:
        label: int (N,), true classes.
        first, second: int (S, N), predicted classes of the seeds of each side, two or more.
        group: (N,), dialogue of each utterance.
        weight: float (N,), or None for equal weights.
    """
    classes = int(max(label.max(), first.max(), second.max())) + 1
    sides = [_counts_of_seeds(label, side, group, weight, classes) for side in (first, second)]
    result = estimate(weighted_f1, sides[0][0, :, 2].sum(axis=-1), *sides)
    return student_t(result), result


def student_t(result: Estimate) -> Difference:
    """Returns the t-test of a difference, and its 95 % interval.

    With fewer than two effective dialogues their variance is unknown: no value is excluded, and p is 1. The same holds
    if neither dialogues nor seeds vary.
    """
    value, error, degrees = float(result.value), float(np.sqrt(result.variance)), float(result.degrees)
    if result.effective < 2 or not error:
        return Difference(value, -np.inf, np.inf, 1.0, 1.0)
    margin = float(stdtrit(degrees, 1 - LEVEL / 2)) * error
    p_value = float(stdtr(degrees, -value / error))
    two_sided = 2 * min(p_value, 1 - p_value)
    return Difference(value, value - margin, value + margin, p_value, two_sided)


def intervals(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, Bounds]:
    """Returns 95 % intervals of `weighted_f1`, `accuracy` and `macro_f1` over dialogues, and over several seeds.

    Args:
        label: int (N,), true classes.
        predicted: int (N,), predicted classes; or (S, N), the predictions of several seeds, whose mean score counts.
        group: (N,), dialogue of each utterance.
        weight: float (N,), or None for equal weights.

    Returns:
        Bounds of each metric; None with fewer than two dialogues, and for `macro_f1` if a class has fewer than 20
        utterances.
    """
    counts = _counts_of_seeds(label, np.atleast_2d(predicted), group, weight)
    size, few = counts[0, :, 2].sum(axis=-1), _has_few(label, np.union1d(label, predicted))
    statistics = {"weighted_f1": weighted_f1, "accuracy": accuracy, "macro_f1": macro_f1}
    return {
        name: None if name == "macro_f1" and few else _bounds(estimate(statistic, size, counts))
        for name, statistic in statistics.items()
    }


def class_intervals(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, classes: int, weight: np.ndarray | None = None
) -> list[Bounds]:
    """Returns the 95 % interval of each class's F1; None for a class with fewer than 20 utterances."""
    counts = _counts_of_seeds(label, predicted[None], group, weight, classes)
    sizes = counts[0, :, 1] + counts[0, :, 2]
    return [None if _has_few(label, [i]) else _bounds(estimate(f1_of(i), sizes[:, i], counts)) for i in range(classes)]


def accuracy_interval(correct: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None) -> Bounds:
    """Returns the 95 % interval of a share of correct answers; None for fewer than 20.

    Args:
        correct: bool (N,).
        group: (N,), dialogue of each utterance.
        weight: float (N,), or None for equal weights.
    """
    label = np.ones(len(correct), int)
    return None if _has_few(label, [1]) else intervals(label, correct.astype(int), group, weight)["accuracy"]


def _has_few(label: np.ndarray, classes: Sequence[int] | np.ndarray) -> bool:
    """Returns whether one of the classes has too few utterances for an interval."""
    return any(np.sum(label == i) < MIN_ROWS for i in classes)


def _bounds(score: Estimate) -> Bounds:
    low, high = score_interval(score)
    return (float(low), float(high)) if score.effective >= 2 else None


def _informative(predicted: np.ndarray, group: np.ndarray, weight: np.ndarray | None) -> int:
    """Returns the number of dialogues in which the sets of predictions (S, N) differ."""
    differs = (predicted != predicted[0]).any(axis=0) & (True if weight is None else weight > 0)
    return len(np.unique(group[differs]))


def _percentiles(draws: np.ndarray, groups: int) -> tuple[float, float]:
    """Returns the expanded percentile interval of resampled differences.

    The percentiles lie a little outside 2.5 and 97.5, because a small sample varies less than its population
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"). They are order statistics, the outer ones of two
    neighbours, so that `_p_value` inverts the interval exactly. If no draw lies so far outside, as with one to three
    dialogues that differ, no value is excluded.
    """
    if not groups:
        return 0.0, 0.0
    ordered = np.sort(draws)
    tail = ndtr(-np.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, 0.975)) if groups > 1 else 0.0
    if rank := int(tail * (len(ordered) + 1)):
        return float(ordered[rank - 1]), float(ordered[-rank])
    return -np.inf, np.inf


def _p_value(draws: np.ndarray, groups: int) -> float:
    """Returns the one-sided p-value of "not above 0": the level at which the bound of `_percentiles` is 0."""
    if groups < 2:
        return 1.0
    share = (np.sum(draws <= 0) + 1) / (len(draws) + 1)
    return float(stdtr(groups - 1, ndtri(share) * np.sqrt((groups - 1) / groups)))


def format_bounds(bounds: Bounds, sign: str = "", decimals: int = 4) -> str:
    """Formats an interval, or says "too few" if it is unknown; `sign` is "+" for differences."""
    if not bounds or not np.isfinite(bounds).all():
        return "too few"
    low, high = (f"{bound:{sign}z.{decimals}f}" for bound in bounds)
    return f"[{low}, {high}]"


def format_p(p: float, decimals: int = 4) -> str:
    """Formats a p-value; "< 0.001" in place of smaller ones."""
    return "< 0.001" if p < 0.001 else f"{p:.{decimals}f}"


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
    label: np.ndarray, predicted: np.ndarray, members: np.ndarray, weight: np.ndarray | None, classes: int
) -> np.ndarray:
    """Returns the counts of true positives, predictions and labels of each class in each dialogue, (G, 3, C)."""
    weight = np.ones(len(label)) if weight is None else weight
    groups, hit = int(members.max()) + 1, label == predicted
    kinds = ((label, weight * hit), (predicted, weight), (label, weight))
    counts = [
        np.bincount(members * classes + values, w, groups * classes).reshape(groups, classes) for values, w in kinds
    ]
    return np.stack(counts, axis=1)


def _counts_of_seeds(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, weight: np.ndarray | None, classes: int = 0
) -> np.ndarray:
    """Returns the counts of predictions (S, N) in each dialogue, (S, G, 3, C)."""
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    classes = classes or int(max(label.max(), predicted.max())) + 1
    return np.stack([_dialogue_counts(label, seed, members, weight, classes) for seed in predicted])
