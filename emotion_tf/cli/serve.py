"""`serve`: TensorFlow Serving for a run."""

from __future__ import annotations

import signal
from pathlib import Path

from tyro.conf import Positional

from emotion_tf.errors import UserError
from emotion_tf.program import program
from emotion_tf.quiet import needs_tensorflow


@needs_tensorflow
def serve(
    run: Positional[Path],
    port: int = 8500,
    rest_port: int = 8501,
    model: str = "",
    image: str = "",
    wait: float = 120.0,
) -> None:
    """Start TensorFlow Serving, the program or its container, with the newest export of a run, until Ctrl-C.

    Args:
        run: a folder in saved_models/ with an export.
        port: of gRPC.
        rest_port: of REST.
        model: what the server calls the model; by default as its run.
        image: of the container; by default tensorflow/serving of the release that exports are made for.
        wait: seconds until it has to be ready.
    """
    from emotion_tf.serving import launch

    options = launch.LaunchOptions(run, port, rest_port, model or run.resolve().name, image or launch.IMAGE, wait)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with this program, however it is ended
    with launch.run_server(options) as process:
        print(f"Ready: {options.model} at localhost:{port} (gRPC), http://localhost:{rest_port} (REST); end: Ctrl-C")
        print(f"{program()} predict {run} --server localhost:{port} --text ...", flush=True)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            return
    raise UserError(f"TensorFlow Serving ended with code {code}. Its log is {run / launch.LOG}.")
