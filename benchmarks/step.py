"""Speed of `train` against its bare update: `python -m benchmarks.step [DATA] [--towers text face] [--epochs 3]`.

Trains as `train` does, with input, shuffling, augmentation and progress. The limit is a loop that calls the same update
on the same batches, which lie in memory. Both take turns; prints utterances per processor second and per second on the
clock (medians over the epochs), and their ratio.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks import Measure, make_parser, run_benchmark, show_measures
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", nargs="?", type=Path, default=Path("tfrecords/demo"))
    arguments.add_argument("--towers", nargs="+", default=["text", "face"])
    arguments.add_argument("--preset", default="demo", help="preset of the model, such as minilm")
    arguments.add_argument("--epochs", type=int, default=3)
    return arguments


def main() -> None:
    """Measures both loops and prints the table."""
    arguments = parser().parse_args()
    if arguments.epochs < 1:
        raise UserError(f"Expected `--epochs` of at least 1. Received: {arguments.epochs}.")
    start_tensorflow()
    import dataclasses

    from emotion_tf import config as configuration
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.training.checkpoint import Checkpoints
    from emotion_tf.training.loop import _fit
    from emotion_tf.training.phases import begin_phase, phases
    from emotion_tf.training.setup import TrainingData, build_setup
    from emotion_tf.training.step import zero_sums

    config = configuration.preset(arguments.preset)
    config = dataclasses.replace(config, data=str(arguments.data), towers=tuple(arguments.towers))
    data = TrainingData.of_splits(Dataset.open(arguments.data))
    setup = build_setup(config, data, pretrained_files(config), lambda _: None)
    stage = begin_phase(setup, phases(setup)[0], Checkpoints(Path(), setup.variables))
    seconds = []
    for epoch in range(arguments.epochs + 1):
        batches = list(stage.train_batches(epoch))
        of_epoch = []
        for is_bare in (False, True):
            start, processor = time.perf_counter(), time.process_time()
            if is_bare:
                sums = zero_sums()
                for batch in batches:
                    sums = stage.update(sums, *batch)
                float(sums.loss)
            else:
                float(_fit(stage, epoch).loss)
            of_epoch.append((time.process_time() - processor, time.perf_counter() - start))
        seconds.append(of_epoch)
    train, bare = setup.utterances / np.median(seconds[1:], axis=0)  # the first epoch compiles
    measures = [
        Measure(f"train, utterances per {name}", f"{of_train:.0f}", f"{of_train / of_bare:.2f}")
        for name, of_train, of_bare in zip(("processor second", "second"), train, bare, strict=True)
    ]
    show_measures(f"{arguments.data}, {' and '.join(arguments.towers)}, batch {config.train.batch_size}", measures)


if __name__ == "__main__":
    run_benchmark(main)
