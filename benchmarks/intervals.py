"""Error of every printed interval and p-value: `python -m benchmarks.intervals [--trials 2000] [--only seeds]`.

Simulates predictions of dialogues that differ in length, difficulty and classes. Prints how often a 95 % interval
misses the value of the population, or a p-value of two models of equal quality is below 0.05. The bound is 0.10 for 10
dialogues and 0.07 from 30 on; `!` marks a number beyond it. A number below 0.05 is conservative.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import make_parser, run_benchmark
from emotion_tf.errors import UserError
from emotion_tf.evaluation.jackknife import Estimate, accuracy, estimate, f1_of, macro_f1, score_interval, weighted_f1
from emotion_tf.evaluation.significance import (
    MIN_ROWS,
    accuracy_interval,
    holm,
    paired_bootstrap,
    student_t,
)
from emotion_tf.evaluation.temperature import fit_temperature

DIALOGUES = (10, 30, 100)
SEEDS = (2, 3, 5, 10)
CLASSES = 4
MIX = np.array([0.5, 0.25, 0.17, 0.08])
RESAMPLES = 1000
POPULATION = 100_000
"""Dialogues that the value of the population is computed from."""
BATCH = 100
"""Trials at a time."""


class World(NamedTuple):
    """A population of dialogues.

    Attributes:
        name: its name.
        length: mean number of utterances of a dialogue.
        skill: parameters of the beta distribution of a dialogue's share of correct predictions.
    """

    name: str
    length: float
    skill: tuple[float, float]


WORLDS = (
    World("usual", 8, (3.5, 1.5)),
    World("short", 3, (3.5, 1.5)),
    World("long", 20, (3.5, 1.5)),
    World("accurate", 8, (19, 1)),
)


class Sample(NamedTuple):
    """Utterances of many trials, in order: label (N,), dialogue (N,) numbered over all trials, log odds (N,)."""

    label: np.ndarray
    dialogue: np.ndarray
    odds: np.ndarray


class Row(NamedTuple):
    """Error of one interval or p-value: what it is, in which world, number of dialogues, share, number of trials."""

    name: str
    world: str
    dialogues: int
    error: float
    trials: int


def draw(rng: np.random.Generator, world: World, dialogues: int) -> Sample:
    """Draws dialogues with their labels and the log odds of a correct prediction."""
    length = 1 + rng.negative_binomial(2, 2 / (1 + world.length), dialogues)
    dialogue = np.repeat(np.arange(dialogues), length)
    mix, skill = rng.dirichlet(4 * MIX, dialogues), rng.beta(*world.skill, dialogues)
    label = (rng.random((len(dialogue), 1)) > mix.cumsum(axis=1)[dialogue]).sum(axis=1).clip(max=CLASSES - 1)
    return Sample(label, dialogue, np.log(skill / (1 - skill))[dialogue])


def predict(rng: np.random.Generator, sample: Sample, effect: np.ndarray | float = 0.0, own: float = 0.8) -> np.ndarray:
    """Returns predictions (N,) of a model: `effect` changes the log odds, `own` is its deviation on each dialogue."""
    deviation = rng.normal(0, own, sample.dialogue[-1] + 1)[sample.dialogue]
    right = rng.random(len(sample.label)) < 1 / (1 + np.exp(-(sample.odds + deviation + effect)))
    return np.where(right, sample.label, (sample.label + rng.integers(1, CLASSES, len(right))) % CLASSES)


def count(sample: Sample, predicted: np.ndarray) -> np.ndarray:
    """Returns counts of true positives, predictions and labels in each dialogue, (dialogues, 3, C)."""
    cells, hit = (sample.dialogue[-1] + 1) * CLASSES, sample.label == predicted
    columns = ((sample.label, hit), (predicted, np.ones(len(hit))), (sample.label, np.ones(len(hit))))
    counts = [np.bincount(sample.dialogue * CLASSES + v, w, cells).reshape(-1, CLASSES) for v, w in columns]
    return np.stack(counts, axis=1)


def scores(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """Intervals of scores of one run: `evaluate`, `compare`, `crossval`, the report with its classes and slices."""
    for world in (*WORLDS, World("slices", 2, (3.5, 1.5))):
        population = draw(rng, world, POPULATION)
        total = count(population, predict(rng, population)).sum(axis=0)
        for dialogues in DIALOGUES:
            sample = draw(rng, world, trials * dialogues)
            counts = count(sample, predict(rng, sample)).reshape(trials, 1, dialogues, 3, CLASSES)
            occurrences, rows = counts[:, 0, :, 1] + counts[:, 0, :, 2], counts[:, 0, :, 2].sum(axis=1)
            size = counts[:, 0, :, 2].sum(axis=-1)
            for name, statistic, sizes, enough in (
                ("accuracy", accuracy, size, size.sum(axis=1) >= MIN_ROWS),
                ("weighted F1", weighted_f1, size, size.sum(axis=1) >= MIN_ROWS),
                ("macro F1", macro_f1, size, rows.min(axis=1) >= MIN_ROWS),
                *((f"F1 of class {i}", f1_of(i), occurrences[..., i], rows[:, i] >= MIN_ROWS) for i in range(CLASSES)),
            ):
                low, high = score_interval(estimate(statistic, sizes, counts))
                misses = (low > statistic(total)) | (high < statistic(total))
                # the few trials of a rare class that reach 20 utterances are no sample of the population
                if enough.mean() > 0.25:
                    yield Row(name, world.name, dialogues, float(misses[enough].mean()), int(enough.sum()))


def precision(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """Intervals of the precision above a threshold; dev determines temperature and threshold, as in use."""

    def outputs(sample: Sample) -> np.ndarray:
        noise = rng.normal(0, 1, (len(sample.label), CLASSES))
        return 2 * (noise + np.eye(CLASSES)[sample.label] * (1 + sample.odds[:, None]))

    def confidence(logits: np.ndarray, temperature: float) -> np.ndarray:
        shifted = logits - logits.max(axis=1, keepdims=True)
        return 1 / np.exp(shifted / temperature).sum(axis=1)

    world = WORLDS[0]
    population = draw(rng, world, POPULATION // 20)
    all_logits = outputs(population)
    all_correct = all_logits.argmax(axis=1) == population.label
    for dialogues in DIALOGUES:
        misses = []
        for _ in range(trials):
            dev, test = draw(rng, world, dialogues), draw(rng, world, dialogues)
            dev_logits, logits = outputs(dev), outputs(test)
            temperature = fit_temperature(dev.label, dev_logits)
            threshold = np.median(confidence(dev_logits, temperature))
            answered = confidence(logits, temperature) >= threshold
            correct = logits.argmax(axis=1) == test.label
            bounds = accuracy_interval(correct[answered], test.dialogue[answered]) if answered.any() else None
            if bounds:
                truth = all_correct[confidence(all_logits, temperature) >= threshold].mean()
                misses.append(not bounds[0] <= truth <= bounds[1])
        yield Row("precision above a threshold", world.name, dialogues, float(np.mean(misses)), len(misses))


def pairs(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """p-values of two runs (`compare`, `ensemble`): of all utterances, or a share of them, the predictions are new."""
    for world, share, dialogues in itertools.product(WORLDS, (1.0, 0.2, 0.03), DIALOGUES):
        p_values = []
        for _ in range(trials):
            sample = draw(rng, world, dialogues)
            base, changes = predict(rng, sample), rng.random(len(sample.label)) < share
            first, second = (np.where(changes, predict(rng, sample), base) for _ in range(2))
            p_values.append(paired_bootstrap(sample.label, first, second, sample.dialogue, RESAMPLES).two_sided)
        yield Row(
            f"p of two runs, {share:.0%} new", world.name, dialogues, float(np.mean(np.array(p_values) < 0.05)), trials
        )


def families(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """Any adjusted p-value of all pairs of three runs, and a modality's p-value: the larger of two losses."""
    world = WORLDS[0]
    for dialogues in DIALOGUES:
        findings, modality_findings = [], []
        for _ in range(trials):
            sample = draw(rng, world, dialogues)
            label, group = sample.label, sample.dialogue
            runs = [predict(rng, sample) for _ in range(3)]
            tests = [paired_bootstrap(label, a, b, group, RESAMPLES) for a, b in itertools.combinations(runs, 2)]
            findings.append(min(holm([test.two_sided for test in tests])) < 0.05)
            exchanged = np.stack([predict(rng, sample) for _ in range(3)])
            losses = [tests[0], paired_bootstrap(label, runs[0], exchanged, group, RESAMPLES)]
            modality_findings.append(2 * max(loss.p_value for loss in losses) < 0.05)
        yield Row("any p (Holm) of three runs", world.name, dialogues, float(np.mean(findings)), trials)
        error = float(np.mean(modality_findings))
        yield Row("p of a modality that does not help", world.name, dialogues, error, trials)


