"""Files that `evaluate` writes, `metrics.json` and predictions, and the tables that it prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from emotion_tf import files
from emotion_tf.consoles import table_console
from emotion_tf.evaluation.calibration import Calibration
from emotion_tf.evaluation.csv_tables import to_csv
from emotion_tf.evaluation.reliability import confidence_of
from emotion_tf.evaluation.results import read_splits
from emotion_tf.evaluation.selective import PROMISE, format_threshold, with_abstentions

CHUNK = 4096
"""Number of rows that are written at a time."""


def write_metrics(path: Path, split: str, numbers: dict[str, Any]) -> None:
    """Sets the metrics of one split in `metrics.json` (split -> metric -> number); other splits stay."""
    splits = read_splits(path)
    files.write_text(path, json.dumps({**splits, split: numbers}, indent=2) + "\n")


def write_predictions(
    path: Path,
    rows: Iterable[dict[str, Any]],
    labels: Sequence[str],
    predicted: np.ndarray,
    probabilities: np.ndarray,
    abstain_below: float = 0.0,
    follow: bool = False,
) -> None:
    """Writes ids, text, true label if known, prediction (or "abstained") and a column `p_LABEL` for each class.

    Rows of an iterator, all with the same columns, are held `CHUNK` at a time. `follow` is that of `files.new_file`.
    """
    with files.new_file(path, follow) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        begin = 0
        for table in _tables(rows):
            if "label" in table and len(table) and not isinstance(table["label"].iloc[0], str):
                table["emotion"] = [labels[int(i)] for i in table.pop("label")]
            end = begin + len(table)
            part = predicted[begin:end], probabilities[begin:end]
            to_csv(with_predictions(table, labels, *part, abstain_below), file, header=not begin)
            begin = end


def _tables(rows: Iterable[dict[str, Any]]) -> Iterator[pd.DataFrame]:
    if not isinstance(rows, Iterator):
        yield pd.DataFrame(list(rows))
        return
    while chunk := list(islice(rows, CHUNK)):
        yield pd.DataFrame(chunk)


def with_predictions(
    table: pd.DataFrame,
    labels: Sequence[str],
    predicted: np.ndarray,
    probabilities: np.ndarray,
    abstain_below: float = 0.0,
) -> pd.DataFrame:
    """Adds the prediction (or "abstained") and a column `p_LABEL` for each class.

    Args:
        table: N rows.
        labels: C class names.
        predicted: int (N,), predicted classes.
        probabilities: float (N, C), calibrated.
        abstain_below: least probability of a prediction.
    """
    # six significant digits, not decimals: `ensemble` takes logarithms
    columns = {f"p_{name}": [float(f"{p:.6g}") for p in probabilities[:, i]] for i, name in enumerate(labels)}
    answers = with_abstentions(labels, predicted, confidence_of(probabilities, predicted), abstain_below)
    return table.assign(predicted=answers, **columns)


def print_table(title: str, numbers: dict[str, Any], best_accuracy: dict[str, float] | None = None) -> None:
    """Prints the metrics and the majority floor, then a row for each class.

    Args:
        title: title of the table.
        numbers: metrics, as `metrics` returns them.
        best_accuracy: modality -> best possible accuracy, if the data set states it.
    """
    floor = numbers["majority_floor"]
    head = Table("metric", "value", f"floor (always {floor['label']})", title=title, title_justify="left")
    for name in ("accuracy", "weighted_f1", "macro_f1"):
        head.add_row(name, f"{numbers[name]:.4f}", f"{floor[name]:.4f}" if name in floor else "")
    for name, value in (best_accuracy or {}).items():
        head.add_row(f"best possible accuracy: {name}", f"{value:.4f}", "")
    table = Table("class", "precision", "recall", "F1", "support")
    for label, row in numbers["per_class"].items():
        table.add_row(label, *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")), f"{row['support']:.0f}")
    console = table_console(120)
    console.print(head)
    console.print(table)


def print_thresholds(calibration: Calibration) -> None:
    """Prints the thresholds for `--abstain-below`, and the precisions that cannot be promised."""
    title = f"Precision promised {PROMISE}, on data like dev"
    table = Table("precision", "--abstain-below", "answered, dev", "precision, dev", title=title, title_justify="left")
    for row in calibration.thresholds:
        if row.threshold is not None:
            threshold = format_threshold(row.threshold)
            table.add_row(f"{row.target:g}", threshold, f"{100 * row.coverage:.1f} %", f"{row.precision:.3f}")
    console = table_console(120)
    if table.rows:
        console.print(table)
    if calibration.unpromised:
        console.print(calibration.unpromised)
