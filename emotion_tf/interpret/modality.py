"""What text, face and context do for a class, and for a model over a whole data set."""

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
Through = Callable[[Iterable[T], int], Iterable[T]]


def shapley(players: Sequence[str], value: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Each player's Shapley value (Shapley 1953), exactly: its mean gain over all orders in which they may come.

    Args:
        players: their names.
        value: of each of the 2^n coalitions.
    """
    count, found = len(players), {}
    for player in players:
        others = [one for one in players if one != player]
        total = 0.0
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for joined in itertools.combinations(others, size):
                total += weight * (value[frozenset(joined) | {player}] - value[frozenset(joined)])
        found[player] = total
    return found


@dataclass(frozen=True)
class Shares:
    """Shapley values of an utterance's modalities, in nats, from the score with none (`empty`) to that with all."""

    values: dict[str, float]
    empty: float
    score: float


def only(utterance: Utterance, modalities: Iterable[str]) -> Utterance:
    """An utterance of which the other modalities are absent."""
    absent = {FIELDS[name]: getattr(Utterance(), FIELDS[name]) for name in set(FIELDS) - set(modalities)}
    return replace(utterance, **absent)


def present(utterance: Utterance) -> tuple[str, ...]:
    """The modalities that an utterance has."""
    return tuple(name for name, field in FIELDS.items() if getattr(utterance, field))


def modality_shares(batch: Batch) -> list[Shares]:
    """Of each utterance of a batch. An absent modality is an input like any other of the model; it gets 0."""
    coalitions, made = [], []
    for one in batch.utterances:
        sets = [frozenset(c) for n in range(len(present(one)) + 1) for c in itertools.combinations(present(one), n)]
        coalitions.append(sets)
        made += [only(one, kept) for kept in sets]
    owner = np.repeat(np.arange(len(coalitions)), [len(sets) for sets in coalitions])
    score = np.asarray(scores(batch.scorer.logits(made), batch.target[owner]), np.float64)
    found = []
    for n, sets in enumerate(coalitions):
        value = dict(zip(sets, score[owner == n].tolist(), strict=True))
        players = present(batch.utterances[n])
        values = dict.fromkeys(batch.scorer.modalities, 0.0) | shapley(players, value)
        found.append(Shares(values, value[frozenset()], value[frozenset(players)]))
    return found


@dataclass(frozen=True)
class Importance:
    """What a data set's weighted F1 loses when a modality is shuffled among its utterances: mean and deviation."""

    modality: str
    drop: float
    deviation: float


def permutation_importance(
    scorer: Scorer, utterances: Sequence[Utterance], repeats: int = 5, seed: int = 0, through: Through | None = None
) -> tuple[float, list[Importance]]:
    """Weighted F1 as it is, and what each modality's shuffling costs (Breiman 2001, "Random Forests", section 10).

    A modality is shuffled with its absence: an utterance may get none, or lose it.

    Args:
        scorer: of the run.
        utterances: as `Scorer.keep` gives them, with their labels.
        repeats: shufflings of each modality.
        seed: of these.
        through: shows progress over (modality, repeat).
    """
    label = np.array([one.label for one in utterances], int)
    rng = np.random.default_rng(seed)

    def f1(rows: Sequence[Utterance]) -> float:
        return weighted_f1(label, scorer.logits(rows).argmax(axis=1))

    before = f1(utterances)
    work = [(name, rng.permutation(len(utterances))) for name in scorer.modalities for _ in range(repeats)]
    drops: dict[str, list[float]] = {name: [] for name in scorer.modalities}
    for name, order in through(work, len(work)) if through else work:
        drops[name].append(
            before - f1([_mixed(one, utterances[i], name) for one, i in zip(utterances, order, strict=True)])
        )
    deviation = {name: float(np.std(found, ddof=1)) if repeats > 1 else 0.0 for name, found in drops.items()}
    return before, [Importance(name, float(np.mean(found)), deviation[name]) for name, found in drops.items()]


def _mixed(one: Utterance, other: Utterance, modality: str) -> Utterance:
    """An utterance with a modality of another one."""
    return replace(one, **{FIELDS[modality]: getattr(other, FIELDS[modality])})
