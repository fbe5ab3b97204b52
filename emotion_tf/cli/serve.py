"""`serve`: starts TensorFlow Serving with a run."""

from __future__ import annotations

import contextlib
import signal
from typing import Annotated

from emotion_tf.command_line import RunPath, opens_models
from emotion_tf.config import rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.program import program
from emotion_tf.progress import stage
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say


@opens_models
@needs_tensorflow
def serve(
    run: RunPath,
    port: Annotated[int, Range(1, 65_535)] = 8500,
    rest_port: Annotated[int, Range(1, 65_535)] = 8501,
    model: Annotated[str, rules.value("NAME")] = "",
    image: Annotated[str, rules.value("IMAGE")] = "",
    wait: Annotated[float, Range(0, 86_400, above=True)] = 120.0,
) -> None:
    """Start TensorFlow Serving with the newest export of a run, as a program or a container. Ctrl-C stops it.

    Args:
        run: Run with an export: its name in saved_models/, or its folder.
        port: Port of gRPC.
        rest_port: Port of REST.
        model: Name of the model on the server. Default: the name of the run.
        image: Container image. Default: tensorflow/serving in the release that exports are made for.
        wait: Seconds after which the server must be ready.
    """
    from emotion_tf.serving import launch
    from emotion_tf.serving.release import IMAGE

    options = launch.LaunchOptions(run, port, rest_port, model or run.resolve().name, image or IMAGE, wait)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server must end with this program
    with contextlib.ExitStack() as stack:
        with stage("starting TensorFlow Serving"):
            process = stack.enter_context(launch.run_server(options))
        say(f"Ready: {options.model} at localhost:{port} (gRPC), http://localhost:{rest_port} (REST); Ctrl-C stops it")
        say(f"{program()} predict {run} --server localhost:{port} --text ...", flush=True)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            return
    raise UserError(f"TensorFlow Serving ended with code {code}. Its log is {run / launch.LOG}.")