def seeds(rng: np.random.Generator, trials: int) -> Iterator[Row]:
    """`compare --with` and the mean of `train --seeds`: seeds and dialogues are drawn, a seed is good or bad luck."""
    for (world, luck), number, dialogues in itertools.product(
        ((WORLDS[0], 0.05), (WORLDS[0], 0.4), (WORLDS[3], 0.4)), SEEDS, DIALOGUES
    ):
        population = draw(rng, world, POPULATION)
        effect = rng.normal(0, luck, POPULATION)[population.dialogue]  # each dialogue has a seed of its own
        truth = weighted_f1(count(population, predict(rng, population, effect)).sum(axis=0))
        findings, misses = [], []
        for _ in range(0, trials, BATCH):
            sample = draw(rng, world, BATCH * dialogues)
            shape = (BATCH, 1, dialogues, 3, CLASSES)
            sides = [
                np.concatenate(
                    [
                        count(
                            sample, predict(rng, sample, rng.normal(0, luck, BATCH)[sample.dialogue // dialogues])
                        ).reshape(shape)
                        for _ in range(number)
                    ],
                    axis=1,
                )
                for _ in range(2)
            ]
            size = sides[0][:, 0, :, 2].sum(axis=-1)
            difference = estimate(weighted_f1, size, *sides)
            tests = [student_t(Estimate(*(field[i] for field in difference))) for i in range(BATCH)]
            findings += [test.two_sided < 0.05 for test in tests]
            low, high = score_interval(estimate(weighted_f1, size, sides[0]))
            misses += [*((low > truth) | (high < truth))]
        name = f"{world.name}, deviation {luck:g}"
        yield Row(f"p of two configurations, {number} seeds", name, dialogues, float(np.mean(findings)), len(findings))
        yield Row(f"weighted F1, mean of {number} seeds", name, dialogues, float(np.mean(misses)), len(misses))


SECTIONS: dict[str, Callable[[np.random.Generator, int], Iterator[Row]]] = {
    "scores": scores,
    "precision": precision,
    "pairs": pairs,
    "families": families,
    "seeds": seeds,
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("--trials", type=int, default=2000)
    arguments.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    return arguments


def bound(dialogues: int) -> float:
    """Returns the largest error that is allowed."""
    return 0.07 if dialogues >= 30 else 0.10


def main() -> None:
    """Simulates each section and prints its table."""
    arguments = parser().parse_args()
    if arguments.trials < 1:
        raise UserError(f"Expected `--trials` of at least 1. Received: {arguments.trials}.")
    console = Console(width=120)
    for name in arguments.only:
        rows = list(SECTIONS[name](np.random.default_rng(0), arguments.trials))
        table = Table("", "world", *(f"{n} dialogues" for n in DIALOGUES), title=f"{name}, {arguments.trials} trials")
        for what, world in dict.fromkeys(row[:2] for row in rows):
            cells = {row.dialogues: row for row in rows if row[:2] == (what, world)}
            table.add_row(what, world, *(_cell(cells.get(n), arguments.trials) for n in DIALOGUES))
        console.print(table)


def _cell(row: Row | None, trials: int) -> str:
    if row is None:
        return "too few"
    few = f" ({row.trials})" if row.trials < trials else ""
    return f"{row.error:.3f}{' !' if row.error > bound(row.dialogues) else ''}{few}"


if __name__ == "__main__":
    run_benchmark(main)
