"""What an evaluation wants to know of each utterance beside its label: who, where, what was said before, which face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data import context
from emotion_tf.data.dataset import Rows
from emotion_tf.faces.active_speaker import MARGIN
from emotion_tf.faces.align import sharpness

LINES = 3
NAMES = (
    "dialogue_id", "utterance_id", "speaker", "utterance", "context", "context_speaker", "face_jpeg", "face_policy",
    "face_margin", "face_tracks", "face_height", "face_sharpness",
)  # fmt: skip


def read_utterances(rows: Rows) -> pd.DataFrame:
    """A row an utterance, in the order of `pipeline.eval_batches`.

    Returns:
        Columns dialogue_id, utterance_id, speaker, utterance; before (the at most 3 lines before it, oldest first);
        faces (number of crops), face_height (pixels in the frame, median of the crops; nan: no face, or given as a
        crop), sharpness (variance of the Laplacian, median of the crops; nan: no face); face_tracks (faces of the
        clip; 0: no clip), doubtful (whether the choice among them is).
    """
    return pd.DataFrame([_facts(row) for row in _rows(rows)])


def read_crops(rows: Rows, wanted: Iterable[int]) -> dict[int, bytes]:
    """The middle face crop, JPEG, of those of the `wanted` utterances (by place) that have a face."""
    places, found = set(wanted), {}
    for i, row in enumerate(_rows(rows, ("face_jpeg",))):
        if i in places and row["face_jpeg"]:
            found[i] = row["face_jpeg"][len(row["face_jpeg"]) // 2]
    return found


def _rows(rows: Rows, names: tuple[str, ...] = NAMES) -> Iterator[dict[str, Any]]:
    for _, batch in rows.numbered().batch(256):
        columns = schema.parse_examples(batch, names)
        values = {n: c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for n, c in columns.items()}
        for row in zip(*values.values(), strict=True):
            yield dict(zip(values, row, strict=True))


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    before = zip(row["context_speaker"], row["context"], strict=True)
    sharp = row["face_sharpness"] or [_sharpness(jpeg) for jpeg in row["face_jpeg"]]
    return {
        **{name: row[name].decode() for name in ("dialogue_id", "utterance_id", "speaker", "utterance")},
        "before": [context.line(speaker.decode(), text.decode()) for speaker, text in before][-LINES:],
        "faces": len(row["face_jpeg"]),
        "face_height": float(np.median(row["face_height"])) if row["face_height"] else np.nan,
        "sharpness": float(np.median(sharp)) if sharp else np.nan,
        "face_tracks": row["face_tracks"],
        # as `audit` counts them
        "doubtful": row["face_tracks"] > 1 and (row["face_margin"] < MARGIN or b">" in row["face_policy"]),
    }


def _sharpness(jpeg: bytes) -> float:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.nan if pixels is None else sharpness(pixels)
