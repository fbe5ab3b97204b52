"""Facts of a data set for `audit`, from its records and, for the most doubtful selections, from its clips."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data.batches import Batches
from emotion_tf.data.dataset import Dataset
from emotion_tf.faces.active_speaker import MARGIN
from emotion_tf.faces.frames import Segment, parse_segment
from emotion_tf.faces.pool import frames_at

CROPS_PER_LABEL = 12
MAX_DOUBTFUL = 50
NAMES = (
    "dialogue_id", "utterance_id", "speaker", "utterance", "label", "face_jpeg", "clip", "face_problem", "face_policy",
    "face_score", "face_margin", "face_tracks", "face_height", "face_rivals", "face_rivals_time", "clip_seconds",
)  # fmt: skip
FRAME_WIDTH = 480
FRAME_SECONDS = 20.0
"""Time limit for the frame of a clip."""


def gather_facts(dataset: Dataset, root: Path | None = None) -> dict[str, Any]:
    """Reads the facts of a data set in one pass.

    Args:
        dataset: the data set.
        root: folder of the clips, if they were moved. Somebody else's data set needs it: frames of its clips are shown
            only from there.

    Returns:
        splits (counts by class), causes {split: {cause or "with a face": n}}, policies {policy: n}, scores
        {policy: [...]}, margins, heights, choices (number of selections among several faces), below_margin (number of
        these that are doubtful), lengths [(seconds, name, clip)], crops {label: [JPEG]}, doubtful [dict].
    """
    facts: dict[str, Any] = {
        "name": dataset.path.name,
        "labels": dataset.labels,
        "faces": dataset.faces,
        "account": dataset.account,
        "splits": {name: {"records": split.records, **split.per_class} for name, split in dataset.splits.items()},
        "causes": defaultdict(Counter),
        "policies": Counter(),
        "scores": defaultdict(list),
        "margins": [],
        "heights": [],
        "margin_rule": MARGIN,
        "choices": 0,
        "below_margin": 0,
        "lengths": [],
        "crops": {label: [] for label in dataset.labels},
    }
    rng = random.Random(0)
    count: Counter[str] = Counter()
    doubtful: list[tuple[tuple[bool, float], int, dict[str, Any]]] = []
    for n, row in enumerate(_rows(dataset)):
        label = row["label"]
        facts["causes"][row["split"]][_cause(row)] += 1
        if row["face_jpeg"]:
            count[label] += 1
            _sample(facts["crops"][label], row["face_jpeg"][len(row["face_jpeg"]) // 2], count[label], rng)
        if row["clip_seconds"]:
            facts["lengths"].append((row["clip_seconds"], _name(row), row["clip"][0]))
        if row["face_policy"]:
            _count_selection(facts, row)
            if _is_doubtful(row):
                doubt = (">" in row["face_policy"], -row["face_margin"])
                heapq.heappush(doubtful, (doubt, -n, row))
                if len(doubtful) > MAX_DOUBTFUL:
                    heapq.heappop(doubtful)
    facts["lengths"].sort()
    rows = [row for _, _, row in sorted(doubtful, reverse=True)]
    places = [(_segments(row["clip"], dataset, root), row["face_rivals_time"]) for row in rows]
    frames = frames_at(places, FRAME_SECONDS)
    facts["doubtful"] = [_describe(row, frame) for row, frame in zip(rows, frames, strict=True)]
    return facts


def _segments(names: list[str], dataset: Dataset, root: Path | None) -> list[Segment]:
    """Returns the segments of a clip; none if somebody else's data set names files outside of the folder `root`."""
    is_own = dataset.is_own
    folder = Path(dataset.faces.get("root", ".")) if root is None and is_own else root
    if folder is None:
        return []
    try:
        segments = [parse_segment(name, folder) for name in names]
        is_inside = all(segment.path.resolve().is_relative_to(folder.resolve()) for segment in segments)
    except (ValueError, OSError, RuntimeError):  # no numbers, no name of a file, a loop of links
        return []
    return segments if is_own or is_inside else []


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for split in dataset.splits:
        rows = dataset.rows(split)
        for _, batch in Batches(rows.enumerate_records().batch(128), rows.local_paths):
            columns = schema.parse_examples(batch, NAMES)
            values = {
                n: c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for n, c in columns.items()
            }
            for record in zip(*values.values(), strict=True):
                row = dict(zip(values, record, strict=True))
                text = {k: v.decode() for k, v in row.items() if isinstance(v, bytes)}
                clip = [name.decode() for name in row["clip"]]
                yield {**row, **text, "clip": clip, "split": split, "label": dataset.labels[row["label"]]}


def _cause(row: dict[str, Any]) -> str:
    return "with a face" if row["face_jpeg"] else row["face_problem"] or "no picture given"


def _name(row: dict[str, Any]) -> str:
    return f"{row['split']} {row['dialogue_id']} {row['utterance_id']}"


def _is_doubtful(row: dict[str, Any]) -> bool:
    """Returns whether the selection among several faces is below the margin, or a fallback policy decided."""
    return row["face_tracks"] > 1 and (row["face_margin"] < MARGIN or ">" in row["face_policy"])


def _count_selection(facts: dict[str, Any], row: dict[str, Any]) -> None:
    facts["policies"][row["face_policy"]] += 1
    facts["scores"][row["face_policy"]].append(row["face_score"])
    facts["heights"] += row["face_height"]
    if row["face_tracks"] > 1:
        facts["choices"] += 1
        facts["below_margin"] += _is_doubtful(row)
        if np.isfinite(row["face_margin"]):
            facts["margins"].append(row["face_margin"])


def _sample(reservoir: list[bytes], jpeg: bytes, count: int, rng: random.Random) -> None:
    """Reservoir sampling: every crop of a label has the same probability to be shown."""
    if len(reservoir) < CROPS_PER_LABEL:
        reservoir.append(jpeg)
    elif (i := rng.randrange(count)) < CROPS_PER_LABEL:
        reservoir[i] = jpeg


def _describe(row: dict[str, Any], pixels: np.ndarray | None) -> dict[str, Any]:
    """Returns a doubtful selection and its frame, with a box around each face."""
    return {
        "name": _name(row),
        **{k: row[k] for k in ("speaker", "utterance", "label", "clip", "face_policy", "face_score", "face_margin")},
        "time": row["face_rivals_time"],
        "crops": row["face_jpeg"],
        "frame": None if pixels is None else _draw_boxes(pixels, np.array(row["face_rivals"]).reshape(-1, 4)),
    }


def _draw_boxes(pixels: np.ndarray, boxes: np.ndarray) -> bytes:
    scale = FRAME_WIDTH / pixels.shape[1]
    small = cv2.resize(
        pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    for i, box in enumerate(boxes):
        left, top, width, height = np.round(box * scale).astype(int)
        colour = (80, 200, 0) if i == 0 else (0, 140, 255)  # selected face: green; others: orange
        cv2.rectangle(small, (left, top), (left + width, top + height), colour, 3 if i == 0 else 2)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
