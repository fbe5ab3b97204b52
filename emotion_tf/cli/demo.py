"""`demo`: serves a page to try runs."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from emotion_tf import folders
from emotion_tf.cli.inputs import CropOptions, ServerOptions
from emotion_tf.command_line import IS_RUN, NO_PREFIX, opens_models
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.program import program
from emotion_tf.progress import stage
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say

PORT = 7860


@opens_models
@needs_tensorflow
def demo(
    serving: Annotated[ServerOptions, NO_PREFIX],
    faces: CropOptions,
    run: Annotated[Positional[Path | None], tyro.conf.arg(metavar="RUN"), IS_RUN] = None,
    port: Annotated[int, Range(0, 65_535)] = PORT,
    upload: Annotated[int, Range(1, 10_000)] = 100,
) -> None:
    """Serve a page on 127.0.0.1 to try runs with texts, pictures, clips and films. Ctrl-C stops it.

    Args:
        run: Run to select first: its name in saved_models/, or its folder. The page offers the others beside it.
            Default: the newest run.
        port: Port on 127.0.0.1. 0: any free port.
        upload: Maximum size of an uploaded file in megabytes. All uploads together take at most ten times that.
        faces: How faces are found.
    """
    from emotion_tf.faces.detect import load_detector
    from emotion_tf.page.runs import Runs, finished_runs, open_served
    from emotion_tf.page.server import MEGABYTE, open_page
    from emotion_tf.runs.facts import read_facts
    from emotion_tf.serving.film import crop_config

    if serving.server and run is None:
        raise UserError("--server needs RUN, a run or an export of it, whose labels the answers have. Received no RUN.")
    folder = run.resolve().parent if run else folders.RUNS
    names = finished_runs(folder)
    if run is None and not names:
        raise UserError(f"No run in {folder}/. Train one with `make demo` or `{program()} train`.")
    first = run.resolve().name if run else names[0]
    if serving.server:
        runs = Runs(folder, [first], lambda path: open_served(path, serving.connect))
    else:
        # opening a named run that is unusable raises the error
        runs = Runs(folder, names if first in names else [first, *names])
    config = crop_config(read_facts(folder / first).crops, faces)
    load = functools.partial(load_detector, config.detector, detector_model(config))
    with contextlib.ExitStack() as stack:
        with stage(f"opening {folder / first} and the page"):
            address = stack.enter_context(open_page(runs, first, port, config, load, upload * MEGABYTE))
        say(f"Page: {address} (Ctrl-C ends it)", flush=True)
        _wait()


def _wait() -> None:
    interruption = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interruption.set())
    while not interruption.wait(1.0):
        pass
