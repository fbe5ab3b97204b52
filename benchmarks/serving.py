"""Time and size of an export against the Keras model: `python -m benchmarks.serving RUN/serving/1`.

Prints, for batches of 1 and 32, the median time of `serving_default` (strings and JPEGs in, in a session as a server
runs it), that of the run's Keras model on prepared tensors, and their ratio; the calls alternate. Also prints p99/p50
of both, and the size of the export beside that of its weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import Measure, make_parser, note_measures, run_benchmark
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

TEXT = "I did not expect that, and I am glad that you came all this way."


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("export", type=Path)
    arguments.add_argument("--calls", type=int, default=500, help="calls with one utterance")
    arguments.add_argument("--calls-32", type=int, default=40, help="calls with 32 utterances")
    return arguments


def main() -> None:
    """Measures and prints the table."""
    arguments = parser().parse_args()
    if min(arguments.calls, arguments.calls_32) < 1:
        received = f"{arguments.calls} and {arguments.calls_32}"
        raise UserError(f"Expected `--calls` and `--calls-32` of at least 1. Received: {received}.")
    start_tensorflow()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    import tensorflow as tf

    from emotion_tf.runs import facts
    from emotion_tf.runs.ensemble import Ensemble, open_run
    from emotion_tf.runs.export import SavedModel
    from emotion_tf.serving.graph import ServingGraph
    from emotion_tf.training.outputs import inference

    run = open_run(arguments.export.parent.parent)
    if isinstance(run, Ensemble):
        raise UserError(f"{arguments.export} is the export of an ensemble. Expected the export of a single run.")
    graph, saved = ServingGraph([run], run.labels, run.spec.face_size, None), SavedModel(arguments.export)
    model = inference(run.model)
    print("batch  calls  export ms (median)  model ms (median)  ratio  p99/p50 export  p99/p50 model")
    for batch, calls in ((1, arguments.calls), (32, arguments.calls_32)):
        request = make_request(batch, run.spec.face_size)
        raw = {**request, "context": np.full((batch, 1), b"", object), "face_jpeg": request["face_jpeg"][:, None]}
        (tensors,) = graph.preprocess(graph.decode({name: tf.constant(value) for name, value in raw.items()}))
        model_times, export_times = measure_alternating(
            partial(lambda tensors: model(tensors)["logits"].numpy(), tensors),
            partial(saved.run, "serving_default", request),
            calls,
        )
        tails = [np.percentile(times, 99) / np.median(times) for times in (export_times, model_times)]
        medians = [1e3 * float(np.median(times)) for times in (export_times, model_times)]
        note_measures(
            [Measure(f"served call of {batch}", f"{medians[0]:.2f} ms", f"{medians[1] / medians[0]:.2f} of the model")]
        )
        print(
            f"{batch:5}  {calls:5}  {medians[0]:18.2f}  {medians[1]:17.2f}  {medians[0] / medians[1]:5.3f}"
            f"  {tails[0]:14.2f}  {tails[1]:13.2f}"
        )
    size = sum(path.stat().st_size for path in arguments.export.rglob("*") if path.is_file())
    weights = json.loads((arguments.export / facts.FILE).read_text(encoding="utf-8"))["weights_bytes"]
    print(f"export {size:,} bytes, weights {weights:,} bytes: {size / weights:.4f}")


def make_request(batch: int, side: int) -> dict[str, np.ndarray]:
    """Returns texts and JPEGs of the size of the model's face crops."""
    import cv2

    from emotion_tf.serving.predictor import byte_strings

    rng = np.random.default_rng(0)
    faces = [cv2.resize(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), (side, side)) for _ in range(batch)]
    jpegs = [cv2.imencode(".jpg", face)[1].tobytes() for face in faces]
    return {"utterance": byte_strings([TEXT.encode()] * batch), "face_jpeg": byte_strings(jpegs)}


def measure_alternating(
    first: Callable[[], object], second: Callable[[], object], calls: int, warm_up: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the seconds of each call of both. The calls alternate, so that other load affects both alike."""
    seconds = np.zeros((2, calls + warm_up))
    for i in range(calls + warm_up):
        for j, function in enumerate((first, second)):
            start = time.perf_counter()
            function()
            seconds[j, i] = time.perf_counter() - start
    return seconds[0, warm_up:], seconds[1, warm_up:]


if __name__ == "__main__":
    run_benchmark(main)
