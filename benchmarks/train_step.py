"""Training steps of MiniLM, and of MiniLM with a ResNet50: `python -m benchmarks.train_step [--peer PYTHON]`.

Trains on one batch of 32 utterances of 24 to 48 word pieces, with faces of 112 px, by the update that `train` makes.
PYTHON is an interpreter with benchmarks/peer/requirements.txt; the same model in PyTorch is then measured in turn on
the same batch. Prints utterances per second (the median over the turns) and peak memory. The last line is the rate of
matrix products of MiniLM's sizes, and the share of a text step that its products would take at that rate.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import Measure, make_parser, note_measures, processor, run_benchmark
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

ROWS, LENGTH, FACE_SIZE = 32, 48, 112
PEER = Path(__file__).parent / "peer" / "train_step.py"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("--peer", default="", metavar="PYTHON")
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--batch", default="", help=argparse.SUPPRESS)  # measure this batch, in this process
    return arguments


def main() -> None:
    """Measures the models in turn, each in a process of its own, and prints the table."""
    arguments = parser().parse_args()
    if arguments.turns < 1 or arguments.seconds <= 0:
        received = f"--turns {arguments.turns} --seconds {arguments.seconds:g}"
        raise UserError(f"Expected `--turns` of at least 1 and `--seconds` above 0. Received: {received}.")
    if arguments.batch:
        print(json.dumps(_measure(Path(arguments.batch), arguments.seconds)))
        return
    if arguments.peer:
        check_peer(arguments.peer)
    table = Table("model", "program", "utterances/s", "ratio", "peak memory, MB", title=processor())
    with tempfile.TemporaryDirectory() as folder:
        for name, towers in (("MiniLM", 1), ("MiniLM, ResNet50", 2)):
            batch = Path(folder) / f"{towers}.npz"
            np.savez(batch, allow_pickle=False, **make_batch(towers == 2))
            ours = [sys.executable, "-m", "benchmarks.train_step", "--batch", batch, "--seconds", arguments.seconds]
            commands = [ours, *([[arguments.peer, PEER, batch, arguments.seconds]] if arguments.peer else [])]
            turns = [[run_json(command) for command in commands] for _ in range(arguments.turns)]
            rates = [median(result["rate"] for result in results) for results in zip(*turns, strict=True)]
            ratio = f"{rates[0] / rates[1]:.2f} times as fast as PyTorch" if arguments.peer else ""
            note_measures([Measure(f"{name}, batch of {ROWS}", f"{rates[0]:.1f} utterances/s", ratio)])
            for rate, result in zip(rates, turns[-1], strict=True):
                table.add_row(
                    name, result["version"], f"{rate:.1f}", f"{rate / rates[-1]:.2f}", f"{result['memory']:.0f}"
                )
            if towers == 1:
                products, total = turns[-1][0]["products"], turns[-1][0]["total"]
                share = total * rates[0] / ROWS / products
    Console(width=100).print(table)
    note_measures([Measure("MiniLM, products of its matrices", f"{products:.0f} GFLOP/s", f"{share:.2f}")])
    print(f"Products: {products:.0f} GFLOP/s; {total:.0f} GFLOP a text step, a share of {share:.2f} of its time")


def make_batch(has_faces: bool) -> dict[str, np.ndarray]:
    """Returns one batch of random utterances, with faces or without."""
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH) < rng.integers(24, LENGTH + 1, (ROWS, 1))
    batch = {"ids": rng.integers(1000, 20_000, (ROWS, LENGTH)) * mask, "mask": mask, "label": rng.integers(0, 7, ROWS)}
    if has_faces:
        batch["faces"] = rng.integers(0, 256, (ROWS, FACE_SIZE, FACE_SIZE, 3)).astype(np.uint8)
    return batch


def check_peer(interpreter: str) -> None:
    """Raises UserError now, not after minutes of the other program, if an interpreter lacks the peer's packages."""
    run_json([interpreter, "-c", "import torch, transformers; print('{}')"])


