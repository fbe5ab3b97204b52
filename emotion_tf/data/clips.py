"""`prepare clips`: a table of utterances with the clip that each was filmed in, for data that is not MELD."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from emotion_tf.data import manifest
from emotion_tf.data.films import Key
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip

COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "clip")
TIMES = ("start", "end")
TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d+)?)")


def seconds(text: str) -> float:
    """Seconds of a time as `12.5`, `1:02.5` or `0:20:26,183`. Raises ValueError for anything else."""
    found = TIME.fullmatch(text.strip())
    if not found:
        raise ValueError(text)
    hours, minutes, rest = found.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest.replace(",", "."))


def read_clips(path: Path, labels: Sequence[str]) -> tuple[list[manifest.Row], dict[Key, Clip | FaceCrops]]:
    """Reads and checks a table of clips. The clips are not opened here, but they must be there.

    An empty `clip` is an utterance that was not filmed. `start` and `end`, if there are such columns, cut it out of a
    longer film.

    Returns:
        The rows, and the clip of each that has one.

    Raises:
        UserError: on the first fault, with file, line, rule, value and fix.
    """
    rows: list[manifest.Row] = []
    clips: dict[Key, Clip | FaceCrops] = {}
    for where, cells in manifest.cells_of(path, COLUMNS):
        manifest.check_cells(where, {c: cells[c] for c in (*COLUMNS, *TIMES) if c in cells}, labels)
        row = manifest.to_row(where, cells, labels)
        name = cells["clip"].strip()
        if not row.utterance.strip() and not name:
            raise UserError(f"{where}: Neither an utterance nor a clip. Expected at least one of them. Remove the row.")
        if name:
            clips[row.key] = Clip((_piece(path, where, name, cells),))
        rows.append(row)
    rows = manifest.checked_rows(path, rows)
    if not clips:
        raise UserError(f"{path}: No row names a clip. Expected video files in the column clip, relative to the table.")
    return rows, clips


def _piece(path: Path, where: str, name: str, cells: dict[str, str]) -> Segment:
    clip = manifest.inside(path, where, "clip", name)
    if not clip.is_file():
        raise UserError(f"{where}: No clip at {clip}. Expected a video file, relative to the table; empty: not filmed.")
    start, end = (
        _time(where, column, cells.get(column, ""), instead)
        for column, instead in zip(TIMES, (0.0, float("inf")), strict=True)
    )
    if end <= start:
        raise UserError(
            f"{where}: The clip ends before it starts. Expected start < end. Received: {start:g} and {end:g}."
        )
    return Segment(clip, start, end)


def _time(where: str, column: str, cell: str, instead: float) -> float:
    try:
        return seconds(cell) if cell.strip() else instead
    except ValueError:
        raise UserError(
            f"{where}: Invalid {column}. Expected seconds, or hours:minutes:seconds. Received: {cell!r}."
        ) from None
