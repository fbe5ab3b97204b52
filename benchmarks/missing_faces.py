"""Loss of weighted F1 without faces: `python -m benchmarks.missing_faces RUN [RUN ...] [--share 0.5]`.

Evaluates each run twice on a split of its data: with all faces, and without the faces of a share of the utterances
(the same utterances for every run). Prints both scores and their difference; runs that differ only by their seed are
also averaged.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import make_parser, run_benchmark
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--split", default="test")
    arguments.add_argument("--share", type=float, default=0.5, help="share of the utterances that lose their faces")
    arguments.add_argument("--seed", type=int, default=0, help="seed that draws these utterances")
    return arguments


def main() -> None:
    """Evaluates the runs and prints the table."""
    arguments = parser().parse_args()
    if not 0 <= arguments.share <= 1:
        raise UserError(f"Expected `--share` from 0 to 1. Received: {arguments.share:g}.")
    start_tensorflow()
    removed = f"{arguments.share:.0%} of faces removed"
    table = Table("run", "seed", "all faces", removed, "loss", title=f"weighted F1, {arguments.split}")
    scores_of: dict[str, list[tuple[float, float]]] = {}
    for path in arguments.runs:
        config, seed, whole, reduced = _scores(path, arguments.split, arguments.share, arguments.seed)
        table.add_row(path.name, str(seed), f"{whole:.4f}", f"{reduced:.4f}", f"{whole - reduced:+.4f}")
        scores_of.setdefault(config, []).append((whole, reduced))
    for scores in scores_of.values():
        if len(scores) > 1:
            columns = np.array([(whole, reduced, whole - reduced) for whole, reduced in scores]).T
            table.add_row("mean", f"{len(scores)} seeds", *(f"{c.mean():.4f} ± {c.std(ddof=1):.4f}" for c in columns))
    Console(width=120).print(table)


def _scores(path: Path, split: str, share: float, seed: int) -> tuple[str, int, float, float]:
    """Returns a run's configuration without its seed (JSON), its seed, and weighted F1 with and without the removal."""
    from emotion_tf.config import to_json
    from emotion_tf.data import pipeline
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation.metrics import weighted_f1
    from emotion_tf.runs.run import Run
    from emotion_tf.training.outputs import inference

    run = Run(path)
    rows = Dataset.open(Path(run.config.data)).rows(split)
    count = len(list(pipeline.read_rows(rows)))
    removed = np.random.default_rng(seed).permutation(count) < share * count
    infer = inference(run.model)
    predicted: list[Any] = []
    label: list[int] = []
    weight: list[float] = []
    for inputs, y_true, weights in pipeline.eval_batches(rows, run.preprocessor(run.model), 64):
        mask = inputs["face_mask"] & ~removed[len(label) : len(label) + len(y_true)][:, None]
        both = (inputs, {**inputs, "face_mask": mask})
        predicted += list(zip(*(infer(batch)["logits"].numpy().argmax(axis=1) for batch in both), strict=True))
        label += y_true.numpy().tolist()
        weight += weights.numpy().tolist()
    whole, reduced = (weighted_f1(np.array(label), column, np.array(weight)) for column in np.array(predicted).T)
    train = dataclasses.replace(run.config.train, seed=0)
    config = dataclasses.replace(run.config, train=train, text=dataclasses.replace(run.config.text, init=""))
    return to_json(config), run.config.train.seed, whole, reduced


if __name__ == "__main__":
    run_benchmark(main)
