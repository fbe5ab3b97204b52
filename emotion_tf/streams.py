"""Output to standard output, pipes and devices, which a new file must not replace."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}


def is_stream(path: Path) -> bool:
    """Whether a path is `-` (standard output), an open file descriptor, a pipe or a device."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def copy_to_stream(source: Path, path: Path) -> None:
    """Writes the content of a file to a stream. Raises OSError, such as BrokenPipeError if nobody reads a pipe."""
    descriptor = _descriptor(path)
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
