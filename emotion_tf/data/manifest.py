"""The manifest: a CSV table with one row per utterance, read and checked row by row."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from emotion_tf.csv_rows import read_rows
from emotion_tf.errors import UserError, nearest
from emotion_tf.wording import plural

SPLITS = ("train", "dev", "test")
COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
FACES = COLUMNS.index("faces")
"""Place of the faces in the columns, and in the attributes of a row."""
MISSING_VALUES = {"nan", "NaN", "NAN"}
MAX_FACES = 1000
"""Largest number of faces of an utterance, as that of `--faces.crops`."""
MAX_WEIGHT = 1e9  # far below the largest float32, the dtype in the records


@dataclass(frozen=True)
class Row:
    """An utterance of the manifest. The paths of `faces` are inside the manifest's folder."""

    split: str
    dialogue_id: str
    utterance_id: str
    speaker: str
    utterance: str
    label: int
    faces: tuple[Path, ...]
    weight: float
    where: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the utterance."""
        return self.split, self.dialogue_id, self.utterance_id


class StoredRows(Sequence[Row]):
    """Rows in a temporary file, which has no name: 8 bytes a row are in memory, and the `CACHED` rows read last.

    A table of less than `IN_MEMORY` bytes needs no file.

    Raises:
        UserError: the folder of temporary files is full.
    """

    CACHED = 4096
    IN_MEMORY = 1 << 24

    def __init__(self, rows: Iterable[Row]) -> None:
        self._file = tempfile.SpooledTemporaryFile(self.IN_MEMORY)  # noqa: SIM115 (open as long as the rows are)
        ends = array("q", [0])
        try:
            for row in rows:
                values = [*vars(row).values()]
                values[FACES] = [str(face) for face in row.faces]
                ends.append(ends[-1] + self._file.write(json.dumps(values).encode()))
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # of what it would write at its end
                self._file.close()
            raise UserError(
                f"Cannot write to {tempfile.gettempdir()}: {error.strerror}. Free some space, or name another folder "
                "in TMPDIR."
            ) from None
        self._ends = ends
        self._cached = lru_cache(self.CACHED)(self._read)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self._cached(j) for j in range(*i.indices(len(self)))]
        return self._cached(i if i >= 0 else i + len(self))

    def __iter__(self) -> Iterator[Row]:
        return map(self._read, range(len(self)))  # the cache is for neighbours

    def _read(self, i: int) -> Row:
        begin, end = self._ends[i], self._ends[i + 1]
        self._file.seek(begin)
        values = json.loads(self._file.read(end - begin).decode())
        values[FACES] = tuple(map(Path, values[FACES]))
        return Row(*values)


def read_manifest(path: Path, labels: Sequence[str]) -> StoredRows:
    """Reads and checks a manifest. Images are not opened.

    Raises:
        UserError: for the first invalid row, with file, line, rule, value and fix.
    """
    rows = StoredRows(_row(path, where, cells, labels) for where, cells in read_cells(path, COLUMNS))
    check_rows(path, rows)
    return rows


def check_rows(path: Path, rows: Sequence[Row]) -> None:
    """Checks the rows of a table.

    Raises:
        UserError: a key occurs twice, there is no row, or all weights of a split are 0.
    """
    keys, counts = array("q"), dict[str, bool]()
    for row in rows:
        keys.append(hash(row.key))
        counts[row.split] = counts.get(row.split, False) or row.weight > 0
    hashes = np.frombuffer(keys, np.int64)
    hashes.sort()  # in place
    _check_unique(rows, set(hashes[1:][hashes[1:] == hashes[:-1]].tolist()))
    if not len(rows):
        raise UserError(f"{path}: The manifest has no row. Expected one row per utterance below the header.")
    for split, is_counted in counts.items():
        if not is_counted:
            raise UserError(f"{path}: All weights of {split} are 0. Expected at least one utterance that counts.")


def _check_unique(rows: Iterable[Row], hashes: set[int]) -> None:
    """Raises UserError if a key occurs twice; `hashes` are those that do."""
    if not hashes:
        return
    first: dict[tuple[str, str, str], str] = {}
    for row in rows:
        if hash(row.key) not in hashes:
            continue
        if row.key in first:
            raise UserError(
                f"{row.where}: Duplicate key split={row.split}, dialogue_id={row.dialogue_id}, "
                f"utterance_id={row.utterance_id}. "
                f"Expected each once; it is first in {first[row.key].rsplit(':', 1)[-1].strip()}. Remove "
                "one or renumber it."
            )
        first[row.key] = row.where


def leak_notes(sources: Iterable[tuple[str, Iterable[Hashable]]], what: str) -> list[str]:
    """Returns a note if splits share images or clips, which leaks training data into the scores; else an empty list.

    Args:
        sources: of each row its split, and its images or the segments of its clip. 8 bytes of each are held.
        what: name of one of the sources in the note.
    """
    hashes: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
    for split, row_sources in sources:
        hashes[split].extend(map(hash, row_sources))
    different = [np.unique(np.frombuffer(of_split, np.int64)) for of_split in hashes.values()]
    _, splits = np.unique(np.concatenate([*different, np.empty(0, np.int64)]), return_counts=True)
    count = int((splits > 1).sum())
    note = f"{plural(count, what)} in more than one split, so that scores are too high. Expected each in one split only"
    return [note] if count else []


def read_cells(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (file and line, column -> cell) of each row of a CSV table.

    Raises:
        UserError: the table is not readable, not UTF-8, not CSV, or lacks one of the `columns`.
    """
    try:
        yield from name_cells(path, read_rows(path, columns))
    except FileNotFoundError as error:
        raise UserError(
            f"Cannot read the manifest {path}: {error.strerror}. Expected a CSV file with columns {', '.join(columns)}."
        ) from None


