"""Runs side by side on the same utterances: what differs in them, their metrics with intervals, what is chance."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.evaluation import pages
from emotion_tf.evaluation.significance import Difference, holm, intervals, mcnemar, paired_bootstrap
from emotion_tf.folders import ENSEMBLE, other_results
from emotion_tf.program import program

SAME = ("dialogue_id", "utterance_id", "emotion")


@dataclass(frozen=True)
class Compared:
    """One run on a split.

    Attributes:
        name: of the run.
        options: flat configuration, `train.seed` -> value.
        metrics: of the split, as `evaluate` wrote them.
        table: predictions (N rows), as `evaluate` wrote them.
        seconds: that training took; None when it is not known.
        parameters: of the model; None when it is not known.
    """

    name: str
    options: dict[str, Any]
    metrics: dict[str, Any]
    table: pd.DataFrame
    seconds: float | None
    parameters: int | None


@dataclass(frozen=True)
class Pair:
    """Two runs, the better one first.

    Attributes:
        f1: difference of weighted F1.
        only_better, only_other: utterances that one alone has right; `mcnemar` is the p-value of their difference.
        adjusted: p-value of `f1` when all pairs are looked at together (Holm 1979).
    """

    better: str
    other: str
    f1: Difference
    only_better: int
    only_other: int
    mcnemar: float
    adjusted: float


def read_run(path: Path, split: str, data: Path | None = None) -> Compared:
    """Reads what training and evaluation left of a run, on its own data set or on another one.

    Raises:
        UserError: no such run, or it was not evaluated on that split.
    """
    if not path.is_dir():
        raise UserError(f"No run at {path}. Expected a folder that `train` made; see: {program()} runs")
    there = path if data is None else other_results(path, data)
    try:
        options = _options(path)
        metrics = json.loads((there / "metrics.json").read_text(encoding="utf-8"))[split]
        table = pd.read_csv(there / f"predictions_{split}.csv", dtype=str, keep_default_na=False)
        _ = table[[*SAME, "predicted"]]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} has no results on {split} ({type(error).__name__}: {error}). Expected a run in saved_models/ that "
            f"was evaluated: {program()} evaluate {path} --split {split}{f' --data {data}' if data else ''}"
        ) from None
    return Compared(path.name, options, metrics, table, _seconds(path), _parameters(path))


def _options(path: Path) -> dict[str, Any]:
    if (path / ENSEMBLE).is_file():
        about = json.loads((path / ENSEMBLE).read_text(encoding="utf-8"))
        members = [member["name"] for member in about["members"]]
        return {"ensemble.members": members, "ensemble.method": about["vote"]["method"]}
    # an option that a run of before does not know had what is now the default
    return _flat(dataclasses.asdict(Config())) | _flat(json.loads((path / "config.json").read_text(encoding="utf-8")))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _seconds(path: Path) -> float | None:
    try:
        return float(pd.read_csv(path / "history.csv")["seconds"].sum())
    except (OSError, ValueError, KeyError):
        return None


def _parameters(path: Path) -> int | None:
    about = path / ENSEMBLE if (path / ENSEMBLE).is_file() else path / "run.json"
    try:
        return int(json.loads(about.read_text(encoding="utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compare(runs: Sequence[Compared], one: str = "") -> list[Pair]:
    """Every pair of runs, or of the one of that name with each other; p-values are two-sided.

    Raises:
        UserError: fewer than two runs, two of one name, or predictions of other utterances.
    """
    names = [run.name for run in runs]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UserError(f"Expected two or more different runs. Received: {', '.join(names)}.")
    check_same({run.name: run.table for run in runs})
    pairs = [pair for pair in itertools.combinations(runs, 2) if one in ("", *(run.name for run in pair))]
    found = [_pair(*sorted(pair, key=_score, reverse=True)) for pair in pairs]
    adjusted = holm([f1.two_sided for _, _, f1, _ in found])
    return [
        Pair(better.name, other.name, f1, *counts, p)
        for (better, other, f1, counts), p in zip(found, adjusted, strict=True)
    ]


def _score(run: Compared) -> float:
    return float(run.metrics["weighted_f1"])


def check_same(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuses predictions (name -> table) of other utterances than the first one's. Raises UserError."""
    (first, table), *others = tables.items()
    for name, other in others:
        a, b = table[list(SAME)], other[list(SAME)]
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
    """The utterances' weights, float (N,), of the predictions `name`. Raises UserError when they are none."""
    given = pd.to_numeric(table.get("weight", pd.Series(1.0, index=table.index)), errors="coerce").to_numpy(float)
    if not (given >= 0).all() or not given.any():
        raise UserError(f"{name}: Expected a `weight` of at least 0 of each utterance, some above.")
    return given


