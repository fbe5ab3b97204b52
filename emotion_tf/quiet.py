"""Imports TensorFlow without its start-up messages.

The C++ log is silent below "fatal": errors reach Python as exceptions, and other "errors" are notes, such as one on
processors without AVX-512. TF_CPP_MIN_LOG_LEVEL=0 shows the whole log. TF_ENABLE_ONEDNN_OPTS=0 leaves oneDNN out,
and TF_FORCE_GPU_ALLOW_GROWTH=false takes the memory of a GPU at once.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from emotion_tf import interrupts

P = ParamSpec("P")
R = TypeVar("R")

# information and warnings of TensorFlow's C++ code, and its "errors" on a machine without a GPU
CHATTER = re.compile(
    r"^WARNING: All log messages before absl|^[IW]\d{4} |^\d{4}-\d\d-\d\d [\d:.]+: [IW] "
    r"|cuInit: (INTERNAL: CUDA error: Failed call to cuInit: )?UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE"
    r"|Unable to register cu\w+ (factory|plugin)|pkg_resources|^To enable the following instructions"
)
# Keras imports them for wrappers and galleries that nothing here uses; they are a third of TensorFlow's import.
UNUSED = ("sklearn", "matplotlib")


def needs_tensorflow(verb: Callable[P, R]) -> Callable[P, R]:
    """Decorates a verb that needs TensorFlow, which is started before the verb."""

    @functools.wraps(verb)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        start_tensorflow()
        return verb(*args, **kwargs)

    return wrapped


def start_tensorflow(threads: int = 0, list_devices: bool = True) -> None:
    """Imports TensorFlow and lists its devices, without the messages of both on standard error.

    Warnings of TensorFlow's Python code are hidden as well: they address developers, for example about the retracing of
    functions when one process trains several runs.

    Args:
        threads: number of threads of one operation; 0: one per processor. Only the first call has an effect.
        list_devices: whether to list the devices, after which this process can no longer join others.
    """
    if "tensorflow" not in sys.modules:
        with interrupts.end_on_interrupt(), _title("loading TensorFlow"):
            _import_tensorflow(threads, list_devices)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextlib.contextmanager
def _title(title: str) -> Iterator[None]:
    """Shows a title on a terminal until the block ends; not by `progress`, which would write into the hidden output."""
    if sys.stderr.isatty():
        print(f"{title} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def _import_tensorflow(threads: int, list_devices: bool) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN's kernels, which TensorFlow leaves out on processors without AVX512_VNNI: a step is quicker
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # a process takes the memory of a GPU as it needs it: several share it
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    warnings.filterwarnings("ignore", message=".*pkg_resources.*")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            with _hidden(UNUSED), _uncollected():
                import tensorflow as tf
                import tensorflow_text  # noqa: F401

            tf.config.threading.set_intra_op_parallelism_threads(threads)
            if list_devices:
                tf.config.list_logical_devices()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            for line in log.read().decode(errors="replace").splitlines():
                if line.strip() and not CHATTER.search(line):
                    print(line, file=sys.stderr)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Stops the garbage collector in the block, and exempts from it for ever what the block leaves behind.

    TensorFlow's modules are 400,000 objects that live to the end. To search them takes a sixth of the import, and again
    a tenth of tracing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Lets imports of packages fail as if they were not installed, except of those that are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None stops an import
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
