"""Is one set of predictions better than another on the same utterances?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from emotion_tf.evaluation.metrics import weighted_f1


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
    label: np.ndarray, first: np.ndarray, second: np.ndarray, group: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Paired bootstrap of weighted F1(first) - weighted F1(second), resampling whole dialogues.

    Utterances of one dialogue are not independent, so dialogues are drawn (cluster bootstrap; Efron, Tibshirani 1993,
    chapter 8). The p-value is the share of resamples in which `first` is not better, as in Koehn 2004 (section 3),
    with one added to both counts.

    Args:
        label: int (N,), true classes.
        first: int (N,), predicted classes of the one that is hoped to be better.
        second: int (N,), predicted classes of the other.
        group: (N,), dialogue of each utterance.
        resamples: number of bootstrap samples.
        seed: of the resampling.
    """
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    counts = _dialogue_counts(label, first, members), _dialogue_counts(label, second, members)
    draws = _draws(counts[0].shape[0], resamples, seed)
    differences = _f1_of_counts(draws, counts[0]) - _f1_of_counts(draws, counts[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    no_better, no_worse = ((np.sum(d <= 0) + 1) / (resamples + 1) for d in (differences, -differences))
    return Difference(
        weighted_f1(label, first) - weighted_f1(label, second),
        float(low),
        float(high),
        float(no_better),
        float(min(1.0, 2 * min(no_better, no_worse))),
    )


def intervals(
    label: np.ndarray, predicted: np.ndarray, group: np.ndarray, resamples: int = 10_000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `weighted_f1` and `accuracy`, by resampling whole dialogues as `paired_bootstrap` does."""
    members = np.unique(group, return_inverse=True)[1].reshape(-1)
    counts = _dialogue_counts(label, predicted, members)
    draws = _draws(counts.shape[0], resamples, seed)
    hit, _, true = np.tensordot(draws, counts.sum(axis=2), axes=1).T
    found = {"weighted_f1": _f1_of_counts(draws, counts), "accuracy": hit / true}
    bounds = {name: np.quantile(values, [0.025, 0.975]) for name, values in found.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def mcnemar(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test of two accuracies (McNemar 1947; binomial form, Dietterich 1998, section 3.1).

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


def _draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each dialogue is in each resample, float64 (R, G)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def _dialogue_counts(label: np.ndarray, predicted: np.ndarray, members: np.ndarray) -> np.ndarray:
    """True positives, predicted and true of each class in each dialogue (G, 3, C)."""
    classes = int(max(label.max(), predicted.max())) + 1
    counts = np.zeros((members.max() + 1, 3, classes))
    hit = label == predicted
    np.add.at(counts[:, 0], (members[hit], label[hit]), 1)
    np.add.at(counts[:, 1], (members, predicted), 1)
    np.add.at(counts[:, 2], (members, label), 1)
    return counts


def _f1_of_counts(draws: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted F1 of each resample: draws (R, G) of dialogues with counts (G, 3, C)."""
    hit, predicted, true = np.tensordot(draws, counts, axes=1).transpose(1, 0, 2)
    f1 = 2 * hit / np.maximum(predicted + true, 1)
    return (f1 * true).sum(axis=1) / true.sum(axis=1)
