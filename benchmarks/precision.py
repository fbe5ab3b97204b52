"""Speed of bfloat16 against float32: `python -m benchmarks.precision [BRANCH[:LAYER] ...] [--face-size 48]`.

Trains a face tower on batches of random crops that lie in memory, alternating between float32 and bfloat16. Prints
crops per second of each (the median over the turns) and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import Measure, make_parser, note_measures, run_benchmark
from emotion_tf.quiet import start_tensorflow

BRANCHES = ("cnn", "vgg16:block3_conv3", "resnet50v2", "resnet50", "mobilenetv2", "efficientnetv2b0")
TURNS, SECONDS, BATCH = 3, 3.0, 64


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("branches", nargs="*", default=BRANCHES)
    arguments.add_argument("--face-size", type=int, default=48)
    return arguments


def main() -> None:
    """Measures each branch and prints the table."""
    arguments = parser().parse_args()
    start_tensorflow()
    table = Table(
        "branch", "float32, crops/s", "bfloat16, crops/s", "ratio", title=f"{arguments.face_size} px, batch {BATCH}"
    )
    console = Console(width=120)
    for branch in arguments.branches:
        steps = [_step(branch, arguments.face_size, precision) for precision in ("float32", "bfloat16")]
        rates = np.median([[_rate(step) for step in steps] for _ in range(TURNS)], axis=0)
        note_measures(
            [Measure(f"{branch}, bfloat16", f"{rates[1]:.0f} crops/s", f"{rates[1] / rates[0]:.2f} of float32")]
        )
        table.add_row(branch, f"{rates[0]:.0f}", f"{rates[1]:.0f}", f"{rates[1] / rates[0]:.2f}")
    console.print(table)


def _step(branch: str, face_size: int, precision: str) -> Callable[[], object]:
    """Returns a function that makes one update (forward, backward, optimizer); its graph is traced."""
    import keras
    import tensorflow as tf

    from emotion_tf.config import Config, FaceConfig
    from emotion_tf.labels import MELD_EMOTIONS
    from emotion_tf.models.two_tower import build_model
    from emotion_tf.run_info import DataSpec
    from emotion_tf.training.precision import computing_in

    name, _, layer = branch.partition(":")
    options = {"cnn_filters": (32, 64, 128, 256)} if name == "cnn" else {"weights": "none"}
    face = FaceConfig(branches=(name,), layer=(layer,) if layer else (), **options)
    spec = DataSpec(MELD_EMOTIONS, face_size, 1, True, "", "")
    with computing_in(precision):
        model = build_model(Config(towers=("face",), face=face), spec, (0, 0))
    optimizer = keras.optimizers.AdamW(1e-3)
    optimizer.build(model.trainable_variables)
    random = tf.random.Generator.from_seed(0)
    faces = tf.cast(random.uniform((BATCH, 1, face_size, face_size, 3), 0, 256, tf.int32), tf.uint8)
    inputs = {"faces": faces, "face_mask": tf.ones((BATCH, 1), bool)}
    labels = random.uniform((BATCH,), 0, 7, tf.int32)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(inputs, training=True)["logits"])
        gradients = tape.gradient(losses, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return losses

    step()
    return step


def _rate(step: Callable[[], object]) -> float:
    """Returns crops per second."""
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        step()
        steps += 1
    return BATCH * steps / (time.perf_counter() - start)


if __name__ == "__main__":
    run_benchmark(main)
