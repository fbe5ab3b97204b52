"""Files of NumPy arrays (`.npz`): read, which a full disk or a copy may have damaged, and written batch after batch."""

from __future__ import annotations

import contextlib
import lzma
import os
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile

from emotion_tf import files
from emotion_tf.errors import UserError

MAX_BYTES = 1 << 40
DAMAGE = (
    OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, NotImplementedError, RuntimeError, MemoryError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip
"""What `zipfile` and NumPy raise for a damaged file."""


BLOCK = 1 << 20


@dataclass(frozen=True)
class StoredArray:
    """An array that stays in its file: its rows are read when they are needed.

    Attributes:
        path: the file, which may be replaced by an equal one.
        offset: byte at which the first row begins.
        shape: (N, ...).
        dtype: type of the elements.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, spans: Iterable[tuple[int, int]]) -> list[np.ndarray]:
        """Returns the rows from begin to end of each span, (end - begin, ...). Raises UserError if the file is gone."""
        size = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        try:
            with open(self.path, "rb", buffering=0) as file:
                contents = [os.pread(file.fileno(), (e - b) * size, self.offset + b * size) for b, e in spans]
            return [np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:]) for content in contents]
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} has changed while it was used: {error}. Run the command again.") from None


class ArrayFile:
    """The arrays of an open file, each read when it is asked for. A damaged one raises UserError."""

    def __init__(self, archive: NpzFile, path: Path, fix: str) -> None:
        self._archive, self._path, self._fix = archive, path, fix

    def get(self, name: str) -> np.ndarray | None:
        """Returns an array, or None if the file has none of that name."""
        with _damage_errors(self._path, self._fix):
            return np.asarray(self._archive[name]) if name in self._archive.files else None

    def find(self, name: str) -> StoredArray:
        """Returns an array that stays in the file, after its checksum was compared."""
        with _damage_errors(self._path, self._fix):
            archive = self._archive.zip
            assert archive is not None and archive.fp is not None  # it is open
            info = archive.getinfo(f"{name}.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed")
            with archive.open(info) as file:
                read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                shape, is_fortran, dtype = read_header[npy.read_magic(file)](file)
                begin = file.tell()
                while file.read(BLOCK):  # the last block is compared with the checksum
                    pass
            if is_fortran or dtype.hasobject or not shape:
                raise ValueError("it has an array of another layout")
            archive.fp.seek(info.header_offset + 26)
            names = sum(struct.unpack("<HH", archive.fp.read(4)))  # of the local header, which ends with them
            return StoredArray(self._path, info.header_offset + 30 + names + begin, shape, dtype)

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


class Column:
    """An array that grows on disk, batch after batch: the batches are padded with zeros when their shapes are known.

    It is in a file without a name in the folder of temporary files.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._dtype, self._shape = np.dtype("V0"), (0,)
        self._batches = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N, ...) of the array so far."""
        return self._shape

    def add(self, batch: np.ndarray) -> None:
        """Appends rows, (B, ...)."""
        if self._batches:
            longest = map(max, zip(self._shape[1:], batch.shape[1:], strict=True))
            self._dtype = np.promote_types(self._dtype, batch.dtype)
            self._shape = (self._shape[0] + len(batch), *longest)
        else:
            self._dtype, self._shape = batch.dtype, batch.shape
        np.save(self._file, batch, allow_pickle=False)
        self._batches += 1

    def write(self, file: IO[bytes]) -> None:
        """Writes the array in NumPy's format."""
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self._shape}
        npy.write_array_header_2_0(file, header)
        self._file.seek(0)
        for _ in range(self._batches):
            batch: np.ndarray = np.load(self._file, allow_pickle=False)
            missing = np.subtract(self._shape, batch.shape)[1:].tolist()
            padding = [(0, 0), *((0, count) for count in missing)]
            file.write(np.pad(batch.astype(self._dtype), padding).tobytes())
        self._file.close()


def write_columns(path: Path, columns: Mapping[str, Column | np.ndarray]) -> None:
    """Writes a file of arrays, of which one batch is in memory."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                if isinstance(column, Column):
                    column.write(file)
                else:
                    npy.write_array(file, column, allow_pickle=False)
