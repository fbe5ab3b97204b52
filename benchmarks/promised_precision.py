"""How often a promised precision is kept: `python -m benchmarks.promised_precision`.

Each draw simulates a validation split: dialogues of unequal length, of which long ones are harder, and predictions that
are correct with the probability that the model's logits have, up to a temperature that is fitted on the same split. The
correctness of two predictions in a dialogue has a given intra-class correlation. The precision above a threshold is
that of a large population. Three rules are compared:

- dev: the lowest threshold above which the precision on dev reaches the target, with at least 20 answers;
- rows: as `fit_thresholds`, but as if each utterance were a dialogue;
- promise: `fit_thresholds`.

A promise is broken if the precision above the threshold is below the target in the population (allowed: 10 %).

The last tables are the least favourable cases: the precision is just below the target at every confidence, and the most
confident predictions come from few dialogues; or it is so above a confidence of 0.75 alone, where errors cluster in
dialogues with a correlation of 0.5, while the others are wrong in half of the cases, independently. Every threshold
breaks the promise there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import softmax

from benchmarks import make_parser, run_benchmark
from emotion_tf.errors import UserError
from emotion_tf.evaluation.selective import PRECISIONS, fit_thresholds, risk_coverage
from emotion_tf.evaluation.temperature import fit_temperature

CLASSES = 7
PLANTED_TEMPERATURE = 2.0
POPULATION = 1_000
"""Dialogues of the population."""
MIN_ANSWERED = 20
RULES = ("dev", "rows", "promise")
Precision = Callable[[float], tuple[float, float]]
"""Threshold -> precision above it, and coverage, in the population."""


class Draw(NamedTuple):
    """A simulated validation split (arrays of N utterances), and the truth about the population."""

    correct: np.ndarray
    confidence: np.ndarray
    dialogue: np.ndarray
    precision: Precision


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("--draws", type=int, default=2000)
    arguments.add_argument("--dialogues", type=int, nargs="+", default=[30, 100, 280])
    arguments.add_argument("--correlations", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    arguments.add_argument("--processes", type=int, default=2)
    return arguments


def main() -> None:
    """Simulates every number of dialogues and correlation and prints a table for each."""
    arguments = parser().parse_args()
    if min(arguments.draws, arguments.processes) < 1:
        received = f"{arguments.draws} and {arguments.processes}"
        raise UserError(f"Expected `--draws` and `--processes` of at least 1. Received: {received}.")
    for dialogues in arguments.dialogues:
        for correlation in arguments.correlations:
            seeds = range(arguments.draws)
            draws = partial(calibrated_draw, dialogues, correlation)
            _print(f"{dialogues} dialogues, correlation {correlation:g}", draws, PRECISIONS[1:5], seeds, arguments)
            for target in (0.8, 0.95):
                draws = partial(flat_draw, dialogues, correlation, target - 1e-3)
                title = f"{dialogues} dialogues, correlation {correlation:g}, precision {target - 1e-3:.3f} everywhere"
                _print(title, draws, (target,), seeds, arguments)
        for target in (0.8, 0.95):
            draws = partial(clustered_draw, dialogues, target - 1e-3)
            title = f"{dialogues} dialogues, precision {target - 1e-3:.3f}, errors clustered above a confidence of 0.75"
            _print(title, draws, (target,), range(arguments.draws), arguments)


def calibrated_draw(dialogues: int, correlation: float, seed: int) -> Draw:
    """Draws utterances whose logits are calibrated up to a temperature, which is fitted on them."""
    rng = np.random.default_rng(seed)
    dialogue, logits = _logits(rng, dialogues)
    exact = softmax(logits, axis=1)
    predicted, others = logits.argmax(axis=1), rng.integers(1, CLASSES, len(logits))
    correct = _correlated(rng, dialogue, correlation) < exact.max(axis=1)
    label = np.where(correct, predicted, (predicted + others) % CLASSES)
    temperature = fit_temperature(label, PLANTED_TEMPERATURE * logits)
    confidence = softmax(PLANTED_TEMPERATURE * logits / temperature, axis=1).max(axis=1)
    population, accuracy = _population()
    scaled = softmax(PLANTED_TEMPERATURE * population / temperature, axis=1).max(axis=1)
    order = np.argsort(-scaled)
    mean = np.cumsum(accuracy[order]) / np.arange(1, len(order) + 1)

    def precision(threshold: float) -> tuple[float, float]:
        answers = int(np.searchsorted(-scaled[order], -threshold, side="right"))
        return (float(mean[answers - 1]) if answers else 1.0), answers / len(order)

    return Draw(correct, confidence, dialogue, precision)


def flat_draw(dialogues: int, correlation: float, precision: float, seed: int) -> Draw:
    """Draws utterances whose confidence says nothing; the most confident ones come from few dialogues."""
    rng = np.random.default_rng(seed)
    dialogue = _dialogues(rng, dialogues)
    confidence = 0.7 * rng.random(dialogues)[dialogue] + 0.3 * rng.random(len(dialogue))
    correct = _correlated(rng, dialogue, correlation) < precision
    return Draw(correct, confidence, dialogue, lambda threshold: (precision, float(np.mean(confidence >= threshold))))


def clustered_draw(dialogues: int, precision: float, seed: int) -> Draw:
    """Draws utterances whose errors cluster in dialogues only among the confident ones, those above 0.75."""
    rng = np.random.default_rng(seed)
    dialogue = _dialogues(rng, dialogues)
    confidence = rng.uniform(0.5, 1, len(dialogue))
    clustered = _correlated(rng, dialogue, 0.5) < precision
    correct = np.where(confidence > 0.75, clustered, rng.random(len(dialogue)) < 0.5)

    def precision_above(threshold: float) -> tuple[float, float]:
        width, others = min(1 - threshold, 0.5), max(0.75 - max(threshold, 0.5), 0)
        return ((width - others) * precision + others * 0.5) / width if width else precision, 2 * width

    return Draw(correct, confidence, dialogue, precision_above)


def thresholds_of(rule: str, draw: Draw, targets: tuple[float, ...]) -> list[float | None]:
    """Returns the threshold of each target by one of the rules; None where there is none."""
    if rule == "dev":
        curve = risk_coverage(draw.correct, draw.confidence)
        enough = curve.coverage * len(draw.correct) >= MIN_ANSWERED - 1e-9
        reached = [curve.threshold[enough & (1 - curve.risk >= target)] for target in targets]
        return [float(levels[-1]) if len(levels) else None for levels in reached]
    dialogue = draw.dialogue if rule == "promise" else np.arange(len(draw.correct))
    rows = fit_thresholds(draw.correct, draw.confidence, dialogue, np.ones(len(draw.correct)), targets)
    return [row.threshold for row in rows]


def results_of_draw(draws: Callable[[int], Draw], targets: tuple[float, ...], seed: int) -> np.ndarray:
    """Returns precision (nan without a threshold) and coverage in the population, (rules, targets, 2)."""
    draw = draws(seed)
    return np.array(
        [
            [(np.nan, 0.0) if threshold is None else draw.precision(threshold) for threshold in thresholds]
            for thresholds in (thresholds_of(rule, draw, targets) for rule in RULES)
        ]
    )


def simulate(draws: Callable[[int], Draw], targets: tuple[float, ...], seeds: range, processes: int) -> np.ndarray:
    """Returns the results of many draws, (draws, rules, targets, 2)."""
    task = partial(results_of_draw, draws, targets)
    if processes == 1:
        return np.stack([task(seed) for seed in seeds])
    with ProcessPoolExecutor(processes) as pool:
        return np.stack(list(pool.map(task, seeds, chunksize=50)))


def broken_shares(results: np.ndarray, targets: tuple[float, ...]) -> np.ndarray:
    """Returns the share of draws in which a promise is broken, (rules, targets)."""
    return (results[..., 0] < np.array(targets)).mean(axis=0)


def _print(
    title: str, draws: Callable[[int], Draw], targets: tuple[float, ...], seeds: range, arguments: argparse.Namespace
) -> None:
    results = simulate(draws, targets, seeds, arguments.processes)
    shares = broken_shares(results, targets)
    table = Table("target", "rule", "threshold exists", "promise broken", "precision", "coverage", title=title)
    for i, target in enumerate(targets):
        for j, rule in enumerate(RULES):
            precision, coverage = results[:, j, i].T
            exists = np.isfinite(precision)
            mean = f"{precision[exists].mean():.3f}" if exists.any() else ""
            numbers = f"{exists.mean():.3f}", f"{shares[j, i]:.3f}", mean, f"{coverage.mean():.3f}"
            table.add_row(f"{target:g}", rule, *numbers)
    Console(width=100).print(table)


def _dialogues(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns the dialogue of each utterance; lengths from 1 to 30, 9 on average, as in MELD."""
    return np.repeat(np.arange(count), np.clip(1 + rng.negative_binomial(3, 0.25, count), 1, 30))


def _logits(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the dialogue of each utterance, and logits that are calibrated; dialogues differ in difficulty."""
    dialogue = _dialogues(rng, count)
    ease = rng.normal(0, 0.2, count) - 0.15 * np.log(np.bincount(dialogue, minlength=count) / 9)
    return dialogue, 3 * np.exp(ease)[dialogue, None] * rng.normal(0, 1, (len(dialogue), CLASSES))


@cache
def _population() -> tuple[np.ndarray, np.ndarray]:
    """Returns the logits of a large population, and the probability of each prediction to be correct."""
    logits = _logits(np.random.default_rng(2**32), POPULATION)[1]
    return logits, softmax(logits, axis=1).max(axis=1)


def _correlated(rng: np.random.Generator, dialogue: np.ndarray, correlation: float) -> np.ndarray:
    """Draws uniform numbers; `number < p` has the given correlation inside a dialogue for every p.

    A number is that of its dialogue with probability sqrt(correlation).
    """
    shared, own = rng.random(dialogue.max() + 1)[dialogue], rng.random(len(dialogue))
    return np.where(rng.random(len(dialogue)) < np.sqrt(correlation), shared, own)


if __name__ == "__main__":
    run_benchmark(main)
