"""Ctrl-C where `KeyboardInterrupt` becomes another error or none: in imports of compiled modules, and in `__del__`."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

DELAY = 0.05
"""Seconds after which an interruption that was lost is repeated."""


@contextlib.contextmanager
def end_on_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the process at once inside the block, without a word and with exit code 130 in a shell.

    For imports before anything is written. A handler that another part of the program has set stays.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def repeat_lost() -> Iterator[None]:
    """Repeats an interruption that Python ignores inside the block, since it came in a `__del__`.

    TensorFlow has many of them: a command that was interrupted there printed a traceback and went on.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # from a thread, and later: here it would be ignored again. A `__del__` may hold the locks of `threading`.
            _thread.start_new_thread(_interrupt_main_thread, ())
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_main_thread() -> None:
    time.sleep(DELAY)
    if (ident := threading.main_thread().ident) is not None:
        signal.pthread_kill(ident, signal.SIGINT)
