"""Trials a minute of `tune`: `python -m benchmarks.tune [DATA] [--trials 4]`.

Runs a search of small text models, each trained for one epoch, in a process of its own. Prints the trials a minute and
the processor seconds a trial, start-up and report included, and the share of the trials in the seconds of the search.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import Measure, make_parser, measure_program, run_benchmark, show_measures
from emotion_tf.errors import UserError

MODEL = ("--towers", "text", "--text.branches", "gru", "--train.epochs", "1", "--tuner.epochs", "1", "--workers", "1")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", nargs="?", type=Path, default=Path("tfrecords/demo"))
    arguments.add_argument("--trials", type=int, default=4)
    return arguments


def main() -> None:
    """Measures the search and prints the table."""
    arguments = parser().parse_args()
    if arguments.trials < 2:
        raise UserError(f"Expected `--trials` of at least 2. Received: {arguments.trials}.")
    with tempfile.TemporaryDirectory() as folder:
        data = ("--data", arguments.data.absolute())
        command = ("tune", *data, *MODEL, "--name", "search", "--trials")
        one, all_trials = (
            measure_program(*command, count, "--overwrite", cwd=Path(folder)) for count in (1, arguments.trials)
        )
    more = arguments.trials - 1
    seconds, processor = all_trials.seconds - one.seconds, all_trials.processor - one.processor
    trial = f"{processor / more:.1f} s of the processor, {seconds / more:.1f} s"
    measures = [
        Measure("trials a minute, start-up included", f"{60 * arguments.trials / all_trials.seconds:.1f}"),
        Measure(
            "a further trial", trial, f"{arguments.trials * seconds / more / all_trials.seconds:.2f} of the search"
        ),
    ]
    show_measures(f"tune, {arguments.trials} trials", measures)


if __name__ == "__main__":
    run_benchmark(main)
