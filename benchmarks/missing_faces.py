"""What do runs lose when faces are missing? `python -m benchmarks.missing_faces RUN [RUN ...] [--share 0.5]`.

Evaluates each run on a split of its data as it is, and with the faces of a share of the utterances removed (drawn once,
the same for each run), and prints weighted F1 of both, and the loss; runs that differ by their seed alone are also
averaged.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import reporting


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = Table(
        "run",
        "seed",
        "whole",
        f"{arguments.share:.0%} of faces removed",
        "loss",
        title=f"weighted F1, {arguments.split}",
    )
    alike: dict[str, list[tuple[float, float]]] = {}
    for path in arguments.runs:
        run, seed, whole, without = _scores(path, arguments.split, arguments.share, arguments.seed)
        out.add_row(path.name, str(seed), f"{whole:.4f}", f"{without:.4f}", f"{whole - without:+.4f}")
        alike.setdefault(run, []).append((whole, without))
    for scores in alike.values():
        if len(scores) > 1:
            columns = np.array([(whole, without, whole - without) for whole, without in scores]).T
            out.add_row("mean", f"{len(scores)} seeds", *(f"{c.mean():.4f} ± {c.std(ddof=1):.4f}" for c in columns))
    Console(width=120).print(out)


def _scores(path: Path, split: str, share: float, seed: int) -> tuple[str, int, float, float]:
    """What the run is but for its seed, its seed, and weighted F1 with all faces and with some."""
    from emotion_tf.config import to_json
    from emotion_tf.data import pipeline, records
    from emotion_tf.evaluation.metrics import weighted_f1
    from emotion_tf.runs.run import Run
    from emotion_tf.training.outputs import inference

    run = Run(path)
    data = Path(run.config.data)
    of_split = pipeline.split_rows(data, records.read_info(data), split)
    rows = list(pipeline.read_rows(of_split))
    removed = np.random.default_rng(seed).permutation(len(rows)) < share * len(rows)
    infer, predicted, label, weight = inference(run.model), [], [], []
    for inputs, truth, weights in pipeline.eval_batches(of_split, run.preprocessor(run.model), 64):
        gone = removed[len(label) : len(label) + len(truth)]
        kept = {**inputs, "face_mask": inputs["face_mask"] & ~gone[:, None]}
        predicted += list(
            zip(*(infer(given)["logits"].numpy().argmax(axis=1) for given in (inputs, kept)), strict=True)
        )
        label += truth.numpy().tolist()
        weight += weights.numpy().tolist()
    whole, without = (weighted_f1(np.array(label), column, np.array(weight)) for column in np.array(predicted).T)
    train = dataclasses.replace(run.config.train, seed=0)
    config = dataclasses.replace(run.config, train=train, text=dataclasses.replace(run.config.text, init=""))
    return to_json(config), run.config.train.seed, whole, without


if __name__ == "__main__":
    reporting(main)
