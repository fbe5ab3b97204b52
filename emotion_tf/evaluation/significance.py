"""Is one set of predictions better than another on the same utterances?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emotion_tf.evaluation.metrics import weighted_f1


@dataclass(frozen=True)
class Difference:
    """A difference of weighted F1 with its 95 % interval and one-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


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
    rng = np.random.default_rng(seed)
    n = counts[0].shape[0]
    draws = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    differences = _f1_of_counts(draws, counts[0]) - _f1_of_counts(draws, counts[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    return Difference(
        weighted_f1(label, first) - weighted_f1(label, second),
        float(low),
        float(high),
        float((np.sum(differences <= 0) + 1) / (resamples + 1)),
    )


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
