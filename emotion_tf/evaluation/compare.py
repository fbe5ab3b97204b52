"""Comparison of runs on the same utterances: options that differ, metrics with intervals, significance."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from emotion_tf import documents, files, run_info
from emotion_tf.config import read_config
from emotion_tf.consoles import table_console
from emotion_tf.errors import UserError
from emotion_tf.evaluation.csv_tables import read_csv, read_history
from emotion_tf.evaluation.results import REPAIR, read_metrics
from emotion_tf.evaluation.significance import Difference, format_bounds, format_p, holm, intervals, paired_bootstrap
from emotion_tf.evaluation.vote import read_ensemble_info
from emotion_tf.folders import ENSEMBLE, ENSEMBLE_KIND, RUN, missing_run, other_results
from emotion_tf.program import program
from emotion_tf.run_info import read_run_info

METHOD = (
    "Intervals and two-sided p-values of differences come from a bootstrap over dialogues with 10,000 resamples, those "
    "of single runs from a jackknife over dialogues. A p-value is below 0.05 exactly if its interval excludes 0. "
    "Holm's method (1979) adjusts the p-values for the number of pairs."
)
KEYS = ("dialogue_id", "utterance_id", "emotion")
MAX_WEIGHT = 1e9


@dataclass(frozen=True)
class RunResults:
    """Results of a run, or of an ensemble, on a split.

    Attributes:
        name: name of the run.
        options: flat configuration, such as `train.seed` -> value.
        metrics: metrics of the split, as `evaluate` writes them.
        table: predictions (N rows), as `evaluate` writes them.
        seconds: duration of the training; None if unknown.
        parameters: number of parameters of the model; None if unknown.
        path: its folder; None for an ensemble that is not written yet.
    """

    name: str
    options: dict[str, Any]
    metrics: dict[str, Any]
    table: pd.DataFrame
    seconds: float | None
    parameters: int | None
    path: Path | None = None


@dataclass(frozen=True)
class Pair:
    """Comparison of two runs, the better one first.

    Attributes:
        better, other: names of the runs.
        f1: difference of weighted F1.
        only_better, only_other: number of utterances that only this run predicts correctly.
        adjusted: p-value of `f1`, adjusted for the number of pairs (Holm 1979).
    """

    better: str
    other: str
    f1: Difference
    only_better: int
    only_other: int
    adjusted: float


def read_run(path: Path, split: str, data: Path | None = None) -> RunResults:
    """Reads the results of a run on its own data set, or on `data`.

    Raises:
        UserError: the run does not exist, or was not evaluated on the split.
    """
    for kind in (RUN, ENSEMBLE_KIND):
        files.restore_missing(path, kind)
    if not os.path.isdir(path):  # unlike `Path.is_dir`, without an error for a folder that may not be entered
        raise missing_run(path)
    folder = path if data is None else other_results(path, data)
    predictions = folder / f"predictions_{split}.csv"
    results = {} if documents.is_missing(folder / "metrics.json") else read_metrics(folder)
    if split not in results or not os.path.exists(predictions):
        raise UserError(
            f"{path} has no results on {split}. Evaluate it: {program()} evaluate {path} --split {split}"
            + (f" --data {data}" if data else "")
        )
    if "smoke" in results[split]:
        raise UserError(
            f"{path} is a smoke run, evaluated on {results[split]['smoke']}. Expected results on all of {split}. "
            f"Evaluate it: {program()} evaluate {path} --split {split}"
        )
    options = read_options(path)
    try:
        table = read_csv(predictions)
        _ = table[[*KEYS, "predicted"]]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"Cannot read {predictions}: {' '.join(str(error).split())[:150]}. {REPAIR}") from None
    metrics: dict[str, Any] = {**results[split]}
    return RunResults(path.name, options, metrics, table, _seconds(path), _parameters(path), path)


def distinguish(runs: Sequence[RunResults]) -> list[RunResults]:
    """Returns the runs. Runs of the same name in different folders are named by their paths."""
    folders = {(run.name, run.path and run.path.resolve()) for run in runs}
    counts = Counter(name for name, _ in folders)
    return [
        dataclasses.replace(run, name=os.path.relpath(run.path.resolve()) + run.name.removeprefix(run.path.name))
        if counts[run.name] > 1 and run.path
        else run
        for run in runs
    ]


def read_options(path: Path) -> dict[str, Any]:
    """Returns the flat configuration of a run, or members and method of an ensemble."""
    if os.path.isfile(path / ENSEMBLE):
        info = read_ensemble_info(path)
        return {"ensemble.members": [member.name for member in info.members], "ensemble.method": info.vote.method}
    return _flat(dataclasses.asdict(read_config(path / "config.json")))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _seconds(path: Path) -> float | None:
    history = path / "history.csv"
    return float(read_history(history, ["seconds"])["seconds"].sum()) if history.exists() else None


def _parameters(path: Path) -> int | None:
    if os.path.isfile(path / ENSEMBLE):
        return read_ensemble_info(path).parameters
    return read_run_info(path).parameters if (path / run_info.FILE).exists() else None


def compare(runs: Sequence[RunResults], reference: str = "") -> list[Pair]:
    """Compares every pair of runs, or the run named `reference` with each other run; p-values are two-sided.

    Raises:
        UserError: there are fewer than two runs, two have the same name, or their utterances differ.
    """
    names = [run.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UserError(f"Expected two or more different runs. Received: {', '.join(names) or 'none'}.")
    check_same_utterances({run.name: run.table for run in runs})
    pairs = [pair for pair in itertools.combinations(runs, 2) if reference in ("", *(run.name for run in pair))]
    differences = [_pair(*sorted(pair, key=_weighted_f1, reverse=True)) for pair in pairs]
    adjusted = holm([f1.two_sided for _, _, f1, _ in differences])
    return [
        Pair(better.name, other.name, f1, *counts, p)
        for (better, other, f1, counts), p in zip(differences, adjusted, strict=True)
    ]


def _weighted_f1(run: RunResults) -> float:
    return float(run.metrics["weighted_f1"])


def check_same_utterances(tables: Mapping[str, pd.DataFrame]) -> None:
    """Raises UserError if the utterances of the predictions (name -> table) differ from those of the first."""
    (first, table), *others = tables.items()
    for name, other in others:
        a, b = table[list(KEYS)], other[list(KEYS)]
        if len(a) != len(b):
            raise UserError(
                f"{name} and {first} predict other utterances: {len(b)} and {len(a)} of them. Expected the same "
                "data set and split."
            )
        differs = (a.to_numpy() != b.to_numpy()).any(axis=1)
        if differs.any():
            row = int(np.flatnonzero(differs)[0])
            raise UserError(
                f"{name} and {first} predict other utterances: row {row + 1} is {tuple(b.iloc[row])} and "
                f"{tuple(a.iloc[row])}. Expected the same data set and split."
            )


def row_weights(name: str, table: pd.DataFrame) -> np.ndarray:
    """Returns the weights of the utterances, float (N,). Raises UserError if they are invalid."""
    weights = pd.to_numeric(table.get("weight", pd.Series(1.0, index=table.index)), errors="coerce").to_numpy(float)
    rule = f"{name}: Invalid column `weight`. Expected numbers from 0 to {MAX_WEIGHT:g}, some of them positive."
    invalid = np.flatnonzero(~((weights >= 0) & (weights <= MAX_WEIGHT)))
    if len(invalid):
        raise UserError(f"{rule} Received: {table['weight'].iloc[invalid[0]]!r} in row {invalid[0] + 1}.")
    if not weights.any():
        raise UserError(f"{rule} Received: only zeros.")
    return weights


def encode(*runs: RunResults) -> tuple[np.ndarray, ...]:
    """Returns true classes and the predictions of each run as integers, then the dialogues and the weights."""
    columns = [runs[0].table["emotion"], *(run.table["predicted"] for run in runs)]
    names = sorted(set().union(*columns))
    numbers = [np.array([names.index(x) for x in column]) for column in columns]
    return *numbers, runs[0].table["dialogue_id"].to_numpy(), row_weights(runs[0].name, runs[0].table)


def _pair(better: RunResults, other: RunResults) -> tuple[RunResults, RunResults, Difference, tuple[int, int]]:
    label, first, second, group, weight = encode(better, other)
    f1 = paired_bootstrap(label, first, second, group, weight=weight)
    correct = first == label, second == label
    return better, other, f1, (int(np.sum(correct[0] & ~correct[1])), int(np.sum(correct[1] & ~correct[0])))


def with_intervals(run: RunResults) -> RunResults:
    """Adds the 95 % intervals of the metrics, as `evaluate` writes them."""
    label, predicted, group, weight = encode(run)
    bounds = intervals(label, predicted, group, weight)
    return dataclasses.replace(run, metrics={**run.metrics, "intervals": bounds})


def differing_options(runs: Sequence[RunResults]) -> dict[str, list[str]]:
    """Returns the options in which the runs differ, with the value of each run; `-` if it has no such option."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    columns = {name: [_format(run.options.get(name, "-")) for run in runs] for name in names}
    return {
        name: values
        for name, values in columns.items()
        if len({*values} - {"-"}) > 1 or (name.startswith("ensemble.") and len({*values}) > 1)
    }


