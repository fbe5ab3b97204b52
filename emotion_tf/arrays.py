"""Reads files of NumPy arrays (`.npz`), which a full disk or a copy may have damaged."""

from __future__ import annotations

import contextlib
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from emotion_tf import files
from emotion_tf.errors import UserError

MAX_BYTES = 1 << 40
DAMAGE = (
    OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, NotImplementedError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip
"""What `zipfile` and NumPy raise for a damaged file."""


class ArrayFile:
    """The arrays of an open file, each read when it is asked for. A damaged one raises UserError."""

    def __init__(self, archive: NpzFile, path: Path, fix: str) -> None:
        self._archive, self._path, self._fix = archive, path, fix

    def get(self, name: str) -> np.ndarray | None:
        """Returns an array, or None if the file has none of that name."""
        with _damage_errors(self._path, self._fix):
            return np.asarray(self._archive[name]) if name in self._archive.files else None

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.get(name)
        if array is None:
            raise UserError(f"{self._path} is damaged: it has no array {name!r}. {self._fix}")
        return array


@contextlib.contextmanager
def open_arrays(path: Path, fix: str) -> Iterator[ArrayFile]:
    """Opens a file of arrays; `fix` is a sentence that says how to repair it.

    Raises:
        UserError: the file is missing, no regular file, or damaged.
    """
    with files.open_regular(path, MAX_BYTES, expected=f"a file of arrays. {fix.rstrip('.')}") as file:
        with _damage_errors(path, fix):
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it is a single array")
        with archive:
            yield ArrayFile(archive, path, fix)


@contextlib.contextmanager
def _damage_errors(path: Path, fix: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged: {reason.rstrip('.')}. {fix}") from None
