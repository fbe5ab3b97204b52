"""`prepare meld`: reads MELD's tables and clips from the folder that they were unpacked into.

MELD (Poria et al. 2019, "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations").
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_tf import files
from emotion_tf.csv_rows import parse_rows
from emotion_tf.data import manifest, meld_clips
from emotion_tf.data.clip_source import Key
from emotion_tf.data.clips import parse_time
from emotion_tf.data.meld_fair import MeldFair
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip
from emotion_tf.labels import MELD_EMOTIONS, SENTIMENTS
from emotion_tf.wording import plural

MAX_BYTES = 16 << 20
"""The tables of MELD have 0.1 to 1.2 MB."""
TARGETS = {"emotion": ("Emotion", MELD_EMOTIONS), "sentiment": ("Sentiment", SENTIMENTS)}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
MAX_DIGITS = 18
"""Length of an id: it fits int64."""
# Old copies decode bytes of Windows code page 1252 as Latin-1, such as U+0092 for an apostrophe.
REPAIR = {n: bytes([n]).decode("cp1252", errors="ignore") or None for n in range(0x80, 0xA0)}


@dataclass
class Meld:
    """The rows and clips of MELD.

    Attributes:
        rows: rows of all splits, each dialogue in order of speaking.
        clips: utterance -> its clip, or a `FaceCrops` with the problem.
        account: counts of the clip files by split, and notes on the tables.
    """

    rows: list[manifest.Row]
    clips: dict[Key, Clip | FaceCrops]
    account: dict[str, Any] = field(default_factory=dict)


def read_meld(root: Path, target: str = "emotion", text_only: bool = False, fair: MeldFair | None = None) -> Meld:
    """Reads MELD's tables and lists its clips.

    Args:
        root: folder with `{train,dev,test}_sent_emo.csv` and the clips, at any depth.
        target: emotion (seven classes) or sentiment (three).
        text_only: whether to ignore the clips.
        fair: MELD-FAIR's times and boxes.

    Raises:
        UserError: no folder, no table, no clip, or an invalid table.
    """
    if target not in TARGETS:
        raise UserError(f"Invalid `--target`. Expected one of: {', '.join(TARGETS)}. Received: {target!r}.")
    rows: list[manifest.Row] = []
    notes: list[str] = []
    for split, path in _tables(root).items():
        table_rows, table_notes = _read_table(path, split, target)
        rows += table_rows
        notes += table_notes
    if text_only:
        return Meld(rows, {}, {"notes": notes})
    listing = meld_clips.list_clips(root, {row.key for row in rows})
    clips = dict(listing.clips)
    if fair:
        clips, fair_notes = _realign(rows, clips, fair)
        notes += fair_notes
    return Meld(rows, clips, {"clips": listing.account, "notes": notes + listing.notes})


def _tables(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise UserError(f"No folder {root}. Expected --root to name the folder that MELD.Raw was unpacked into.")
    tables = {}
    for split in manifest.SPLITS:
        name = f"{split}_sent_emo.csv"
        paths = sorted(path for path in root.rglob(name) if not path.is_dir())
        if len({_read(path) for path in paths}) > 1:
            raise UserError(f"Two different {name}: {paths[0]} and {paths[1]}. Expected one. Remove the other.")
        if paths:
            tables[split] = paths[0]
    if not tables:
        names = ", ".join(f"{split}_sent_emo.csv" for split in manifest.SPLITS)
        raise UserError(f"No table of MELD in {root} or any folder below it. Expected {names}.")
    return tables


def _read_table(path: Path, split: str, target: str) -> tuple[list[manifest.Row], list[str]]:
    column, labels = TARGETS[target]
    text, notes = _decode(path)
    rows, invalid_times = [], 0
    # the tables of MELD are not always strict CSV
    cells_of_rows = parse_rows(path, io.StringIO(text, newline=""), COLUMNS, strict=False)
    for where, cells in manifest.name_cells(path, cells_of_rows):
        row_cells = {
            "split": split,
            "dialogue_id": _id(where, "Dialogue_ID", cells["Dialogue_ID"]),
            "utterance_id": _id(where, "Utterance_ID", cells["Utterance_ID"]),
            "speaker": cells["Speaker"],
            "utterance": cells["Utterance"],
            "emotion": cells[column].strip().lower(),
        }
        manifest.check_cells(where, row_cells, labels)
        rows.append(manifest.make_row(where, row_cells, labels))
        invalid_times += _is_invalid(cells["StartTime"], cells["EndTime"])
    if invalid_times:
        count = plural(invalid_times, "row")
        notes.append(f"{path.name}: {count} with a StartTime or EndTime that is no time, or an end before the start")
    manifest.check_rows(path, rows)
    return sorted(rows, key=lambda row: (int(row.dialogue_id), int(row.utterance_id))), notes


def _read(path: Path) -> bytes:
    return files.read_regular(path, MAX_BYTES, "table", "a table of MELD of at most 16 MB")


def _decode(path: Path) -> tuple[str, list[str]]:
    data = _read(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    repaired = text.translate(REPAIR)
    count = sum(a != b for a, b in zip(text.splitlines(), repaired.splitlines(), strict=False))
    return repaired, [f"{path.name}: {count} lines in an old encoding, repaired"] if count else []


def _id(where: str, column: str, cell: str) -> str:
    digits = cell.strip()
    if not digits.isdecimal() or len(digits) > MAX_DIGITS:
        raise UserError(
            f"{where}: Invalid {column}. Expected a whole number of at most {MAX_DIGITS} digits. Received: "
            f"{cell[:60]!r}."
        )
    return str(int(digits))


def _is_invalid(start: str, end: str) -> bool:
    try:
        return parse_time(end) <= parse_time(start)
    except ValueError:
        return True


def _realign(
    rows: Sequence[manifest.Row], clips: dict[Key, Clip | FaceCrops], fair: MeldFair
) -> tuple[dict[Key, Clip | FaceCrops], list[str]]:
    """Replaces whole clips by MELD-FAIR's segments; returns the clips and notes."""
    realigned: dict[Key, Clip | FaceCrops] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        times = fair.segments.get(row.key)
        parts = [
            (clips.get((row.split, dialogue, utterance)), start, end) for dialogue, utterance, start, end in times or ()
        ]
        usable = tuple(
            Segment(clip.segments[0].path, start, end) for clip, start, end in parts if isinstance(clip, Clip)
        )
        if usable and len(usable) == len(parts):
            realigned[row.key] = Clip(usable, fair.boxes.get(row.key))
            counts["realigned"] += 1
        else:
            # the utterance has no times, or a segment is in a clip that cannot be used
            if row.key in clips:
                realigned[row.key] = clips[row.key]
            counts["whole clip, for want of times" if not times else "whole clip, for want of a segment"] += 1
    return realigned, ["MELD-FAIR: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))]
