"""The table of utterances: one row an utterance, read and checked row by row."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_tf.errors import UserError, nearest

SPLITS = ("train", "dev", "test")
COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
NOT_A_VALUE = {"nan", "NaN", "NAN"}
LARGEST_WEIGHT = 1e9  # far inside of float32, which the records keep


@dataclass(frozen=True)
class Row:
    """One utterance of the manifest. `faces` are checked to lie inside the manifest's folder."""

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
        """What names the utterance."""
        return self.split, self.dialogue_id, self.utterance_id


def read_manifest(path: Path, labels: Sequence[str]) -> list[Row]:
    """Reads and checks a manifest. Pictures are not opened here.

    Raises:
        UserError: on the first fault, with file, line, rule, value and fix.
    """
    return checked_rows(path, [_row(path, where, cells, labels) for where, cells in cells_of(path, COLUMNS)])


def checked_rows(path: Path, found: Iterable[Row]) -> list[Row]:
    """The rows of a table: each key once, at least one row, and weights that count.

    Raises:
        UserError: on the first fault.
    """
    rows: list[Row] = []
    seen: dict[tuple[str, str, str], str] = {}
    for row in found:
        if row.key in seen:
            raise UserError(
                f"{row.where}: Duplicate key split={row.split}, dialogue_id={row.dialogue_id}, "
                f"utterance_id={row.utterance_id}. "
                f"Expected each once; it is first in {seen[row.key].rsplit(':', 1)[-1].strip()}. Remove "
                "one or number it anew."
            )
        seen[row.key] = row.where
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: The manifest has no row. Expected one row an utterance below the header.")
    for split in {row.split for row in rows}:
        if not any(row.weight for row in rows if row.split == split):
            raise UserError(f"{path}: All weights of {split} are 0. Expected at least one utterance that counts.")
    return rows


def dialogues(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of each (split, dialogue_id), in the manifest's order, which is the order of speaking."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row.split, row.dialogue_id].append(row)
    return dict(found)


def shared_between_splits(sources: Mapping[tuple[str, str, str], Iterable[Hashable]], what: str) -> list[str]:
    """A note when splits share what their utterances are taken from: what was learned of it in one is known in another.

    Args:
        sources: key of a row -> its pictures, or the parts of its film.
        what: they are called in the note.
    """
    found: dict[Hashable, set[str]] = defaultdict(set)
    for (split, *_), ones in sources.items():
        for one in ones:
            found[one].add(split)
    count = sum(len(splits) > 1 for splits in found.values())
    note = f"{count} {what} occur in more than one split: scores there flatter. Expected each in one split alone"
    return [note] if count else []


def cells_of(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, column -> cell) of each row of a CSV table that has at least these columns.

    Raises:
        UserError: not readable, not UTF-8, not CSV, or without one of the columns.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            _check_header(path, header, columns)
            for cells in reader:
                where = f"{path}: line {reader.line_num}"
                if not cells:  # a blank line, as editors leave them at the end
                    continue
                if any("\0" in cell for cell in cells):
                    raise UserError(f"{where}: A NUL byte in the row. Expected text. Save the table as UTF-8.")
                if len(cells) != len(header or ()):
                    raise UserError(
                        f"{where}: Expected {len(header or ())} cells as in the header. Received: {len(cells)}. "
                        "Quote cells that hold a comma."
                    )
                yield where, dict(zip(header or (), cells, strict=True))
    except UnicodeDecodeError as error:
        byte = error.object[error.start : error.start + 1]
        raise UserError(
            f"{path}: line {_undecodable_line(path)}: Expected UTF-8. Received: {byte!r}. Save the table as UTF-8."
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{path}: line {reader.line_num}: Not a CSV table: {error}. Quote cells that hold a comma or a line break."
        ) from None
    except OSError as error:
        raise UserError(
            f"Cannot read the manifest {path}: {error.strerror}. Expected a CSV file with columns {', '.join(columns)}."
        ) from None


def _undecodable_line(path: Path) -> int:
    """Where the text ends to be UTF-8: the reader's own error counts from the start of its buffer."""
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        data = data[: error.start]
    return data.count(b"\n") + 1


def _check_header(path: Path, header: list[str] | None, columns: Sequence[str]) -> None:
    if not header:
        raise UserError(f"{path}: The file is empty. Expected a CSV table with columns {', '.join(columns)}.")
    for column in columns:
        if column not in header:
            raise UserError(
                f"{path}: line 1: No column {column!r}. Expected {', '.join(columns)}. Received: "
                f"{', '.join(header)}.{nearest(column, header)}"
            )
    twice = {column for column in header if header.count(column) > 1}
    if twice:
        raise UserError(f"{path}: line 1: Column {sorted(twice)[0]!r} is there twice. Expected each once.")


def _row(path: Path, where: str, cells: dict[str, str], labels: Sequence[str]) -> Row:
    check_cells(where, {column: cells[column] for column in COLUMNS}, labels)
    faces = tuple(inside(path, where, "face", name) for name in cells["faces"].split(";") if name.strip())
    if not cells["utterance"].strip() and not faces:
        raise UserError(f"{where}: Neither an utterance nor a face. Expected at least one of them. Remove the row.")
    return to_row(where, cells, labels, faces)


def to_row(where: str, cells: dict[str, str], labels: Sequence[str], faces: tuple[Path, ...] = ()) -> Row:
    """The row of checked cells."""
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


def check_cells(where: str, cells: dict[str, str], labels: Sequence[str]) -> None:
    """Raises UserError for a lost value, an empty id, an unknown split or emotion."""
    for column, cell in cells.items():
        if cell in NOT_A_VALUE:
            raise UserError(
                f"{where}: Column {column!r} is {cell!r}, a lost value. Expected text, or an "
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


def inside(manifest: Path, where: str, what: str, name: str) -> Path:
    """The path that a cell names; raises UserError when it leaves the table's folder."""
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
    if not 0 <= weight <= LARGEST_WEIGHT:
        raise UserError(f"{where}: Invalid weight. Expected a number from 0 to {LARGEST_WEIGHT:g}. Received: {cell!r}.")
    return weight
