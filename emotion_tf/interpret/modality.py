"""Attribution of a class to text, face and context: of one utterance, and over a data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.interpret.batch import FIELDS, Batch, Scorer, Utterance, scores

T = TypeVar("T")
Progress = Callable[[Iterable[T], int], Iterable[T]]


def shapley(players: Sequence[str], value: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Returns each player's exact Shapley value (Shapley 1953): the mean gain over all orders in which players join.

    Args:
        players: their names.
        value: value of each of the 2^n coalitions.
    """
    count, values = len(players), {}
    for player in players:
        others = [other for other in players if other != player]
        total = 0.0
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for coalition in itertools.combinations(others, size):
                total += weight * (value[frozenset(coalition) | {player}] - value[frozenset(coalition)])
        values[player] = total
    return values


@dataclass(frozen=True)
class ShapleyValues:
    """Shapley values of an utterance's modalities in nats; they sum to `score` (with all) minus `empty` (with none)."""

    values: dict[str, float]
    empty: float
    score: float


def keep_modalities(utterance: Utterance, modalities: Iterable[str]) -> Utterance:
    """Returns the utterance without its other modalities."""
    absent = {FIELDS[name]: getattr(Utterance(), FIELDS[name]) for name in set(FIELDS) - set(modalities)}
    return replace(utterance, **absent)


def present_modalities(utterance: Utterance) -> tuple[str, ...]:
    """Returns the names of the modalities that an utterance has."""
    return tuple(name for name, field in FIELDS.items() if getattr(utterance, field))


def modality_shapley_values(batch: Batch) -> list[ShapleyValues]:
    """Returns the Shapley values of each utterance of a batch; an absent modality has the value 0."""
    players = [present_modalities(utterance) for utterance in batch.utterances]
    coalitions = [
        [frozenset(names) for n in range(len(of_row) + 1) for names in itertools.combinations(of_row, n)]
        for of_row in players
    ]
    reduced = [
        keep_modalities(utterance, names)
        for utterance, of_row in zip(batch.utterances, coalitions, strict=True)
        for names in of_row
    ]
    owner = np.repeat(np.arange(len(coalitions)), [len(of_row) for of_row in coalitions])
    score = np.asarray(scores(batch.scorer.logits(reduced), batch.target[owner]), np.float64)
    results = []
    for n, of_row in enumerate(coalitions):
        value = dict(zip(of_row, score[owner == n].tolist(), strict=True))
        values = dict.fromkeys(batch.scorer.modalities, 0.0) | shapley(players[n], value)
        results.append(ShapleyValues(values, value[frozenset()], value[frozenset(players[n])]))
    return results


@dataclass(frozen=True)
class Importance:
    """Loss of weighted F1 when a modality is shuffled among the utterances: mean and standard deviation."""

    modality: str
    drop: float
    deviation: float


def permutation_importance(
    scorer: Scorer, utterances: Sequence[Utterance], repeats: int = 5, seed: int = 0, progress: Progress | None = None
) -> tuple[float, list[Importance]]:
    """Returns weighted F1 and the permutation importance of each modality (Breiman 2001, "Random Forests", section 10).

    The absence of a modality is shuffled too: an utterance can lose it, or get one.

    Args:
        scorer: scorer of the run.
        utterances: results of `Scorer.normalize`, with their labels.
        repeats: number of shuffles of each modality.
        seed: seed of the shuffles.
        progress: wraps the iteration over (modality, repeat) to display progress.
    """
    label = np.array([utterance.label for utterance in utterances], int)
    rng = np.random.default_rng(seed)

    def f1(rows: Sequence[Utterance]) -> float:
        return weighted_f1(label, scorer.logits(rows).argmax(axis=1))

    baseline = f1(utterances)
    shuffles = [(name, rng.permutation(len(utterances))) for name in scorer.modalities for _ in range(repeats)]
    drops: dict[str, list[float]] = {name: [] for name in scorer.modalities}
    for name, order in progress(shuffles, len(shuffles)) if progress else shuffles:
        rows = [_exchange(utterance, utterances[i], name) for utterance, i in zip(utterances, order, strict=True)]
        drops[name].append(baseline - f1(rows))
    deviation = {name: float(np.std(values, ddof=1)) if repeats > 1 else 0.0 for name, values in drops.items()}
    return baseline, [Importance(name, float(np.mean(values)), deviation[name]) for name, values in drops.items()]


def _exchange(utterance: Utterance, source: Utterance, modality: str) -> Utterance:
    """Returns an utterance with a modality of another one."""
    return replace(utterance, **{FIELDS[modality]: getattr(source, FIELDS[modality])})
