"""Seconds until a command has done its work: `python -m benchmarks.start_up [FOLDER] [--preset demo]`.

Runs `--help`, `train` of one step on 2,000 demo utterances, `evaluate`, `export` and `predict` of one utterance, each
in a process of its own. Prints the processor seconds and those on the clock. FOLDER keeps the data set, the run and its
export for other benchmarks; it must not exist.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import Measure, make_parser, measure_program, run_benchmark, show_measures
from emotion_tf.errors import UserError

ONE_STEP = ("--train.epochs", "1", "--train.steps-per-epoch", "1")
TEXT = "I am so happy that you came."


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("folder", nargs="?", type=Path)
    arguments.add_argument("--preset", default="demo", help="preset of the model, such as minilm")
    return arguments


def main() -> None:
    """Measures each command and prints the table."""
    arguments = parser().parse_args()
    if arguments.folder and arguments.folder.exists():
        raise UserError(f"{arguments.folder} exists. Expected a new folder.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        # with MiniLM's word pieces, so that models with and without MiniLM read it
        measure_program("prepare", "demo", "--utterances", 2000, "--tokenizer", "minilm", "--out", "data", cwd=folder)
        train = ("train", "--preset", arguments.preset, "--data", "data", *ONE_STEP, "--name", "run")
        commands = {
            "--help": ["--help"],
            "train, one step": train,
            "evaluate": ["evaluate", "saved_models/run"],
            "export": ["export", "saved_models/run"],
            "predict, one utterance": ["predict", "saved_models/run", "--text", TEXT],
        }
        measures = []
        for name, command in commands.items():
            usage = measure_program(*command, cwd=folder)
            measures.append(Measure(name, f"{usage.processor:.1f} s of the processor, {usage.seconds:.1f} s"))
    show_measures(f"from a cold start, preset {arguments.preset}", measures)


if __name__ == "__main__":
    run_benchmark(main)
