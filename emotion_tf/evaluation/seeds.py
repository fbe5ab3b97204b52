"""Configurations, each trained with several seeds: mean and interval of one, difference of two."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from emotion_tf.consoles import table_console
from emotion_tf.errors import UserError
from emotion_tf.evaluation import compare
from emotion_tf.evaluation.compare import KEYS, RunResults, TitledTable
from emotion_tf.evaluation.csv_tables import read_csv
from emotion_tf.evaluation.jackknife import LEVEL, Estimate
from emotion_tf.evaluation.results import read_cross_validation, read_metrics
from emotion_tf.evaluation.significance import Difference, crossed_difference, format_bounds, format_p, intervals
from emotion_tf.program import program
from emotion_tf.wording import plural

METRICS = ("weighted_f1", "accuracy", "macro_f1")
MIN_SEEDS = 5
"""Fewer seeds describe; they support no claim."""
SEED = "train.seed"
CROSSVAL = "crossval.json"
OUT_OF_FOLD = "train, out of fold"
SEED_OR_REPEAT = r"(-seed|: repeat )\d+$"
METHOD = (
    "Intervals and the two-sided p-value of the difference come from Student's t over seeds and dialogues, which are "
    "crossed: the variance over dialogues (jackknife) and the variance over each side's seeds add up. The p-value is "
    f"below 0.05 exactly if its interval excludes 0. Fewer than {MIN_SEEDS} seeds on a side support no claim. "
    "Intervals in the table of runs are over dialogues alone."
)
CONFIGURATION_COLUMNS = ("configuration", "seeds", *(f"{name} ± deviation [95 %]" for name in METRICS))
DIFFERENCE_COLUMNS = (
    "first",
    "minus",
    "difference of weighted F1 [95 %]",
    "p",
    "its standard error: dialogues",
    "seeds",
    "claim",
)


@dataclass(frozen=True)
class Configuration:
    """Results of one configuration.

    Attributes:
        name: name of the runs without their seeds, or of the cross-validation.
        runs: results of each seed, or of each repeat of a cross-validation, on the same utterances.
        split: what the results are on.
    """

    name: str
    runs: tuple[RunResults, ...]
    split: str


def is_configuration(path: Path) -> bool:
    """Returns whether a path names several runs: a cross-validation, or `NAME` of NAME-seed0, NAME-seed1, ..."""
    return os.path.isfile(path / CROSSVAL) or (not os.path.exists(path) and bool(_seed_folders(path)))


def _seed_folders(path: Path) -> list[Path]:
    """Returns PATH-seed0, PATH-seed1, ... as far as they exist."""
    folders = [p for p in path.parent.glob("*-seed*") if re.fullmatch(re.escape(path.name) + r"-seed\d+", p.name)]
    return sorted(folders, key=lambda p: int(p.name.rpartition("seed")[2]))


def unused_seeds(paths: Sequence[Path]) -> list[str]:
    """Returns the names of runs that differ from those of these only by the seed and are not among them."""
    names = {p.name for path in paths for p in ([path] if os.path.exists(path) else _seed_folders(path))}
    stems = {path.with_name(re.sub(r"-seed\d+$", "", path.name)) for path in paths}
    return sorted(p.name for stem in stems for p in _seed_folders(stem) if p.name not in names)


def read_configuration(paths: Sequence[Path], split: str | None = None, data: Path | None = None) -> Configuration:
    """Reads the runs of one configuration, on test unless another split is given, or a cross-validation.

    Raises:
        UserError: there is no run, the runs are not those of one configuration with different seeds, or they have no
            results on the split.
    """
    if not paths:
        raise UserError(f"Expected runs on both sides of --with: {program()} compare RUN ... --with RUN ...")
    for path in paths:
        if os.path.isfile(path.parent / CROSSVAL):
            raise UserError(f"{path} is a fold of a cross-validation. Expected the whole of it: {path.parent}")
    if any(os.path.isfile(path / CROSSVAL) for path in paths):
        if len(paths) > 1:
            raise UserError(f"Expected one cross-validation on a side, or runs. Received: {' '.join(map(str, paths))}.")
        if data is not None or split is not None:
            raise UserError(
                f"{paths[0]} is a cross-validation, whose predictions are out of fold, of its own data set. Received: "
                f"{f'--data {data}' if data is not None else f'--split {split}'}. Omit it."
            )
        runs = _read_repeats(paths[0])
        return _checked(Configuration(paths[0].name, tuple(runs), OUT_OF_FOLD))
    folders = [
        folder for path in paths for folder in ([path] if os.path.exists(path) else _seed_folders(path) or [path])
    ]
    split = split or "test"
    runs = [compare.read_run(folder, split, data) for folder in folders]
    return _checked(Configuration(re.sub(r"-seed\d+$", "", runs[0].name), tuple(runs), split))


def _checked(configuration: Configuration) -> Configuration:
    """Returns the configuration. Raises UserError unless its runs differ by their seeds alone."""
    runs, names = configuration.runs, " ".join(run.name for run in configuration.runs)
    if without_seed := [run.name for run in runs if SEED not in run.options]:
        raise UserError(f"{without_seed[0]} is an ensemble, which has no seed. Expected runs of one configuration.")
    if len(runs) < 2 and configuration.split == OUT_OF_FOLD:
        raise UserError(
            f"Expected two or more repeats of a cross-validation, five for a claim. Received: {names}. Rerun "
            "`crossval` with --repeats 5, and another --name or --overwrite."
        )
    if len(runs) < 2:
        raise UserError(
            f"Expected two or more seeds on each side of --with, five for a claim. Received: {names}. To compare two "
            f"runs: {program()} compare RUN RUN"
        )
    options = {name: values for name, values in compare.differing_options(runs).items() if name != SEED}
    if differing := [name for name, values in options.items() if len({_without_seed(v) for v in values}) > 1]:
        raise UserError(
            f"Expected runs of one configuration on a side of --with, with different seeds. Received: {names}, which "
            f"differ in {', '.join(differing)}."
        )
    seeds = [run.options[SEED] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"Expected different seeds on a side of --with. Received: {names}, with seeds {seeds}.")
    return configuration


def _without_seed(value: str) -> str:
    """Returns the value of an option for any seed: a tower may start from a run of the same seed."""
    return re.sub(r"seed\d+", "seed", value)


def _read_repeats(path: Path) -> list[RunResults]:
    """Reads the out-of-fold results of each repeat of a cross-validation."""
    if not (path / "metrics.json").exists():
        raise UserError(f"{path} is no finished cross-validation. Rerun its `crossval`.")
    numbers = read_cross_validation(path)
    if "smoke" in numbers:
        raise UserError(f"{path} is a smoke run, on {numbers['smoke']}. Expected a cross-validation without --smoke.")
    try:
        options, order = compare.read_options(path), read_csv(path / "oof.csv")[list(KEYS)]
        tables = [
            pd.concat([read_csv(file) for file in sorted(path.glob(f"repeat{repeat}-fold*/held_out.csv"))])
            for repeat in range(len(numbers["pooled"]))
        ]
        tables = [order.merge(table, on=list(KEYS), how="left", validate="one_to_one") for table in tables]
        if any(len(table) != len(order) or table["predicted"].isna().any() for table in tables):
            raise ValueError("out-of-fold predictions are missing")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is no finished cross-validation ({type(error).__name__}: {error}). Rerun its `crossval`."
        ) from None
    about = {"command": numbers["command"], "data": numbers["data"]}
    return [
        RunResults(
            f"{path.name}: repeat {repeat}",
            {**options, SEED: options[SEED] + repeat},
            {**numbers["pooled"][repeat], **about},
            table,
            None,
            None,
            path,
        )
        for repeat, table in enumerate(tables)
    ]


def distinguish(first: Configuration, second: Configuration) -> tuple[Configuration, Configuration]:
    """Returns the configurations. Runs that share a name, and with them the two sides, are named by their paths."""
    runs = compare.distinguish([*first.runs, *second.runs])
    sides = [
        dataclasses.replace(side, name=re.sub(SEED_OR_REPEAT, "", part[0].name), runs=tuple(part))
        for side, part in ((first, runs[: len(first.runs)]), (second, runs[len(first.runs) :]))
    ]
    return sides[0], sides[1]


def compare_configurations(first: Configuration, second: Configuration) -> tuple[Difference, Estimate]:
    """Tests the difference of weighted F1 of two configurations over seeds and dialogues.

    Raises:
        UserError: a run is on both sides, or the utterances differ.
    """
    if first.split != second.split:
        raise UserError(
            f"Expected two cross-validations, or runs on both sides of --with. Received: results of {first.name} on "
            f"{first.split}, of {second.name} on {second.split}."
        )
    folders = {run.path.resolve() for run in first.runs if run.path}
    if common := [run.name for run in second.runs if run.path and run.path.resolve() in folders]:
        raise UserError(f"Expected different runs on the two sides of --with. Received on both: {min(common)}.")
    runs = compare.distinguish([*first.runs, *second.runs])
    compare.check_same_utterances({run.name: run.table for run in runs})
    label, *predicted, group, weight = compare.encode(*runs)
    sides = np.stack(predicted[: len(first.runs)]), np.stack(predicted[len(first.runs) :])
    return crossed_difference(label, *sides, group, weight)


def tables(first: Configuration, second: Configuration, difference: Difference, parts: Estimate) -> list[TitledTable]:
    """Returns four tables: runs, options that differ, configurations, difference."""
    representatives = [dataclasses.replace(side.runs[0], name=side.name) for side in (first, second)]
    options = {
        name: [_without_seed(value) for value in values]
        for name, values in compare.differing_options(representatives).items()
        if name != SEED
    }
    cells = [
        first.name,
        second.name,
        f"{difference.difference:+.4f} {format_bounds((difference.low, difference.high), '+')}",
        format_p(difference.two_sided) if _supports_claim(first, second) else "-",
        *(f"{np.sqrt(variance):.4f}" for variance in (parts.dialogues, parts.seeds)),
        claim(first, second, difference),
    ]
    return [
        ("Runs", compare.RUN_COLUMNS, compare.rows([*first.runs, *second.runs])),
        (
            "Options that differ",
            ("option", first.name, second.name),
            [[name, *values] for name, values in options.items() if len({*values}) > 1],
        ),
        ("Configurations, over seeds and dialogues", CONFIGURATION_COLUMNS, [_row(first), _row(second)]),
        ("Difference, over seeds and dialogues", DIFFERENCE_COLUMNS, [cells]),
    ]


def _supports_claim(*configurations: Configuration) -> bool:
    return min(len(configuration.runs) for configuration in configurations) >= MIN_SEEDS


def claim(first: Configuration, second: Configuration, difference: Difference) -> str:
    """Returns what a difference supports, in words."""
    if not _supports_claim(first, second):
        return f"none: fewer than {MIN_SEEDS} seeds on a side are descriptive"
    if not np.isfinite(difference.low):
        return "none: too few dialogues"
    if difference.two_sided >= LEVEL:
        return "none: not different from 0"
    better, other = (first, second) if difference.difference > 0 else (second, first)
    return f"{better.name} is better than {other.name}"


def _row(configuration: Configuration) -> list[str]:
    return [configuration.name, str(len(configuration.runs)), *_means(configuration.runs)]


def _means(runs: Sequence[RunResults]) -> list[str]:
    """Returns mean, standard deviation over the seeds, and 95 % interval over seeds and dialogues, of each metric."""
    label, *predicted, group, weight = compare.encode(*runs)
    bounds, cells = intervals(label, np.stack(predicted), group, weight), []
    for name in METRICS:
        values = [float(run.metrics[name]) for run in runs]
        cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} {format_bounds(bounds[name])}")
    return cells


def print_seeds(paths: Sequence[Path]) -> None:
    """Prints a table for each split: the metrics of each run, and their mean over seeds and dialogues."""
    console = table_console(140)
    for split in ("dev", "test"):
        if not all(split in read_metrics(path) for path in paths):
            continue
        runs = [compare.read_run(path, split) for path in paths]
        note = "" if len(runs) >= MIN_SEEDS else f"; descriptive: a claim needs {MIN_SEEDS}"
        table = Table("run", *METRICS, title=f"{split}, {plural(len(runs), 'seed')}{note}", title_justify="left")
        for run in runs:
            table.add_row(run.name, *(f"{run.metrics[name]:.4f}" for name in METRICS))
        table.add_row("mean ± deviation [95 %, seeds and dialogues]", *_means(runs))
        floor = runs[0].metrics["majority_floor"]
        table.add_row(f"always {floor['label']}", *(f"{floor[name]:.4f}" if name in floor else "" for name in METRICS))
        console.print(table)