def _format(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def rows(runs: Sequence[RunResults]) -> list[list[str]]:
    """Returns a row for each run, as `RUN_COLUMNS` names it, then one for the majority floor."""
    lines = []
    for run in runs:
        label, predicted, group, weight = encode(run)
        bounds = intervals(label, predicted, group, weight)
        scores = [f"{run.metrics[name]:.4f} {format_bounds(bounds[name])}" for name in ("weighted_f1", "accuracy")]
        time = "-" if run.seconds is None else f"{run.seconds / 60:.1f}"
        size = "-" if run.parameters is None else f"{run.parameters:,}"
        lines.append([run.name, *scores, f"{run.metrics['macro_f1']:.4f}", time, size])
    floor = runs[0].metrics["majority_floor"]
    lines.append([f"always {floor['label']}", f"{floor['weighted_f1']:.4f}", f"{floor['accuracy']:.4f}", "", "", ""])
    return lines


TitledTable = tuple[str, Sequence[str], Sequence[Sequence[str]]]
PROVENANCE_COLUMNS = ("run", "data", "seed", "command")
RUN_COLUMNS = ("run", "weighted F1 [95 %]", "accuracy [95 %]", "macro F1", "minutes", "parameters")
PAIR_COLUMNS = (
    "better",
    "other",
    "difference of weighted F1 [95 %]",
    "p",
    "p (Holm)",
    "only better correct",
    "only other correct",
)


def pair_rows(pairs: Sequence[Pair]) -> list[list[str]]:
    """Returns a row for each pair, as `PAIR_COLUMNS` names it."""
    return [
        [
            pair.better,
            pair.other,
            f"{pair.f1.difference:+.4f} {format_bounds((pair.f1.low, pair.f1.high), '+')}",
            format_p(pair.f1.two_sided),
            format_p(pair.adjusted),
            str(pair.only_better),
            str(pair.only_other),
        ]
        for pair in pairs
    ]


def tables(runs: Sequence[RunResults], pairs: Sequence[Pair]) -> list[TitledTable]:
    """Returns title, columns and rows of three tables: runs, options that differ, differences."""
    options = [[name, *values] for name, values in differing_options(runs).items()]
    return [
        ("Runs", RUN_COLUMNS, rows(runs)),
        ("Options that differ", ("option", *(run.name for run in runs)), options),
        ("Differences", PAIR_COLUMNS, pair_rows(pairs)),
    ]


def provenance_rows(runs: Sequence[RunResults]) -> list[list[str]]:
    """Returns a row for each run, as `PROVENANCE_COLUMNS` names it."""
    return [[run.name, *(_format(run.metrics.get(name, "-")) for name in PROVENANCE_COLUMNS[1:])] for run in runs]


def print_tables(tables: Sequence[TitledTable]) -> None:
    """Prints tables, as `tables` returns them."""
    console = table_console(180)
    for title, columns, lines in tables:
        table = Table(*columns, title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        console.print(table)
