"""Imports TensorFlow without its start-up chatter.

What its C++ side logs is silent below "fatal": faults reach Python as exceptions, and the rest of its "errors" are
notes, such as one on processors without AVX-512 in the midst of a command. TF_CPP_MIN_LOG_LEVEL=0 shows all of it."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Information and warnings of TensorFlow's C++ side, and what it calls an error when a machine simply has no GPU.
CHATTER = re.compile(
    r"^WARNING: All log messages before absl|^[IW]\d{4} |^\d{4}-\d\d-\d\d [\d:.]+: [IW] "
    r"|cuInit: (INTERNAL: CUDA error: Failed call to cuInit: )?UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE"
    r"|Unable to register cu\w+ (factory|plugin)|pkg_resources|^To enable the following instructions"
)


def needs_tensorflow(verb: Callable[P, R]) -> Callable[P, R]:
    """Decorates a verb: TensorFlow is up, quietly, before the verb begins."""

    @functools.wraps(verb)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        start_tensorflow()
        return verb(*args, **kwargs)

    return wrapped


def start_tensorflow(threads: int = 0) -> None:
    """Imports TensorFlow and looks for devices, with the chatter of both filtered from standard error.

    What its Python side warns of is for who writes the program (as that a function is traced again, which several runs
    in one process do).

    Args:
        threads: processors that one operation is spread over; 0: all. TensorFlow takes it at its first start alone.
    """
    if "tensorflow" not in sys.modules:
        _import_tensorflow(threads)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _import_tensorflow(threads: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", message=".*pkg_resources.*")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            import tensorflow as tf
            import tensorflow_text  # noqa: F401

            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.list_logical_devices()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            for line in said.read().decode(errors="replace").splitlines():
                if line.strip() and not CHATTER.search(line):
                    print(line, file=sys.stderr)
