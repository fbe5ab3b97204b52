"""`demo`: a page to try runs on."""

from __future__ import annotations

import dataclasses
import functools
import signal
import sys
import threading
from pathlib import Path

from tyro.conf import Positional

from emotion_tf import folders
from emotion_tf.cli.prepare import CROPS
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.program import program
from emotion_tf.quiet import needs_tensorflow

PORT = 7860


@needs_tensorflow
def demo(
    run: Positional[Path | None] = None,
    port: int = PORT,
    upload: int = 100,
    server: str = "",
    model: str = "",
    timeout: float = 10.0,
    faces: CropConfig = CROPS,
) -> None:
    """A page on 127.0.0.1 to try runs on: words, pictures, clips, films; answers with what moved them. Ctrl-C ends it.

    Args:
        run: a folder in saved_models/, chosen at first; the others there can be chosen on the page. None: the newest.
        port: of 127.0.0.1; 0: any that is free.
        upload: megabytes of an uploaded file, at most.
        server: let TensorFlow Serving there answer for RUN (or an export of it): HOST:PORT for gRPC, http://HOST:PORT.
        model: what the server calls the model; by default as its run.
        timeout: seconds that the server has for an answer.
        faces: how faces are found; by default as in the run's data set.
    """
    from emotion_tf.faces.detect import load_detector
    from emotion_tf.page.runs import Runs, finished_runs, open_served
    from emotion_tf.page.server import MEGABYTE, serving
    from emotion_tf.runs.facts import read_facts
    from emotion_tf.serving.film import as_prepared

    if not 0 <= port < 65536:
        raise UserError(f"Invalid `--port`. Expected a number from 0 to 65535. Received: {port}.")
    if upload < 1:
        raise UserError(f"Invalid `--upload`. Expected at least 1 megabyte. Received: {upload}.")
    if (server and run is None) or (model and not server):
        raise UserError("--server needs RUN (or an export of it), which tells the labels; --model goes with --server.")
    folder = run.resolve().parent if run else folders.RUNS
    names = finished_runs(folder)
    if run is None and not names:
        raise UserError(
            f"Nothing is trained yet: no run in {folder}/. Begin with `make demo`, or with `{program()} train`."
        )
    first = run.resolve().name if run else names[0]
    if server:
        runs = Runs(folder, [first], functools.partial(open_served, address=server, model=model, timeout=timeout))
    else:
        # a run that was named and cannot be used is told as such when it is opened
        runs = Runs(folder, names if first in names else [first, *names])
    config = as_prepared(faces, read_facts(folder / first).crops, sys.argv)
    try:
        detector = detector_model(config)
    except UserError as error:
        if faces.detector_model:
            raise
        print(
            f"Faces are found by MTCNN, whose weights are here; slower, and a little otherwise than by YuNet: {error}"
        )
        config, detector = dataclasses.replace(config, detector="mtcnn"), None
    load = functools.partial(load_detector, config.detector, detector)
    with serving(runs, first, port, config, load, upload * MEGABYTE) as address:
        print(f"Page: {address} (Ctrl-C ends it)", flush=True)
        _wait()


def _wait() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(1.0):
        pass
