"""What `audit` shows: from a data set's records in one pass, and from its clips for the most doubtful choices."""

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
from emotion_tf.data.dataset import Dataset
from emotion_tf.faces.active_speaker import MARGIN
from emotion_tf.faces.frames import frame_at, parse_segment

CROPS = 12  # an emotion
DOUBTFUL = 50
NAMES = (
    "dialogue_id", "utterance_id", "speaker", "utterance", "label", "face_jpeg", "clip", "face_problem", "face_policy",
    "face_score", "face_margin", "face_tracks", "face_height", "face_rivals", "face_rivals_time", "clip_seconds",
)  # fmt: skip
FRAME_WIDTH = 480


def gather(dataset: Dataset, root: Path | None = None) -> dict[str, Any]:
    """The facts of a data set.

    Args:
        dataset: the data set.
        root: where the clips are now, if not where they were prepared from.

    Returns:
        splits (per class counts), causes {split: {cause or "with a face": n}}, policies {policy: n}, scores
        {policy: [...]}, margins, heights, choices (n, between several faces), below_margin (n of them), lengths
        [(seconds, name, clip)], crops {label: [JPEG]}, doubtful [dict].
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
    chance = random.Random(0)
    seen: Counter[str] = Counter()
    doubtful: list[tuple[tuple[bool, float], int, dict[str, Any]]] = []
    for n, row in enumerate(_rows(dataset)):
        label = row["label"]
        facts["causes"][row["split"]][_cause(row)] += 1
        if row["face_jpeg"]:
            seen[label] += 1
            _sample(facts["crops"][label], row["face_jpeg"][len(row["face_jpeg"]) // 2], seen[label], chance)
        if row["clip_seconds"]:
            facts["lengths"].append((row["clip_seconds"], _name(row), row["clip"][0]))
        if row["face_policy"]:
            _count_choice(facts, row)
            if row["face_tracks"] > 1:
                doubt = (">" in row["face_policy"], -row["face_margin"])
                heapq.heappush(doubtful, (doubt, -n, row))
                if len(doubtful) > DOUBTFUL:
                    heapq.heappop(doubtful)
    facts["lengths"].sort()
    where = root or Path(dataset.faces.get("root", "."))
    facts["doubtful"] = [_shown(row, where) for _, _, row in sorted(doubtful, reverse=True)]
    return facts


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for split in dataset.splits:
        for _, batch in dataset.rows(split).numbered().batch(128):
            columns = schema.parse_examples(batch, NAMES)
            values = {
                n: c.to_list() if isinstance(c, tf.RaggedTensor) else c.numpy().tolist() for n, c in columns.items()
            }
            for row in zip(*values.values(), strict=True):
                made = dict(zip(values, row, strict=True))
                text = {k: v.decode() for k, v in made.items() if isinstance(v, bytes)}
                clip = [name.decode() for name in made["clip"]]
                yield {**made, **text, "clip": clip, "split": split, "label": dataset.labels[made["label"]]}


def _cause(row: dict[str, Any]) -> str:
    return "with a face" if row["face_jpeg"] else row["face_problem"] or "no picture given"


def _name(row: dict[str, Any]) -> str:
    return f"{row['split']} {row['dialogue_id']} {row['utterance_id']}"


def _count_choice(facts: dict[str, Any], row: dict[str, Any]) -> None:
    facts["policies"][row["face_policy"]] += 1
    facts["scores"][row["face_policy"]].append(row["face_score"])
    facts["heights"] += row["face_height"]
    if row["face_tracks"] > 1:
        facts["choices"] += 1
        facts["below_margin"] += row["face_margin"] < MARGIN or ">" in row["face_policy"]
        if np.isfinite(row["face_margin"]):
            facts["margins"].append(row["face_margin"])


def _sample(kept: list[bytes], jpeg: bytes, seen: int, chance: random.Random) -> None:
    """Reservoir sampling: each crop is as likely to be shown."""
    if len(kept) < CROPS:
        kept.append(jpeg)
    elif (place := chance.randrange(seen)) < CROPS:
        kept[place] = jpeg


def _shown(row: dict[str, Any], root: Path) -> dict[str, Any]:
    """A doubtful choice with the whole frame, all faces boxed, the chosen one in another colour."""
    pixels = frame_at([parse_segment(name, root) for name in row["clip"]], row["face_rivals_time"])
    return {
        "name": _name(row),
        **{k: row[k] for k in ("speaker", "utterance", "label", "clip", "face_policy", "face_score", "face_margin")},
        "time": row["face_rivals_time"],
        "crops": row["face_jpeg"],
        "frame": None if pixels is None else _boxed(pixels, np.array(row["face_rivals"]).reshape(-1, 4)),
    }


def _boxed(pixels: np.ndarray, boxes: np.ndarray) -> bytes:
    scale = FRAME_WIDTH / pixels.shape[1]
    small = cv2.resize(
        pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    for i, box in enumerate(boxes):
        left, top, width, height = np.round(box * scale).astype(int)
        colour = (80, 200, 0) if i == 0 else (0, 140, 255)  # the chosen face green, the others orange
        cv2.rectangle(small, (left, top), (left + width, top + height), colour, 3 if i == 0 else 2)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
