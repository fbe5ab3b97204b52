"""Starts TensorFlow Serving for a run: the program `tensorflow_model_server`, or its container."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emotion_tf.errors import UserError
from emotion_tf.program import program
from emotion_tf.runs.export import Export, versions
from emotion_tf.runs.facts import read_facts
from emotion_tf.serving.client import Client

SERVER = "tensorflow_model_server"
CONTAINERS = ("docker", "podman")
BATCHING = Path(__file__).with_name("batching_parameters.config")
LOG = "serve.log"


@dataclass(frozen=True)
class LaunchOptions:
    """What to serve, and where.

    Attributes:
        run: folder of the run or ensemble.
        port: port of gRPC.
        rest_port: port of REST.
        model: name of the model on the server.
        image: image of the container.
        wait: seconds to wait until the server is ready.
    """

    run: Path
    port: int
    rest_port: int
    model: str
    image: str
    wait: float


def server_command(options: LaunchOptions) -> list[str]:
    """Returns the command line of the program, or else of a container.

    Raises:
        UserError: neither is installed.
    """
    serving = (options.run / "serving").resolve()
    batching = ["--enable_batching=true"]
    if server := shutil.which(SERVER):
        ports = [f"--port={options.port}", f"--rest_api_port={options.rest_port}", f"--model_name={options.model}"]
        paths = [f"--model_base_path={serving}", f"--batching_parameters_file={BATCHING}"]
        return [server, *ports, *paths, *batching]
    for name in CONTAINERS:
        if (tool := shutil.which(name)) and _has_image(tool, options.image):
            ports = [f"127.0.0.1:{options.port}:8500", f"127.0.0.1:{options.rest_port}:8501"]
            volumes = [f"{serving}:/models/{options.model}:ro", f"{BATCHING}:/config/{BATCHING.name}:ro"]
            outside = [word for port in ports for word in ("-p", port)] + [word for v in volumes for word in ("-v", v)]
            inside = [*batching, f"--batching_parameters_file=/config/{BATCHING.name}"]
            return [
                tool, "run", "--rm", "--init", *outside, "-e", f"MODEL_NAME={options.model}", options.image, *inside,
            ]  # fmt: skip
    raise UserError(
        f"No TensorFlow Serving here: neither {SERVER} nor a container of {options.image}. Install one of them: "
        f"`docker pull {options.image}`, or the Debian package tensorflow-model-server (see docs/serving.md)."
    )


def _has_image(tool: str, image: str) -> bool:
    return subprocess.run([tool, "image", "inspect", image], capture_output=True).returncode == 0


@contextlib.contextmanager
def run_server(options: LaunchOptions) -> Iterator[subprocess.Popen[bytes]]:
    """Serves a run's newest export while the block runs. Yields the process when the server is ready.

    Raises:
        UserError: the run has no export; its newest one is damaged or not trusted; no server is installed; or it does
            not become ready.
    """
    facts = read_facts(options.run)
    exported = versions(options.run / "serving")
    if not exported:
        raise UserError(f"{options.run} has no export. Make one first: {program()} export {options.run}")
    Export.open(options.run / "serving" / str(max(exported))).check_trusted()
    log = options.run / LOG
    command = server_command(options)
    try:
        log.unlink(missing_ok=True)  # it may be a link or a pipe in somebody else's folder
        with open(log, "xb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    except OSError as error:
        raise UserError(
            f"Cannot start {command[0]} with its log at {log}: {error}. Expected a runnable program and a writable log."
        ) from None
    client = Client(f"127.0.0.1:{options.port}", facts, options.model)
    try:
        if not client.wait_until_ready(options.wait, lambda: process.poll() is None):
            tail = " ".join(log.read_text(errors="replace").split())[-300:]
            code = process.poll()
            problem = f"was not ready after {options.wait:g} s" if code is None else f"ended with code {code}"
            raise UserError(f"TensorFlow Serving {problem}. Its log is {log}, and ends: {tail or 'nothing'}")
        yield process
    finally:
        client.close()
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
