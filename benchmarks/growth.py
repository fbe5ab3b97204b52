"""Memory and time by the number of utterances: `python -m benchmarks.growth [--utterances 10000 100000]`.

Prepares the demo set's dialogues, repeated under new ids, trains a small text model for one epoch, evaluates it,
without and with a report, and predicts the table; each in a process of its own. Prints processor seconds per 1,000
utterances of the whole table, and peak memory; `growth` is the memory per utterance between the smallest and the
largest table.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from itertools import cycle
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import Measure, Usage, make_parser, measure_program, note_measures, run_benchmark
from emotion_tf.errors import UserError

DEMO_UTTERANCES = 4000
MODEL = ("--towers", "text", "--text.branches", "gru", "--train.epochs", "1", "--train.batch-size", "256")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("--utterances", type=int, nargs="+", default=[10_000, 100_000])
    return arguments


def main() -> None:
    """Measures each size and prints the table."""
    arguments = parser().parse_args()
    sizes = sorted(arguments.utterances)
    if sizes[0] < DEMO_UTTERANCES:
        raise UserError(f"Expected `--utterances` of at least {DEMO_UTTERANCES}. Received: {sizes[0]}.")
    console = Console(width=110)
    usages: dict[str, list[Usage]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for step, command in _commands(Path(folder)).items():
                if step == "prepare":
                    write_table(Path(folder) / "table.csv", size)
                usage = measure_program(*command, cwd=Path(folder))
                usages.setdefault(step, []).append(usage)
    table = Table("step", *(f"{size:,}" for size in sizes), "growth, bytes")
    table.title = "processor seconds per 1,000 utterances, and peak memory, by utterances of the table"
    for step, of_step in usages.items():
        cells = [f"{1000 * u.processor / n:.2f} s, {u.memory:,.0f} MB" for u, n in zip(of_step, sizes, strict=True)]
        growth = (of_step[-1].memory - of_step[0].memory) * 2**20 / max(1, sizes[-1] - sizes[0])
        note_measures([Measure(f"{step}, {sizes[-1]:,} utterances", cells[-1], f"{growth:.0f} bytes an utterance")])
        table.add_row(step, *cells, f"{growth:.0f}")
    console.print(table)


def _commands(folder: Path) -> dict[str, list[str]]:
    run = ("--data", "data", *MODEL, "--name", "run")
    return {
        "prepare": ["prepare", "table", "table.csv", "--out", "data", "--tokenizer", "learned"],
        "train": ["train", *run],
        "evaluate": ["evaluate", "saved_models/run"],
        "report": ["evaluate", "saved_models/run", "--report"],
        "predict-table": ["predict-table", "saved_models/run", "table.csv", "--out", "predictions.csv"],
    }


def write_table(path: Path, utterances: int) -> None:
    """Writes the manifest of the demo set's texts, repeated as new dialogues until there are so many utterances."""
    from emotion_tf.data.demo import plan_demo

    rows, _ = plan_demo(DEMO_UTTERANCES, 0)
    columns = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i, row in zip(range(utterances), cycle(rows), strict=False):
            dialogue = f"{i // len(rows)}-{row.dialogue_id}"
            writer.writerow([row.split, dialogue, row.utterance_id, row.speaker, row.utterance, row.emotion, ""])


if __name__ == "__main__":
    run_benchmark(main)
