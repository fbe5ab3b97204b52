"""TensorFlow Serving, started for a run: the program or its container, whichever there is."""

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

PROGRAM, IMAGE = "tensorflow_model_server", "tensorflow/serving:2.18.0"
CONTAINERS = ("docker", "podman")
BATCHING = Path(__file__).with_name("batching_parameters.config")
LOG = "serve.log"


@dataclass(frozen=True)
class Options:
    """What is served, and where.

    Attributes:
        run: folder of the run or ensemble.
        port: of gRPC.
        rest_port: of REST.
        model: what the server calls the model.
        image: of the container.
        wait: seconds until it has to be ready.
    """

    run: Path
    port: int
    rest_port: int
    model: str
    image: str
    wait: float


def command(options: Options) -> list[str]:
    """The program's, or else a container's, command line.

    Raises:
        UserError: there is neither.
    """
    serving = (options.run / "serving").resolve()
    batching = ["--enable_batching=true"]
    if program := shutil.which(PROGRAM):
        where = [f"--port={options.port}", f"--rest_api_port={options.rest_port}", f"--model_name={options.model}"]
        files = [f"--model_base_path={serving}", f"--batching_parameters_file={BATCHING}"]
        return [program, *where, *files, *batching]
    for name in CONTAINERS:
        if (tool := shutil.which(name)) and _has_image(tool, options.image):
            ports = [f"127.0.0.1:{options.port}:8500", f"127.0.0.1:{options.rest_port}:8501"]
            volumes = [f"{serving}:/models/{options.model}:ro", f"{BATCHING}:/config/{BATCHING.name}:ro"]
            given = [word for port in ports for word in ("-p", port)] + [word for v in volumes for word in ("-v", v)]
            inside = [*batching, f"--batching_parameters_file=/config/{BATCHING.name}"]
            return [tool, "run", "--rm", "--init", *given, "-e", f"MODEL_NAME={options.model}", options.image, *inside]
    raise UserError(
        f"No TensorFlow Serving here: neither {PROGRAM} nor a container of {options.image}. Install one of them: "
        f"`docker pull {options.image}`, or the Debian package tensorflow-model-server (see docs/serving.md)."
    )


def _has_image(tool: str, image: str) -> bool:
    done = subprocess.run([tool, "image", "inspect", image], capture_output=True)
    return done.returncode == 0


@contextlib.contextmanager
def served(options: Options) -> Iterator[subprocess.Popen[bytes]]:
    """While it is open, the newest version of the run's export is served; it is ready when this begins.

    Raises:
        UserError: the run has no export, its newest one is damaged, there is no server, or it does not get ready.
    """
    facts = read_facts(options.run)
    found = versions(options.run / "serving")
    if not found:
        raise UserError(f"{options.run} has no export. Make one first: {program()} export {options.run}")
    Export.open(options.run / "serving" / str(max(found)))
    log = options.run / LOG
    words = command(options)
    try:
        with open(log, "wb") as output:
            process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    except OSError as error:
        raise UserError(
            f"Cannot start {words[0]} with its log at {log}: {error}. Expected both to be usable."
        ) from None
    client = Client(f"127.0.0.1:{options.port}", facts, options.model)
    try:
        if not client.wait_until_ready(options.wait, lambda: process.poll() is None):
            said = " ".join(log.read_text(errors="replace").split())[-300:]
            ended = process.poll()
            what = f"was not ready after {options.wait:g} s" if ended is None else f"ended with code {ended}"
            raise UserError(f"TensorFlow Serving {what}. Its log is {log}, and ends: {said or 'nothing'}")
        yield process
    finally:
        client.close()
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
