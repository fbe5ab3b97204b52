"""Does the joint model beat each single tower? `python -m benchmarks.towers BOTH SINGLE [SINGLE ...] [--split test]`.

Reads `predictions_SPLIT.csv` of finished runs on the same utterances and prints weighted F1 of each with the majority
floor, and the paired bootstrap (10,000 resamples of dialogues) of the first run against each other.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from emotion_tf.errors import UserError
from emotion_tf.evaluation.significance import paired_bootstrap


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    tables = [pd.read_csv(run / f"predictions_{arguments.split}.csv", dtype=str) for run in arguments.runs]
    keys = ["dialogue_id", "utterance_id", "emotion"]
    for run, table in zip(arguments.runs, tables, strict=True):
        if not table[keys].equals(tables[0][keys]):
            raise UserError(f"{run} has predictions of other utterances than {arguments.runs[0]}.")
    out = Table(
        "run", "seed", "accuracy", "weighted F1", "first minus this [95 %]", "p", title=f"split {arguments.split}"
    )
    for run, table in zip(arguments.runs, tables, strict=True):
        numbers = json.loads((run / "metrics.json").read_text())[arguments.split]
        row = [run.name, str(numbers["seed"]), f"{numbers['accuracy']:.4f}", f"{numbers['weighted_f1']:.4f}"]
        out.add_row(*row, *(_difference(tables[0], table) if run != arguments.runs[0] else ("", "")))
    floor = numbers["majority_floor"]
    out.add_row(f"always {floor['label']}", "", f"{floor['accuracy']:.4f}", f"{floor['weighted_f1']:.4f}", "", "")
    Console(width=120).print(out)


def _difference(first: pd.DataFrame, second: pd.DataFrame) -> tuple[str, str]:
    classes = {
        name: i
        for i, name in enumerate(sorted(set(first["emotion"]) | set(first["predicted"]) | set(second["predicted"])))
    }
    label, a, b = (
        np.array([classes[x] for x in column]) for column in (first["emotion"], first["predicted"], second["predicted"])
    )
    found = paired_bootstrap(label, a, b, first["dialogue_id"].to_numpy())
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]", f"{found.p_value:.4f}"


if __name__ == "__main__":
    main()
