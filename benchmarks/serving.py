"""What an export costs beside the bare model: python -m benchmarks.serving saved_models/RUN/serving/1

Prints, for batches of 1 and 32, the median time of `serving_default` (strings and JPEGs in, by a session as a server
runs it) beside that of the run's model on tensors that are ready, call by call in turn, and their ratio; p99/p50 of
calls of one; and the size of the export beside that of its weights."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import tensorflow as tf

from benchmarks import reporting
from emotion_tf.runs.ensemble import Ensemble, open_folder
from emotion_tf.serving import about
from emotion_tf.serving.exported import SavedModel
from emotion_tf.serving.graph import Graph
from emotion_tf.serving.predict import strings
from emotion_tf.training.outputs import inference

TEXT = "I did not expect that, and I am glad that you came all this way."


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--calls", type=int, default=500, help="calls of one utterance")
    parser.add_argument("--calls-32", type=int, default=40, help="calls of 32 utterances")
    given = parser.parse_args()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    run = open_folder(given.export.parent.parent)
    if isinstance(run, Ensemble):
        raise SystemExit("Expected the export of a single run.")
    graph, saved = Graph([run], run.labels, run.spec.face_size, None), SavedModel(given.export)
    model = inference(run.model)
    print("batch  calls  export ms (median)  model ms (median)  ratio  p99/p50 export  p99/p50 model")
    for batch, calls in ((1, given.calls), (32, given.calls_32)):
        inputs = requests(batch, run.spec.face_size)
        full = inputs["utterance"], np.full((batch, 1), b"", object), inputs["face_jpeg"][:, None]
        (ready,) = graph.inputs(*graph.read(*(tf.constant(value) for value in full)))
        theirs, ours = alternating(
            lambda ready=ready: model(ready)["logits"].numpy(),
            lambda inputs=inputs: saved.run("serving_default", inputs),
            calls,
        )
        tails = [np.percentile(times, 99) / np.median(times) for times in (ours, theirs)]
        medians = [1e3 * float(np.median(times)) for times in (ours, theirs)]
        print(
            f"{batch:5}  {calls:5}  {medians[0]:18.2f}  {medians[1]:17.2f}  {medians[0] / medians[1]:5.3f}"
            f"  {tails[0]:14.2f}  {tails[1]:13.2f}"
        )
    size = sum(path.stat().st_size for path in given.export.rglob("*") if path.is_file())
    weights = json.loads((given.export / about.FILE).read_text(encoding="utf-8"))["weights_bytes"]
    print(f"export {size:,} bytes, weights {weights:,} bytes: {size / weights:.4f}")


def requests(batch: int, side: int) -> dict[str, np.ndarray]:
    """Texts, and JPEGs as large as the model's crops."""
    rng = np.random.default_rng(0)
    drawn = [cv2.resize(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), (side, side)) for _ in range(batch)]
    faces = [cv2.imencode(".jpg", one)[1].tobytes() for one in drawn]
    return {"utterance": strings([TEXT.encode()] * batch), "face_jpeg": strings(faces)}


def alternating(
    one: Callable[[], object], other: Callable[[], object], calls: int, warm: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each call of both, taken in turn so that what else the machine does meets both."""
    found = np.zeros((2, calls + warm))
    for i in range(calls + warm):
        for j, call in enumerate((one, other)):
            start = time.perf_counter()
            call()
            found[j, i] = time.perf_counter() - start
    return found[0, warm:], found[1, warm:]


if __name__ == "__main__":
    reporting(main)
