"""MELD-FAIR: realigned times of MELD's utterances, and boxes of the active speaker's face.

Carneiro, Weber, Wermter 2023, "Whose emotion matters? Speaking activity localisation without prior knowledge"
(Neurocomputing 545). It renumbers the utterances and composes them of segments of MELD's clips. Its boxes count the
frames of the joined segments.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from emotion_tf.data import manifest
from emotion_tf.data.clip_source import Key
from emotion_tf.errors import UserError

TIMES = "MELD_video_realignment_timestamps.csv"
TIME_COLUMNS = (
    "Split", "Dialogue ID", "Utterance ID", "Original Dialogue ID", "Original Utterance ID", "Start Time", "End Time",
)  # fmt: skip
BOX_COLUMNS = ("Split", "Dialogue ID", "Utterance ID", "Frame Number", "X Left", "Y Top", "X Right", "Y Bottom")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MeldFair:
    """The tables of MELD-FAIR, with MELD's own keys.

    Attributes:
        segments: utterance -> (dialogue, utterance, start, end in seconds) of the clips that contain it, in order.
        boxes: utterance -> frame number in the joined segments -> left, top, width, height.
    """

    segments: dict[Key, list[tuple[str, str, float, float]]]
    boxes: dict[Key, dict[int, Box]] = field(default_factory=dict)


def read_meld_fair(folder: Path, boxes: Path | None = None) -> MeldFair:
    """Reads MELD-FAIR's folder `csvs` and optionally its table of boxes.

    Raises:
        UserError: a table does not exist, lacks a column, or has a cell that is not a number.
    """
    original = {}
    for split in manifest.SPLITS:
        path = folder / f"realigned_{split}_sent_emo.csv"
        if path.is_file():
            columns = ("Dialogue_ID", "Original Utterance_ID", "Utterance_ID")
            for _, cells in manifest.read_cells(path, columns):
                dialogue, fair_id, meld_id = (
                    cells[c] for c in ("Dialogue_ID", "Utterance_ID", "Original Utterance_ID")
                )
                original[split, dialogue, fair_id] = split, dialogue, meld_id
    if not original:
        raise UserError(
            f"No realigned_train_sent_emo.csv, ..._dev_..., ..._test_... in {folder}. Expected MELD-FAIR's folder csvs."
        )
    segments: dict[Key, list[tuple[str, str, float, float]]] = defaultdict(list)
    for where, cells in manifest.read_cells(folder / TIMES, TIME_COLUMNS):
        split, dialogue, utterance, *source = (cells[c] for c in TIME_COLUMNS[:5])
        start, end = _numbers(where, cells, TIME_COLUMNS[5:])
        if (split, dialogue, utterance) in original and end > start:
            segments[original[split, dialogue, utterance]].append((source[0], source[1], start, end))
    return MeldFair(dict(segments), _read_boxes(boxes, original) if boxes else {})


def _read_boxes(path: Path, original: dict[Key, Key]) -> dict[Key, dict[int, Box]]:
    boxes: dict[Key, dict[int, Box]] = defaultdict(dict)
    for where, cells in manifest.read_cells(path, BOX_COLUMNS):
        key = cells["Split"], cells["Dialogue ID"], cells["Utterance ID"]
        frame, left, top, right, bottom = _numbers(where, cells, BOX_COLUMNS[3:])
        if right <= left or bottom <= top:
            raise UserError(f"{where}: An empty box. Expected X Left < X Right and Y Top < Y Bottom.")
        if key in original:
            boxes[original[key]][int(frame)] = left, top, right - left, bottom - top
    return dict(boxes)


def _numbers(where: str, cells: dict[str, str], columns: tuple[str, ...]) -> list[float]:
    numbers = []
    for column in columns:
        try:
            number = float(cells[column])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{where}: Expected a number in {column}. Received: {cells[column][:60]!r}.")
        numbers.append(number)
    return numbers
