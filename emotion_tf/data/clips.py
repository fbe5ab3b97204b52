"""`prepare clips`: reads a table of utterances and their clips, for data other than MELD."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from emotion_tf.data import manifest
from emotion_tf.data.clip_source import Key
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip

COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "clip")
TIMES = ("start", "end")
TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d+)?)")


def parse_time(text: str) -> float:
    """Returns the seconds of a time such as `12.5`, `1:02.5` or `0:20:26,183`. Raises ValueError for anything else."""
    match = TIME.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds.replace(",", "."))


def read_clips(path: Path, labels: Sequence[str]) -> tuple[list[manifest.Row], dict[Key, Clip | FaceCrops]]:
    """Reads and checks a table of clips. The clip files must exist; they are not opened.

    An empty `clip` means that the utterance was not filmed. The optional columns `start` and `end` select a segment of
    a longer clip.

    Returns:
        The rows, and the clip of each row that has one.

    Raises:
        UserError: for the first invalid row, with file, line, rule, value and fix.
    """
    rows: list[manifest.Row] = []
    clips: dict[Key, Clip | FaceCrops] = {}
    for where, cells in manifest.read_cells(path, COLUMNS):
        manifest.check_cells(where, {c: cells[c] for c in (*COLUMNS, *TIMES) if c in cells}, labels)
        row = manifest.make_row(where, cells, labels)
        name = cells["clip"].strip()
        if not row.utterance.strip() and not name:
            raise UserError(f"{where}: Neither an utterance nor a clip. Expected at least one of them. Remove the row.")
        if name:
            clips[row.key] = Clip((_segment(path, where, name, cells),))
        rows.append(row)
    manifest.check_rows(path, rows)
    if not clips:
        raise UserError(f"{path}: No row names a clip. Expected video files in the column clip, relative to the table.")
    return rows, clips


def _segment(path: Path, where: str, name: str, cells: dict[str, str]) -> Segment:
    clip = manifest.resolve_path(path, where, "clip", name)
    if not os.path.isfile(clip):  # nor one whose name is too long
        raise UserError(f"{where}: No clip at {clip}. Expected a video file, relative to the table; empty: not filmed.")
    start, end = (
        _time(where, column, cells.get(column, ""), default)
        for column, default in zip(TIMES, (0.0, float("inf")), strict=True)
    )
    if end <= start:
        raise UserError(
            f"{where}: The clip ends before it starts. Expected start < end. Received: {start:g} and {end:g}."
        )
    return Segment(clip, start, end)


def _time(where: str, column: str, cell: str, default: float) -> float:
    try:
        return parse_time(cell) if cell.strip() else default
    except ValueError:
        raise UserError(
            f"{where}: Invalid {column}. Expected seconds, or hours:minutes:seconds. Received: {cell!r}."
        ) from None
