"""Training steps on a GPU: `python -m benchmarks.gpu [--seconds 5]`.

Measures the update of `train` on one batch in float32 and bfloat16, without and with XLA: MiniLM on text, and MiniLM
with a ResNet50 at 112 px. Prints utterances a second, and the choice of `--train.precision auto`. It ends with an error
where there is no GPU; nobody has run it on one yet.
"""

from __future__ import annotations

import argparse
import dataclasses

from benchmarks import Measure, make_parser, run_benchmark, show_measures
from benchmarks.train_step import ROWS, make_batch, make_step, per_second
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=5.0)
    return arguments


def main() -> None:
    """Measures each combination and prints the table."""
    arguments = parser().parse_args()
    if arguments.seconds <= 0:
        raise UserError(f"Expected `--seconds` above 0. Received: {arguments.seconds:g}.")
    start_tensorflow()
    import tensorflow as tf

    from emotion_tf.config import Config, TrainConfig
    from emotion_tf.training.precision import choose_precision, computing_in

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise UserError("TensorFlow sees no GPU. Expected an NVIDIA GPU with its driver, and `make setup GPU=1`.")
    measures = []
    for name, has_faces in (("MiniLM", False), ("MiniLM, ResNet50", True)):
        for precision in ("float32", "bfloat16"):
            for xla in (False, True):
                with computing_in(precision):
                    step = make_step(make_batch(has_faces), xla)
                for _ in range(3):
                    step()
                rate = ROWS * per_second(step, arguments.seconds)
                measures.append(Measure(f"{name}, {precision}{', XLA' * xla}", f"{rate:.1f} utterances/s"))
    chosen, reason = choose_precision(dataclasses.replace(Config(), train=TrainConfig(precision="auto")))
    measures.append(Measure("--train.precision auto", chosen, reason))
    details = tf.config.experimental.get_device_details(gpus[0])
    show_measures(f"{details.get('device_name', 'GPU')}, TensorFlow {tf.__version__}, batch {ROWS}", measures)


if __name__ == "__main__":
    run_benchmark(main)
