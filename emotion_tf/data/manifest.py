"""The manifest: a CSV table with one row per utterance, read and checked row by row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_tf.csv_rows import read_rows
from emotion_tf.errors import UserError, nearest

SPLITS = ("train", "dev", "test")
COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
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


def read_manifest(path: Path, labels: Sequence[str]) -> list[Row]:
    """Reads and checks a manifest. Images are not opened.

    Raises:
        UserError: for the first invalid row, with file, line, rule, value and fix.
    """
    return check_rows(path, [_row(path, where, cells, labels) for where, cells in read_cells(path, COLUMNS)])


def check_rows(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Checks the rows of a table and returns them as a list.

    Raises:
        UserError: a key occurs twice, there is no row, or all weights of a split are 0.
    """
    rows = list(rows)
    first: dict[tuple[str, str, str], str] = {}
    for row in rows:
        if row.key in first:
            raise UserError(
                f"{row.where}: Duplicate key split={row.split}, dialogue_id={row.dialogue_id}, "
                f"utterance_id={row.utterance_id}. "
                f"Expected each once; it is first in {first[row.key].rsplit(':', 1)[-1].strip()}. Remove "
                "one or renumber it."
            )
        first[row.key] = row.where
    if not rows:
        raise UserError(f"{path}: The manifest has no row. Expected one row per utterance below the header.")
    for split in {row.split for row in rows}:
        if not any(row.weight for row in rows if row.split == split):
            raise UserError(f"{path}: All weights of {split} are 0. Expected at least one utterance that counts.")
    return rows


def group_dialogues(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Returns (split, dialogue_id) -> rows in the manifest's order, which is the order of speaking."""
    dialogues: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        dialogues[row.split, row.dialogue_id].append(row)
    return dict(dialogues)


def leak_notes(sources: Mapping[tuple[str, str, str], Iterable[Hashable]], what: str) -> list[str]:
    """Returns a note if splits share images or clips, which leaks training data into the scores; else an empty list.

    Args:
        sources: key of a row -> its images, or the segments of its clip.
        what: name of the sources in the note.
    """
    splits_of: dict[Hashable, set[str]] = defaultdict(set)
    for (split, *_), row_sources in sources.items():
        for source in row_sources:
            splits_of[source].add(split)
    count = sum(len(splits) > 1 for splits in splits_of.values())
    note = f"{count} {what} occur in more than one split, so that scores are too high. Expected each in one split only"
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
