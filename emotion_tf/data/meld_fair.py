"""MELD-FAIR: realigned times of MELD's utterances, and boxes of the face that speaks.

Carneiro, Weber, Wermter 2023, "Whose emotion matters? Speaking activity localisation without prior knowledge"
(Neurocomputing 545). Its utterances are numbered anew and made of pieces of MELD's clips; its boxes count the frames of
those pieces joined.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from emotion_tf.data import manifest
from emotion_tf.data.films import Key
from emotion_tf.errors import UserError

TIMES = "MELD_video_realignment_timestamps.csv"
TIME_COLUMNS = (
    "Split", "Dialogue ID", "Utterance ID", "Original Dialogue ID", "Original Utterance ID", "Start Time", "End Time",
)  # fmt: skip
BOX_COLUMNS = ("Split", "Dialogue ID", "Utterance ID", "Frame Number", "X Left", "Y Top", "X Right", "Y Bottom")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fair:
    """MELD-FAIR by MELD's own keys.

    Attributes:
        pieces: (dialogue, utterance, start, end in seconds) of the clips that hold the utterance, in order.
        boxes: number of the frame in the joined pieces -> left, top, width, height.
    """

    pieces: dict[Key, list[tuple[str, str, float, float]]]
    boxes: dict[Key, dict[int, Box]] = field(default_factory=dict)


def read_fair(folder: Path, boxes: Path | None = None) -> Fair:
    """Reads MELD-FAIR's `csvs` folder and, if given, its table of boxes.

    Raises:
        UserError: a table is not there, lacks a column, or holds something that is no number.
    """
    original = {}
    for split in manifest.SPLITS:
        path = folder / f"realigned_{split}_sent_emo.csv"
        if path.is_file():
            columns = ("Dialogue_ID", "Original Utterance_ID", "Utterance_ID")
            for _, cells in manifest.cells_of(path, columns):
                dialogue, theirs, own = (cells[c] for c in ("Dialogue_ID", "Utterance_ID", "Original Utterance_ID"))
                original[split, dialogue, theirs] = split, dialogue, own
    if not original:
        raise UserError(
            f"No realigned_train_sent_emo.csv, ..._dev_..., ..._test_... in {folder}. Expected MELD-FAIR's folder csvs."
        )
    pieces: dict[Key, list[tuple[str, str, float, float]]] = defaultdict(list)
    for where, cells in manifest.cells_of(folder / TIMES, TIME_COLUMNS):
        split, dialogue, utterance, *source = (cells[c] for c in TIME_COLUMNS[:5])
        start, end = _numbers(where, cells, TIME_COLUMNS[5:])
        if (split, dialogue, utterance) in original and end > start:
            pieces[original[split, dialogue, utterance]].append((source[0], source[1], start, end))
    return Fair(dict(pieces), _read_boxes(boxes, original) if boxes else {})


def _read_boxes(path: Path, original: dict[Key, Key]) -> dict[Key, dict[int, Box]]:
    boxes: dict[Key, dict[int, Box]] = defaultdict(dict)
    for where, cells in manifest.cells_of(path, BOX_COLUMNS):
        key = cells["Split"], cells["Dialogue ID"], cells["Utterance ID"]
        frame, left, top, right, bottom = _numbers(where, cells, BOX_COLUMNS[3:])
        if right <= left or bottom <= top:
            raise UserError(f"{where}: An empty box. Expected X Left < X Right and Y Top < Y Bottom.")
        if key in original:
            boxes[original[key]][int(frame)] = left, top, right - left, bottom - top
    return dict(boxes)


def _numbers(where: str, cells: dict[str, str], columns: tuple[str, ...]) -> list[float]:
    try:
        return [float(cells[column]) for column in columns]
    except ValueError as error:
        raise UserError(
            f"{where}: Expected numbers in {', '.join(columns)}. Received: {str(error).split(': ')[-1]}."
        ) from None
