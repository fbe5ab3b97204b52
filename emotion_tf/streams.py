"""Output to standard output, pipes and devices, which a new file must not replace, and which may be closed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from emotion_tf.errors import UserError

NO_READER = (errno.EPIPE, errno.EBADF)
"""Errors of a pipe whose reader has ended, and of a closed descriptor."""
STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_closed: frozenset[int] = frozenset()
"""Standard descriptors that were closed when the program started; see `open_standard`."""


def is_stream(path: Path) -> bool:
    """Whether a path is `-` (standard output), an open file descriptor, a pipe or a device."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def copy_to_stream(source: Path, path: Path) -> None:
    """Writes the content of a file to a stream.

    Raises:
        OSError: the stream is closed, nobody reads a pipe (BrokenPipeError), or the like.
    """
    descriptor = _descriptor(path)
    if descriptor in _closed:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if descriptor == 1:
        sys.stdout.flush()
    target = path if descriptor is None else descriptor
    with open(source, "rb") as file, open(target, "wb", closefd=descriptor is None) as stream:
        shutil.copyfileobj(file, stream)


@contextlib.contextmanager
def reserve_stdout(out: Path | None) -> Iterator[None]:
    """Sends what is printed to standard error if `out` is standard output."""
    with contextlib.redirect_stdout(sys.stderr) if out and _descriptor(out) == 1 else contextlib.nullcontext():
        yield


def _descriptor(path: Path) -> int | None:
    # A path such as /dev/stdout may lead to a regular file, which the shell has opened and goes on writing.
    number = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", str(path))
    return int(number[1]) if number else STANDARD.get(str(path))


def open_standard() -> None:
    """Makes standard output and error usable by all parts of the program.

    A closed descriptor would be that of the next file, into which messages would be written. Characters that the
    encoding does not have are escaped.
    """
    global _closed
    _closed = frozenset(number for number in range(3) if not _is_open(number))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if number in _closed:
            while os.open(os.devnull, os.O_RDWR) < number:
                pass
            os.set_inheritable(number, True)  # the processes that this one starts need it, too
        if number and getattr(sys, name) is None:
            stream = Lossy(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            stream.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
            setattr(sys, name, stream)
        if number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Lossy:
    """A standard stream whose output is dropped from the first error on, such as a reader that has ended.

    Attributes:
        error: the first error; None: all was written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that is being made, which has no stream yet
            raise AttributeError(name)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or drops it; returns its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.error = self.error or error
        discard(self._stream)


def discard(stream: TextIO) -> None:
    """Sends what a stream still has, and all later output, to nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def print_report(text: str) -> None:
    """Prints a text that is all that a command makes. Raises UserError if standard output is closed."""
    print(text, end="", flush=True)
    check_written(sys.stdout)


def check_written(stream: TextIO | Lossy, rest: str = "") -> None:
    """Raises UserError if a `Lossy` stream has dropped output; `rest` ends the message."""
    error = getattr(stream, "error", None)
    if error:
        raise UserError(f"Cannot write to standard output: {error.strerror}.{rest}")


@contextlib.contextmanager
def lossy(name: str) -> Iterator[Lossy]:
    """Lets the block go on if nobody reads a standard stream, `stdout` or `stderr`, or if it cannot be written."""
    stream = getattr(sys, name)
    wrapped = stream if isinstance(stream, Lossy) else Lossy(stream)
    setattr(sys, name, wrapped)
    try:
        yield wrapped
    finally:
        wrapped.flush()
        setattr(sys, name, stream)


_silent_lock = threading.Lock()
_silent_blocks: set[object] = set()
_stderr_copy: int | None = None
"""Descriptor of standard error while at least one block is silent."""


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Hides what C libraries such as libpng print on standard error inside the block. Blocks of threads may overlap.

    Ctrl-C may come at any point: standard error is restored twice, since the first time may be interrupted.
    """
    block = object()
    try:
        _silence(block)
        yield
    finally:
        try:
            _restore(block)
        finally:
            _restore(block)


def _silence(block: object) -> None:
    global _stderr_copy
    with _silent_lock, contextlib.suppress(OSError):  # in a process whose standard error is closed
        _silent_blocks.add(block)
        if _stderr_copy is None:
            _stderr_copy = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)


def _restore(block: object) -> None:
    global _stderr_copy
    with _silent_lock:
        _silent_blocks.discard(block)
        if not _silent_blocks and _stderr_copy is not None:
            os.dup2(_stderr_copy, 2)
            duplicate, _stderr_copy = _stderr_copy, None
            os.close(duplicate)
