"""Time saved by cached features: `python -m benchmarks.cached_features DATA --face-init RUN [--epochs 4]`.

Trains the same model twice from the same seed: a frozen text encoder, the frozen face tower of a run, and a trained
fusion. One training runs the frozen networks in every epoch, the other reads their cached outputs. Prints the seconds
per epoch (training and validation; the median without the first epoch, which includes tracing) and the largest
difference between any two numbers of the histories.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks import Measure, make_parser, note_measures, run_benchmark
from emotion_tf.quiet import start_tensorflow

NUMBERS = ["loss", "accuracy", "dev_loss", "dev_accuracy", "dev_weighted_f1"]


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data")
    arguments.add_argument("--face-init", required=True, help="run whose face tower is frozen")
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--encoder", default="minilm")
    return arguments


def main() -> None:
    """Trains both models and prints the table."""
    arguments = parser().parse_args()
    start_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        histories = [_train(arguments, Path(folder) / str(cached), cached) for cached in (False, True)]
    seconds = [float(np.median(history["seconds"][1:])) for history in histories]
    table = Table("features", "seconds per epoch", "epochs", title=f"{arguments.data}, {arguments.encoder}, frozen")
    for name, median in zip(("computed", "cached"), seconds, strict=True):
        table.add_row(name, f"{median:.2f}", str(arguments.epochs))
    console = Console(width=120)
    console.print(table)
    ratio = f"{seconds[0] / seconds[1]:.1f} times as fast as computed ones"
    note_measures([Measure("epoch with cached features", f"{seconds[1]:.2f} s", ratio)])
    numbers = [history[NUMBERS].to_numpy() for history in histories]
    console.print(
        f"ratio {seconds[0] / seconds[1]:.1f}; largest difference {np.abs(numbers[0] - numbers[1]).max():.2e}"
    )
    console.print(f"best dev weighted F1 {numbers[1][:, -1].max():.4f}, seed 0")


def _train(arguments: argparse.Namespace, path: Path, cached: bool) -> pd.DataFrame:
    from emotion_tf import config as configuration
    from emotion_tf.config import Config, TextConfig, TrainConfig
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.runs.run import Run
    from emotion_tf.training.loop import train
    from emotion_tf.training.setup import TrainingData

    face = configuration.read_config(Path(arguments.face_init) / "config.json").face
    config = Config(
        data=arguments.data,
        text=TextConfig(branches=("bert",), encoder=arguments.encoder, train_encoder=False),
        face=dataclasses.replace(face, init=arguments.face_init, train_tower=False, augment=False),
        train=TrainConfig(epochs=arguments.epochs, patience=arguments.epochs, cache_features=cached),
    )
    run = Run(path)
    train(
        config,
        run,
        TrainingData.of_splits(Dataset.open(Path(config.data))),
        pretrained_files(config),
        command="benchmarks.cached_features",
    )
    return pd.read_csv(run.history)


if __name__ == "__main__":
    run_benchmark(main)
