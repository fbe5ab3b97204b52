"""Tables of utterances for reports: ids, text, context, and properties of the face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from emotion_tf import pictures, schema
from emotion_tf.data import context
from emotion_tf.data.batches import Batches
from emotion_tf.data.rows import Rows
from emotion_tf.faces.active_speaker import MARGIN
from emotion_tf.faces.align import sharpness

LINES = 3
TEXTS = ("dialogue_id", "utterance_id", "speaker", "utterance", "context", "context_speaker")
FACES = ("face_jpeg", "face_policy", "face_margin", "face_tracks", "face_height", "face_sharpness")
NAMES = ("dialogue_id", "speaker", "utterance", *FACES)


def read_utterances(rows: Rows) -> pd.DataFrame:
    """Returns a table with a row per utterance, in the order of `pipeline.eval_batches`.

    Returns:
        Columns dialogue_id and speaker (categorical); words (their number); faces (number of crops); face_height
        (pixels in the frame, median of the crops; nan without a face or a clip);
        sharpness (variance of the Laplacian, median of the crops; nan without a face); face_tracks (faces in the clip;
        0 without a clip); doubtful (whether the selection among them is uncertain).
    """
    codes: dict[str, dict[str, int]] = {"dialogue_id": {}, "speaker": {}}
    parts, rest = [], _read_records(rows)
    while batch := [_properties(row) for row in islice(rest, 4096)]:
        table = pd.DataFrame(batch)
        for name, of_name in codes.items():  # each different text is held once
            table[name] = np.array([of_name.setdefault(value, len(of_name)) for value in table[name]], np.int32)
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(**{name: pd.Categorical.from_codes(table[name], list(of)) for name, of in codes.items()})


def read_texts(rows: Rows, positions: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Returns position -> dialogue_id, utterance_id, speaker, utterance and before (3 previous lines, oldest first)."""
    positions, texts = set(positions), {}
    for i, row in enumerate(_read_records(rows, TEXTS)):
        if i in positions:
            before = zip(row["context_speaker"], row["context"], strict=True)
            lines = [context.format_line(speaker.decode(), text.decode()) for speaker, text in before]
            texts[i] = {**{name: row[name].decode() for name in TEXTS[:4]}, "before": lines[-LINES:]}
    return texts


def read_crops(rows: Rows, positions: Iterable[int]) -> dict[int, bytes]:
    """Returns position -> middle face crop, JPEG, for the utterances at `positions` that have a face."""
    positions, crops = set(positions), {}
    for i, row in enumerate(_read_records(rows, ("face_jpeg",))):
        if i in positions and row["face_jpeg"]:
            crops[i] = row["face_jpeg"][len(row["face_jpeg"]) // 2]
    return crops


def _read_records(rows: Rows, names: tuple[str, ...] = NAMES) -> Iterator[dict[str, Any]]:
    for _, batch in Batches(rows.enumerate_records().batch(256), rows.local_paths):
        columns = schema.parse_examples(batch, names)
        values = {n: c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for n, c in columns.items()}
        for row in zip(*values.values(), strict=True):
            yield dict(zip(values, row, strict=True))


def _properties(row: dict[str, Any]) -> dict[str, Any]:
    crop_sharpness = row["face_sharpness"] or [_sharpness(jpeg) for jpeg in row["face_jpeg"]]
    return {
        **{name: row[name].decode() for name in ("dialogue_id", "speaker")},
        "words": len(row["utterance"].decode().split()),
        "faces": len(row["face_jpeg"]),
        "face_height": float(np.median(row["face_height"])) if row["face_height"] else np.nan,
        "sharpness": float(np.median(crop_sharpness)) if crop_sharpness else np.nan,
        "face_tracks": row["face_tracks"],
        # the same rule as in `audit`
        "doubtful": row["face_tracks"] > 1 and (row["face_margin"] < MARGIN or b">" in row["face_policy"]),
    }


def _sharpness(jpeg: bytes) -> float:
    try:
        return sharpness(pictures.decode(jpeg))
    except ValueError:  # it was damaged after `prepare`
        return np.nan