def _codes(*runs: Compared) -> tuple[np.ndarray, ...]:
    """True classes and each run's predictions as numbers, then the dialogues and the weights."""
    columns = [runs[0].table["emotion"], *(run.table["predicted"] for run in runs)]
    names = sorted(set().union(*columns))
    numbers = [np.array([names.index(x) for x in column]) for column in columns]
    return *numbers, runs[0].table["dialogue_id"].to_numpy(), row_weights(runs[0].name, runs[0].table)


def _pair(better: Compared, other: Compared) -> tuple[Compared, Compared, Difference, tuple[int, int, float]]:
    label, first, second, group, weight = _codes(better, other)
    f1 = paired_bootstrap(label, first, second, group, weight=weight)
    return better, other, f1, mcnemar(label, first, second)


def with_intervals(run: Compared) -> Compared:
    """The same with the 95 % intervals of its metrics among them, as `evaluate` writes them."""
    label, predicted, group, weight = _codes(run)
    between = intervals(label, predicted, group, weight=weight)
    return dataclasses.replace(run, metrics={**run.metrics, "intervals": between})


def differing_options(runs: Sequence[Compared]) -> dict[str, list[str]]:
    """The options in which the runs differ, each with its value in every run; `-`: an ensemble has no such option."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    columns = {name: [_shown(run.options.get(name, "-")) for run in runs] for name in names}
    return {
        name: values
        for name, values in columns.items()
        if len({*values} - {"-"}) > 1 or (name.startswith("ensemble.") and len({*values}) > 1)
    }


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def rows(runs: Sequence[Compared]) -> list[list[str]]:
    """One row a run: name, metrics with 95 % intervals, time and parameters; then the majority floor."""
    found = []
    for run in runs:
        label, predicted, group, weight = _codes(run)
        between = intervals(label, predicted, group, weight=weight)
        scores = [
            f"{run.metrics[name]:.4f} [{between[name][0]:.4f}, {between[name][1]:.4f}]"
            for name in ("weighted_f1", "accuracy")
        ]
        time = "-" if run.seconds is None else f"{run.seconds / 60:.1f}"
        size = "-" if run.parameters is None else f"{run.parameters:,}"
        found.append([run.name, *scores, f"{run.metrics['macro_f1']:.4f}", time, size])
    floor = runs[0].metrics["majority_floor"]
    found.append([f"always {floor['label']}", f"{floor['weighted_f1']:.4f}", f"{floor['accuracy']:.4f}", "", "", ""])
    return found


ShownTable = tuple[str, Sequence[str], Sequence[Sequence[str]]]
MADE_COLUMNS = ("run", "data", "seed", "command")
RUN_COLUMNS = ("run", "weighted F1 [95 %]", "accuracy [95 %]", "macro F1", "minutes", "parameters")
PAIR_COLUMNS = (
    "better",
    "other",
    "weighted F1, difference [95 %]",
    "p",
    "p, all pairs",
    "only better right",
    "only other right",
    "McNemar p",
)


def pair_rows(pairs: Sequence[Pair]) -> list[list[str]]:
    """One row a pair, as `PAIR_COLUMNS` says."""
    return [
        [
            pair.better,
            pair.other,
            f"{pair.f1.difference:+.4f} [{pair.f1.low:+.4f}, {pair.f1.high:+.4f}]",
            f"{pair.f1.two_sided:.4f}",
            f"{pair.adjusted:.4f}",
            str(pair.only_better),
            str(pair.only_other),
            f"{pair.mcnemar:.4g}",
        ]
        for pair in pairs
    ]


def tables(runs: Sequence[Compared], pairs: Sequence[Pair]) -> list[ShownTable]:
    """Title, columns and rows of the three tables: runs, options that differ, differences."""
    options = [[name, *values] for name, values in differing_options(runs).items()]
    return [
        ("Runs", RUN_COLUMNS, rows(runs)),
        ("Options that differ", ("option", *(run.name for run in runs)), options),
        ("Differences", PAIR_COLUMNS, pair_rows(pairs)),
    ]


def made_rows(runs: Sequence[Compared]) -> list[list[str]]:
    """One row a run, as `MADE_COLUMNS` says: what its numbers were made by."""
    return [[run.name, *(_shown(run.metrics.get(name, "-")) for name in MADE_COLUMNS[1:])] for run in runs]


def print_tables(shown: Sequence[ShownTable]) -> None:
    """Prints tables, as `tables` makes them."""
    console = Console(width=None if Console().is_terminal else 180)
    for title, columns, lines in shown:
        table = Table(*columns, title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        console.print(table)


def write_page(path: Path, shown: Sequence[ShownTable], title: str) -> None:
    """Writes the same as one self-contained HTML page."""
    pages.write(path, "compare.html", title=title, tables=shown)