def run_json(command: list[Any]) -> dict[str, Any]:
    """Runs a command and returns the JSON object in its last line. Raises UserError if it fails."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    except OSError:
        raise UserError(f"Invalid `--peer`. Expected a Python interpreter. Received: {command[0]}.") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{command[0]} failed: {last} See benchmarks/peer/requirements.txt.") from None
    return json.loads(done.stdout.splitlines()[-1])


def _measure(batch_path: Path, seconds: float) -> dict[str, Any]:
    start_tensorflow()
    import tensorflow as tf

    with np.load(batch_path) as arrays:
        batch = {name: arrays[name] for name in arrays.files}
    step = make_step(batch)
    for _ in range(3):
        step()
    rate = ROWS * per_second(step, seconds)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    hidden, layers = 384, 6
    weights = 12 * hidden * hidden * layers  # of qkv, output and the two of the feed-forward network
    attention = 2 * LENGTH * hidden * layers  # scores and mixtures, a token
    total = 3 * 2 * ROWS * LENGTH * (weights + attention) / 1e9  # forward, and two products backward for each
    a, b = tf.random.normal((ROWS * LENGTH, hidden)), tf.random.normal((hidden, 4 * hidden))
    products = tf.function(lambda: [tf.matmul(a + float(i), b) for i in range(20)])
    products()
    gigaflops = 20 * 2 * ROWS * LENGTH * 4 * hidden * hidden / 1e9
    result = {"rate": rate, "memory": memory, "version": f"TensorFlow {tf.__version__}", "total": total}
    return {**result, "products": gigaflops * per_second(products, 2.0)}


def per_second(function: Callable[[], object], seconds: float) -> float:
    """Returns the calls of a function per second, measured for some seconds."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        function()
        calls += 1
    return calls / (time.perf_counter() - start)


def make_step(batch: dict[str, np.ndarray], xla: bool = False) -> Callable[[], object]:
    """Returns a function that makes the update of `train`."""
    import tensorflow as tf

    from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig
    from emotion_tf.labels import MELD_EMOTIONS
    from emotion_tf.models.hub_interface import INPUT_NAMES
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.models.two_tower import build_model
    from emotion_tf.run_info import DataSpec
    from emotion_tf.training.auxiliary import training_network
    from emotion_tf.training.losses import build_loss
    from emotion_tf.training.optimizers import build_optimizer
    from emotion_tf.training.phases import compile_update
    from emotion_tf.training.schedules import WarmupSchedule
    from emotion_tf.training.step import Update, zero_sums

    config = Config(
        towers=("text", "face") if "faces" in batch else ("text",),
        text=TextConfig(branches=("bert",)),
        face=FaceConfig(branches=("resnet50",), weights="none"),
        fusion=FusionConfig(dense_units=()),
    )
    spec = DataSpec(MELD_EMOTIONS, FACE_SIZE, 1, True, "", "")
    model = build_model(config, spec, (0, 0), pretrained_files(config).encoder)
    network = training_network(model.input, model.output, {})
    loss = build_loss(config.train, np.ones(7))
    schedule = WarmupSchedule("linear", 5e-5, 10, 100_000)
    optimizer = build_optimizer(config.train, network.trainable_variables, [], schedule)
    update = Update(network, lambda label, outputs: loss(label, outputs["logits"]), optimizer, 1.0)
    ids, mask = (batch[name].astype(np.int32) for name in ("ids", "mask"))
    inputs = dict(zip(INPUT_NAMES, (ids, mask, np.zeros_like(mask)), strict=True))
    if "faces" in batch:
        inputs |= {"faces": batch["faces"][:, np.newaxis], "face_mask": np.ones((ROWS, 1), bool)}
    tensors = [{name: tf.constant(inputs[name]) for name in network.input}, batch["label"], np.ones(ROWS, np.float32)]
    step = compile_update(update, xla)
    return lambda: step(zero_sums(), *tensors)


if __name__ == "__main__":
    run_benchmark(main)
