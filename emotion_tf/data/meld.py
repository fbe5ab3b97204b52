"""`prepare meld`: MELD's tables and clips as people have them on disk.

MELD (Poria et al. 2019, "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations").
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_tf.data import manifest, meld_clips
from emotion_tf.data.clips import seconds
from emotion_tf.data.films import Key
from emotion_tf.data.meld_fair import Fair
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip
from emotion_tf.labels import MELD_EMOTIONS, SENTIMENTS

TARGETS = {"emotion": ("Emotion", MELD_EMOTIONS), "sentiment": ("Sentiment", SENTIMENTS)}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
# Old copies hold the bytes of Windows' code page 1252 as if they were Latin-1: U+0092 for an apostrophe.
REPAIR = {n: bytes([n]).decode("cp1252", errors="ignore") or None for n in range(0x80, 0xA0)}


@dataclass
class Meld:
    """MELD as it was found.

    Attributes:
        rows: of all splits, in order of speaking inside each dialogue.
        clips: each row's clip, or why there is none.
        account: clips by split and what became of them, and notes on the tables.
    """

    rows: list[manifest.Row]
    clips: dict[Key, Clip | FaceCrops]
    account: dict[str, Any] = field(default_factory=dict)


def read_meld(root: Path, target: str = "emotion", text_only: bool = False, fair: Fair | None = None) -> Meld:
    """Finds and reads MELD below a folder, wherever it was unpacked.

    Args:
        root: folder with `{train,dev,test}_sent_emo.csv` and the clips, at any depth.
        target: emotion (seven classes) or sentiment (three).
        text_only: do not look for clips.
        fair: MELD-FAIR's times and boxes.

    Raises:
        UserError: no folder, no table, no clip, or a fault in a table.
    """
    if target not in TARGETS:
        raise UserError(f"Invalid `--target`. Expected one of: {', '.join(TARGETS)}. Received: {target!r}.")
    rows: list[manifest.Row] = []
    notes: list[str] = []
    for split, path in _tables(root).items():
        found, said = _read_table(path, split, target)
        rows += found
        notes += said
    if text_only:
        return Meld(rows, {}, {"notes": notes})
    listing = meld_clips.list_clips(root, {row.key for row in rows})
    clips = dict(listing.clips)
    if fair:
        clips, said = _realigned(rows, clips, fair)
        notes += said
    return Meld(rows, clips, {"clips": listing.account, "notes": notes + listing.notes})


def _tables(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise UserError(f"No folder {root}. Expected --root to name the folder that MELD.Raw was unpacked into.")
    tables = {}
    for split in manifest.SPLITS:
        name = f"{split}_sent_emo.csv"
        found = sorted(p for p in root.rglob(name) if p.is_file())
        if len({p.read_bytes() for p in found}) > 1:
            raise UserError(f"Two different {name}: {found[0]} and {found[1]}. Expected one. Remove the other.")
        if found:
            tables[split] = found[0]
    if not tables:
        names = ", ".join(f"{split}_sent_emo.csv" for split in manifest.SPLITS)
        raise UserError(f"No table of MELD in {root} or any folder below it. Expected {names}.")
    return tables


def _read_table(path: Path, split: str, target: str) -> tuple[list[manifest.Row], list[str]]:
    column, labels = TARGETS[target]
    text, notes = _decoded(path)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path}: line 1: No column {missing[0]!r}. Expected {', '.join(COLUMNS)}. "
            f"Received: {', '.join(reader.fieldnames or ()) or 'an empty file'}."
        )
    rows, odd = [], 0
    for cells in reader:
        where = f"{path}: line {reader.line_num}"
        if None in cells or None in cells.values():
            raise UserError(
                f"{where}: Expected {len(reader.fieldnames or ())} cells as in the header. Get the table anew."
            )
        own = {
            "split": split,
            "dialogue_id": _id(where, "Dialogue_ID", cells["Dialogue_ID"]),
            "utterance_id": _id(where, "Utterance_ID", cells["Utterance_ID"]),
            "speaker": cells["Speaker"],
            "utterance": cells["Utterance"],
            "emotion": cells[column].strip().lower(),
        }
        manifest.check_cells(where, own, labels)
        rows.append(manifest.to_row(where, own, labels))
        odd += _is_odd(cells["StartTime"], cells["EndTime"])
    if odd:
        notes.append(f"{path.name}: {odd} rows with a StartTime or EndTime that is no time, or an end before the start")
    return sorted(
        manifest.checked_rows(path, rows), key=lambda row: (int(row.dialogue_id), int(row.utterance_id))
    ), notes


def _decoded(path: Path) -> tuple[str, list[str]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    repaired = text.translate(REPAIR)
    count = sum(a != b for a, b in zip(text.splitlines(), repaired.splitlines(), strict=False))
    return repaired, [f"{path.name}: {count} lines in an old encoding, repaired"] if count else []


def _id(where: str, column: str, cell: str) -> str:
    if not cell.strip().isdecimal():
        raise UserError(f"{where}: Invalid {column}. Expected a whole number. Received: {cell!r}.")
    return str(int(cell))


def _is_odd(start: str, end: str) -> bool:
    try:
        return seconds(end) <= seconds(start)
    except ValueError:
        return True


def _realigned(
    rows: Sequence[manifest.Row], clips: dict[Key, Clip | FaceCrops], fair: Fair
) -> tuple[dict[Key, Clip | FaceCrops], list[str]]:
    """The clips with MELD-FAIR's pieces in place of the whole ones."""
    made: dict[Key, Clip | FaceCrops] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        pieces = fair.pieces.get(row.key)
        parts = [
            (clips.get((row.split, dialogue, utterance)), start, end)
            for dialogue, utterance, start, end in pieces or ()
        ]
        usable = tuple(
            Segment(clip.segments[0].path, start, end) for clip, start, end in parts if isinstance(clip, Clip)
        )
        if usable and len(usable) == len(parts):
            made[row.key] = Clip(usable, fair.boxes.get(row.key))
            counts["realigned"] += 1
        else:
            # no times of its own, or a piece of it lies in a clip that cannot be used
            if row.key in clips:
                made[row.key] = clips[row.key]
            counts["whole clip, for want of times" if not pieces else "whole clip, for want of a piece"] += 1
    return made, ["MELD-FAIR: " + ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))]