def name_cells(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (file and line, column -> cell) of each row that follows the header."""
    _, header = next(rows)
    for line, cells in rows:
        yield f"{path}: line {line}", dict(zip(header, cells, strict=True))


def _row(path: Path, where: str, cells: dict[str, str], labels: Sequence[str]) -> Row:
    check_cells(where, {column: cells[column] for column in COLUMNS}, labels)
    faces = tuple(resolve_path(path, where, "face", name) for name in split_faces(where, cells["faces"]))
    if not cells["utterance"].strip() and not faces:
        raise UserError(f"{where}: Neither an utterance nor a face. Expected at least one of them. Remove the row.")
    return make_row(where, cells, labels, faces)


def make_row(where: str, cells: dict[str, str], labels: Sequence[str], faces: tuple[Path, ...] = ()) -> Row:
    """Returns the row of cells that `check_cells` accepts. Raises UserError for an invalid weight."""
    return Row(
        cells["split"],
        cells["dialogue_id"],
        cells["utterance_id"],
        cells["speaker"],
        cells["utterance"],
        list(labels).index(cells["emotion"]),
        faces,
        _weight(where, cells.get("weight", "")),
        where,
    )


def split_faces(where: str, cell: str) -> list[str]:
    """Returns the names in a cell `faces`, joined by `;`. Raises UserError for more than `MAX_FACES`."""
    names = [name.strip() for name in cell.split(";") if name.strip()]
    if len(names) > MAX_FACES:
        raise UserError(f"{where}: Expected at most {MAX_FACES:,} faces. Received: {len(names):,}. Leave some out.")
    return names


def check_cells(where: str, cells: dict[str, str], labels: Sequence[str]) -> None:
    """Raises UserError for a missing value (nan), an empty id, an unknown split or an unknown emotion."""
    for column, cell in cells.items():
        if cell in MISSING_VALUES:
            raise UserError(
                f"{where}: Column {column!r} is {cell!r}, a missing value. Expected text, or an "
                "empty cell where it may be absent."
            )
    for column in ("dialogue_id", "utterance_id"):
        if not cells[column].strip():
            raise UserError(f"{where}: Column {column!r} is empty. Expected an id.")
    if cells["split"] not in SPLITS:
        raise UserError(
            f"{where}: Invalid split. Expected one of: {', '.join(SPLITS)}. Received: "
            f"{cells['split']!r}.{nearest(cells['split'], SPLITS)}"
        )
    if cells["emotion"] not in labels:
        raise UserError(
            f"{where}: Unknown emotion. Expected one of: {', '.join(labels)}. Received: {cells['emotion']!r}."
            f"{nearest(cells['emotion'], labels)} Other labels are named by --labels."
        )


def resolve_path(manifest: Path, where: str, what: str, name: str) -> Path:
    """Returns the path that a cell names. Raises UserError if it is outside the table's folder."""
    root = manifest.parent.resolve()
    try:
        path = (root / name.strip()).resolve()
    except (OSError, ValueError, RuntimeError):
        raise UserError(f"{where}: Invalid {what} path. Expected a file name. Received: {name!r}.") from None
    if not path.is_relative_to(root):
        raise UserError(
            f"{where}: The {what} path leaves the manifest's folder. Expected a path inside {root}. "
            f"Received: {name.strip()!r}."
        )
    return path


def _weight(where: str, cell: str) -> float:
    try:
        weight = float(cell) if cell.strip() else 1.0
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= MAX_WEIGHT:
        raise UserError(f"{where}: Invalid weight. Expected a number from 0 to {MAX_WEIGHT:g}. Received: {cell!r}.")
    return weight
