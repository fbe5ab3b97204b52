"""Is one set of predictions better than another on the same utterances?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, t

from emotion_tf.evaluation.metrics import weighted_f1

LARGEST = 20_000_000  # numbers: 160 MB, a second
FEWEST = 1000


@dataclass(frozen=True)
class Difference:
    """A difference of weighted F1 with its 95 % interval and p-values.

    Attributes:
        p_value: one-sided: of no gain.
        two_sided: twice the smaller of both one-sided ones, at most 1.
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
    """Paired bootstrap of weighted F1(first) - weighted F1(second), resampling whole dialogues.

    Utterances of one dialogue are not independent, so dialogues are drawn (cluster bootstrap; Efron, Tibshirani 1993,
    chapter 8). The p-value is the share of resamples in which `first` is not better, as in Koehn 2004 (section 3),
    with one added to both counts.

    Args:
        label: int (N,), true classes.
        first: int (N,), predicted classes of the one that is hoped to be better; or (S, N), of S of
            them, whose mean F1 is meant.
        second: int (N,), predicted classes of the other; or (S, N).
        group: (N,), dialogue of each utterance.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        weight: float (N,), or None for equal weights.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    sides = [np.atleast_2d(side) for side in (first, second)]
    draws = _draws(members.max() + 1, resamples, seed)
    resampled = [
        np.mean([_f1_of_counts(draws, _dialogue_counts(label, one, members, weight)) for one in side], axis=0)
        for side in sides
    ]
    differences = resampled[0] - resampled[1]
    found = [float(np.mean([weighted_f1(label, one, weight) for one in side])) for side in sides]
    low, high = _bounds(differences, members.max() + 1)
    no_better, no_worse = ((np.sum(d <= 0) + 1) / (len(draws) + 1) for d in (differences, -differences))
    return Difference(
        found[0] - found[1],
        low,
        high,
        float(no_better),
        float(min(1.0, 2 * min(no_better, no_worse))),
    )


def intervals(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    weight: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `weighted_f1`, `accuracy` and `macro_f1`, by resampling whole dialogues as `paired_bootstrap`.

    Where all are right, or none, each sample is like the other: then it is the exact interval of as many trials as
    there are dialogues (Clopper and Pearson 1934).

    Args:
        label: int (N,), true classes.
        predicted: int (N,).
        group: (N,), dialogue of each utterance.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        weight: float (N,), or None for equal weights.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    counts = _dialogue_counts(label, predicted, members, weight)
    hit, said, true = _resampled(_draws(counts.shape[0], resamples, seed), counts)
    met = said + true > 0
    found = {
        "weighted_f1": (_f1(hit, said, true) * true).sum(axis=1) / true.sum(axis=1),
        "accuracy": hit.sum(axis=1) / true.sum(axis=1),
        "macro_f1": (_f1(hit, said, true) * met).sum(axis=1) / met.sum(axis=1),
    }
    bounds = {name: _bounds(values, len(counts)) for name, values in found.items()}
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
    """95 % interval of each class's F1, as `intervals`; (nan, nan) for a class that is neither true nor predicted."""
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    counts = _dialogue_counts(label, predicted, members, weight, classes)
    hit, said, true = _resampled(_draws(counts.shape[0], resamples, seed), counts)
    f1 = np.where(said + true > 0, _f1(hit, said, true), np.nan)
    found = []
    for i, column in enumerate(f1.T):
        of = (label == i) | (predicted == i)
        exact = _exact((label == predicted)[of], len(np.unique(members[of]))) if of.any() else None
        found.append(exact or _bounds(column, len(counts)))
    return found


def interval(
    values: np.ndarray,
    group: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of any statistic of sums over utterances, by resampling whole dialogues.

    Args:
        values: (N, K), what each utterance adds to K sums.
        group: (N,), dialogue of each utterance.
        statistic: sums (R, K) -> the statistic (R,) of R samples; nan where a sample has none.
        resamples: number of bootstrap samples.
        seed: of the resampling.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    sums = np.zeros((members.max() + 1, values.shape[1]))
    np.add.at(sums, members, values)
    return _bounds(statistic(_draws(len(sums), resamples, seed) @ sums), len(sums))


def _exact(right: np.ndarray, groups: int) -> tuple[float, float] | None:
    """The interval where all are right or all are wrong; None where it is to be had by resampling."""
    if 0 < right.sum() < len(right):
        return None
    reach = 0.025 ** (1 / groups)
    return (reach, 1.0) if right.any() else (0.0, 1 - reach)


def _bounds(values: np.ndarray, groups: int) -> tuple[float, float]:
    """The expanded percentile interval of resampled values (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap"): percentiles a little farther out than 2.5 and 97.5, since few dialogues vary less than their source."""
    kept = values[np.isfinite(values)]
    if not len(kept) or groups < 2:
        return np.nan, np.nan
    tail = norm.cdf(-np.sqrt(groups / (groups - 1)) * t.ppf(0.975, groups - 1))
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test of two accuracies (McNemar 1947; binomial form, Dietterich 1998, section 3.1).

    It counts utterances: each alike, whatever its weight.

    Returns:
        How many utterances only the first has right, how many only the second, and the two-sided p-value.
    """
    one, other = first == label, second == label
    only_first, only_second = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    if only_first + only_second == 0:
        return 0, 0, 1.0
    return only_first, only_second, float(binomtest(only_first, only_first + only_second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons together, adjusted so that one false finding in all has the given chance.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values)
    steps = np.maximum.accumulate([(len(order) - i) * p_values[k] for i, k in enumerate(order)])
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted.tolist()


@functools.lru_cache(maxsize=1)
def _draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each dialogue is in each resample, float64 (R, G); kept, since a report asks for the same again.

    With more than 2,000 dialogues there are fewer resamples than asked for, but at least 1,000.
    """
    resamples = min(resamples, max(FEWEST, LARGEST // groups))
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
    """True positives, predicted and true of each class in each dialogue (G, 3, C)."""
    classes = classes or int(max(label.max(), predicted.max())) + 1
    weight = np.ones(len(label)) if weight is None else weight
    groups, hit = int(members.max()) + 1, label == predicted
    kinds = ((label, weight * hit), (predicted, weight), (label, weight))
    counts = [np.bincount(members * classes + of, w, groups * classes).reshape(groups, classes) for of, w in kinds]
    return np.stack(counts, axis=1)


def _resampled(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Draws (R, G) of dialogues with counts (G, 3, C): the counts of each resample, (3, R, C)."""
    return np.tensordot(draws, counts, axes=1).transpose(1, 0, 2)


def _f1(hit: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    # a class that is neither there nor predicted has 0 / 0, and counts nowhere
    return 2 * hit / np.where(predicted + true > 0, predicted + true, 1)


def _f1_of_counts(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted F1 of each resample: draws (R, G) of dialogues with counts (G, 3, C)."""
    hit, predicted, true = _resampled(draws, counts)
    return (_f1(hit, predicted, true) * true).sum(axis=1) / true.sum(axis=1)
