"""Ctrl-C where `KeyboardInterrupt` becomes another error or none: in compiled modules, and in `__del__`."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from emotion_tf.errors import UserError
from emotion_tf.program import command

DELAY = 0.05
"""Seconds after which an interruption that was lost is repeated."""
_has_come = False
"""Whether Ctrl-C came since `remember_interruptions` began."""


@contextlib.contextmanager
def end_on_interrupt() -> Iterator[None]:
    """Lets Ctrl-C end the process at once inside the block, without a word and with exit code 130 in a shell.

    For imports before anything is written. A handler that another part of the program has set stays.
    """
    with _handler(signal.SIG_DFL, (signal.default_int_handler, _remember)):
        yield


@contextlib.contextmanager
def remember_interruptions() -> Iterator[None]:
    """Remembers inside the block that Ctrl-C came, for `recognize_interruption`. Handlers of others stay."""
    global _has_come
    _has_come = False
    with _handler(_remember, (signal.default_int_handler,)):
        try:
            yield
        finally:
            _has_come = False


@contextlib.contextmanager
def recognize_interruption() -> Iterator[None]:
    """Raises KeyboardInterrupt in place of an error that Ctrl-C has become inside the block.

    TensorFlow's C++ code calls Python and may go on after an exception: a `SystemError` without a cause, or an error of
    pybind11 that only names the exception. Its Python code may raise an error of its own while it handles the
    interruption. A `UserError` is no such error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _has_come and _follows_interruption(error):
            raise KeyboardInterrupt from error
        raise


@contextlib.contextmanager
def tell_progress(folder: Path, describe: Callable[[], str]) -> Iterator[None]:
    """Lets the message of Ctrl-C inside the block say how far a long task has come, or that nothing was written.

    Args:
        folder: the folder of the task. A message that begins with "FOLDER is kept." comes from `files.growing_folder`.
        describe: returns a sentence such as "Stopped in epoch 2 of 3."
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        message = str(interruption)
        if not message and not folder.exists():
            message = f"Nothing was written. Start again with: {command()}"
        if message.startswith(f"{folder} is kept."):
            message = f"{describe()} {message}"
        raise KeyboardInterrupt(message) from None


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


def _remember(number: int, frame: FrameType | None) -> None:
    global _has_come
    _has_come = True
    signal.default_int_handler(number, frame)


@contextlib.contextmanager
def _handler(handler: Any, replaceable: tuple[Any, ...]) -> Iterator[None]:
    """Sets the handler of Ctrl-C inside the block if the present one is replaceable; other threads set none."""
    before = signal.getsignal(signal.SIGINT)
    if before not in replaceable or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) == handler:
            signal.signal(signal.SIGINT, before)


def _follows_interruption(error: BaseException) -> bool:
    """Whether an error may come from a `KeyboardInterrupt`, or was raised while one was handled."""
    kinds = KeyboardInterrupt, SystemError
    return any(isinstance(cause, kinds) or KeyboardInterrupt.__name__ in str(cause) for cause in chain(error))


def chain(error: BaseException) -> list[BaseException]:
    """Returns an error, and all that led to it or were handled when it was raised."""
    errors = [error]
    for cause in errors:
        errors += [e for e in (cause.__cause__, cause.__context__) if e is not None and e not in errors]
    return errors


def _interrupt_main_thread() -> None:
    time.sleep(DELAY)
    if (ident := threading.main_thread().ident) is not None:
        signal.pthread_kill(ident, signal.SIGINT)
