"""An export that this user did not make, in a child process with limits.

`graph_safety` accepts only harmless ops. Their kernels may still have errors in memory handling, and a loop need not
end. So the session runs in a process that has an empty working directory, few environment variables, a limit of memory
and a time for each answer; it writes no file, and after loading it opens no file and no connection. Requests and
answers are protocol buffers: nothing that comes from the child is unpickled.

Not confined: while the graph loads, the process may read the user's files. It is the user's process, without a
namespace or a system call filter.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from emotion_tf.errors import UserError
from emotion_tf.models.graph_safety import check_folder
from emotion_tf.processes import limit_memory
from emotion_tf.runs.export import Export, SavedModel, find_signature, optimizes, unoptimized, weights_size
from emotion_tf.serving.messages import read_tensor

START_SECONDS, ANSWER_SECONDS = 300.0, 120.0
"""Time limits for loading, and for the answer to one batch."""
MEMORY = 4 << 30
"""Bytes that the process may allocate beside TensorFlow itself and the weights."""
DESCRIPTORS = 16
"""Number of files that the process may open at once after loading."""
_MAX_ANSWER = 1 << 30
_VARIABLES = {
    *("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", "OMP_NUM_THREADS"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONHASHSEED", "PYTHONUTF8"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
}
"""Environment variables of the child, by name: secrets may have any prefix, as Terraform's `TF_VAR_...`."""
_ERROR, _ANSWER = b"E", b"A"
# `start_tensorflow` leaves out a third of TensorFlow's imports, if nothing has imported it before
_START = (
    "from emotion_tf.quiet import start_tensorflow; start_tensorflow(); "
    "from emotion_tf.serving.confined import main; main()"
)
_UNOPTIMIZED = "--unoptimized"


def open_model(export: Export) -> SavedModel | ConfinedModel:
    """Loads an export: one that this user made or trusts in this process, another in a child process.

    Raises:
        UserError: it cannot be loaded, or this system cannot limit processes.
    """
    return SavedModel(export.path) if export.is_trusted else ConfinedModel(export.path)


class ConfinedModel:
    """The signatures of a SavedModel, run in a child process. Like `SavedModel`, and as thread-safe.

    Raises:
        UserError: the model cannot be loaded within the limits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        meta = check_folder(path)
        self.signatures = {name: s for name, s in meta.signature_def.items() if not name.startswith("__")}
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="emotion_tf_confined_")
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(path.resolve()), *([] if optimizes() else [_UNOPTIMIZED])],
            cwd=self._folder.name,
            env=_environment(),
            stdin=theirs.fileno(),  # 0 in the child: another number would be as high as this process has files open
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self.close = weakref.finalize(self, _stop, self._process, self._connection, self._folder)
        self.weights_size = int.from_bytes(self._receive(START_SECONDS)[:8], "big")
        """Bytes of the variables."""

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name. Raises UserError if it fails or exceeds the limits."""
        find_signature(self, signature, inputs)
        request = PredictRequest()
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        with self._lock:
            try:
                self._connection.send_bytes(request.SerializeToString())
            except OSError:
                raise self._limit_error(ANSWER_SECONDS) from None
            answer = self._receive(ANSWER_SECONDS)
        try:
            outputs = PredictResponse.FromString(answer).outputs
            return {name: read_tensor(value) for name, value in outputs.items()}
        except (DecodeError, ValueError, TypeError):
            raise UserError(f"{self.path}: {signature} gave no valid answer. Expected tensors.") from None

    def _receive(self, seconds: float) -> bytes:
        """Returns the next answer. The process is killed at the end of the time, which ends an answer that stalls."""
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            answer = self._connection.recv_bytes(_MAX_ANSWER)
        except (EOFError, OSError):
            raise self._limit_error(seconds) from None
        finally:
            timer.cancel()
        if answer[:1] != _ANSWER:
            raise UserError(f"{self.path}: {' '.join(answer[1:].decode(errors='replace').split())[:400]}")
        return answer[1:]

    def _limit_error(self, seconds: float) -> UserError:
        return UserError(
            f"{self.path}: The process of this export ended. It was not made here by you, so it may use {seconds:g} s, "
            f"{MEMORY >> 30} GB of memory, and write no files. If you trust its author, add --trust."
        )


def _environment() -> dict[str, str]:
    """Returns the child's environment: no secrets, no GPU."""
    kept = {name: value for name, value in os.environ.items() if name in _VARIABLES}
    here = str(Path(__file__).resolve().parents[2])  # a clone need not be installed
    path = os.pathsep.join(filter(None, [here, kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}


def _stop(process: subprocess.Popen[bytes], connection: Connection, folder: tempfile.TemporaryDirectory[str]) -> None:
    connection.close()
    process.kill()
    process.wait()
    folder.cleanup()


def _limit(path: Path) -> None:
    """Limits this process: memory, no file that is written, no core dump.

    The files of the weights count, not their shapes: an index of a few bytes may claim any shape.

    Raises:
        UserError: this system cannot limit the memory of a process.
    """
    weights = sum(file.stat().st_size for file in (path / "variables").glob("variables.data-*"))
    if not limit_memory(3 * weights + MEMORY):
        raise UserError(
            "This system cannot limit the memory of a process. Expected Linux with /proc, since the export was not "
            "made here by you. If you trust its author, add --trust."
        )
    import resource

    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))


def _limit_time() -> None:
    """Limits the processor time of the next answer: a loop ends even if nobody is left who would stop it."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + ANSWER_SECONDS * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _limit_descriptors() -> None:
    """Allows few more open files and connections.

    None would be better, but each new thread of TensorFlow seeds its random numbers from a device file.
    """
    import resource

    limit = max(map(int, os.listdir("/proc/self/fd"))) + 1 + DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _serve(connection: Connection, path: Path) -> None:
    """Loads the graph and answers requests until the other end closes the connection."""
    try:
        _limit(path)
        _limit_time()
        size = min(weights_size(path), 2**64 - 1)
        model = SavedModel(path)
        _limit_descriptors()
        connection.send_bytes(_ANSWER + size.to_bytes(8, "big"))
    except (UserError, OSError) as error:
        connection.send_bytes(_ERROR + str(error).encode())
        return
    while True:
        try:
            request = PredictRequest.FromString(connection.recv_bytes())
        except EOFError:
            return
        _limit_time()
        connection.send_bytes(_answer(model, request))


def _answer(model: SavedModel, request: PredictRequest) -> bytes:
    signature = request.model_spec.signature_name
    response = PredictResponse()
    try:
        outputs = model.run(signature, {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    except (UserError, tf.errors.OpError, KeyError, ValueError, TypeError) as error:
        return _ERROR + f"{signature} fails: {error}".encode()
    return _ANSWER + response.SerializeToString()


def main() -> None:
    """Serves the export that the command line names, at the other end of standard input."""
    with unoptimized() if _UNOPTIMIZED in sys.argv else contextlib.nullcontext():
        _serve(Connection(sys.stdin.fileno()), Path(sys.argv[1]))
