"""Metrics on slices of a split, where a model may do worse than on the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.significance import MIN_ROWS, Bounds, intervals
from emotion_tf.wording import plural

SPEAKERS = 8
MIN_UTTERANCES = 10
MIN_DIALOGUES = 10
WORDS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, None))
POSITIONS = ((1, 1), (2, 5), (6, 10), (11, None))


class Slice(NamedTuple):
    """Metrics of one slice of a split.

    Attributes:
        kind: criterion of the slice, such as "speaker".
        name: value of the criterion.
        utterances: number of utterances.
        dialogues: number of their dialogues.
        accuracy, weighted_f1: metrics.
        floor: accuracy of always predicting the most frequent class in training.
        accuracy_interval, weighted_f1_interval: 95 % intervals by dialogue; None with fewer than 10 dialogues
            or 20 utterances.
    """

    kind: str
    name: str
    utterances: int
    dialogues: int
    accuracy: float
    weighted_f1: float
    floor: float
    accuracy_interval: Bounds
    weighted_f1_interval: Bounds


def slices(
    table: pd.DataFrame, label: np.ndarray, predicted: np.ndarray, majority: int, weight: np.ndarray | None = None
) -> list[Slice]:
    """Returns the metrics of every slice that is not empty.

    Args:
        table: N utterances in order of speaking, with the columns dialogue_id, speaker, words (their number), faces
            (number of crops), face_height (pixels in the frame; nan if unknown), sharpness (nan without a face), and
            for faces from clips face_tracks (number of faces in the clip) and doubtful (whether the speaker is).
        label: int (N,), true classes.
        predicted: int (N,), predicted classes.
        majority: most frequent class in training.
        weight: float (N,), or None for equal weights; utterances of weight 0 do not count.
    """
    metrics = []
    counts = np.ones(len(label), bool) if weight is None else weight > 0
    for kind, name, selected in slice_rows(table, label):
        rows = selected & counts
        if not rows.any():
            continue
        slice_weight = None if weight is None else weight[rows]
        group = table["dialogue_id"].to_numpy()[rows]
        dialogues = len(np.unique(group))
        bounds: dict[str, Bounds] = {}
        if dialogues >= MIN_DIALOGUES and rows.sum() >= MIN_ROWS:
            bounds = intervals(label[rows], predicted[rows], group, slice_weight)
        metrics.append(
            Slice(
                kind,
                name,
                int(rows.sum()),
                dialogues,
                float(np.average(label[rows] == predicted[rows], weights=slice_weight)),
                weighted_f1(label[rows], predicted[rows], slice_weight),
                float(np.average(label[rows] == majority, weights=slice_weight)),
                bounds.get("accuracy"),
                bounds.get("weighted_f1"),
            )
        )
    return metrics


def slice_rows(table: pd.DataFrame, label: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields kind, name and rows bool (N,) of each slice."""
    yield from _speakers(table["speaker"])
    words = table["words"].to_numpy()
    yield "length of the utterance", "no text", words == 0
    for low, high in WORDS:
        yield "length of the utterance", _span(low, high, "word"), (words >= low) & (words <= (high or np.inf))
    position = table.groupby("dialogue_id", sort=False).cumcount().to_numpy() + 1
    for low, high in POSITIONS:
        name = {1: "first"}.get(low, f"{low} to {high}" if high else f"{low} or later")
        yield "position in the dialogue", name, (position >= low) & (position <= (high or np.inf))
    yield from _shifts(table["dialogue_id"].to_numpy(), label)
    yield from _faces(table)


def _span(low: int, high: int | None, unit: str) -> str:
    if high is None:
        return f"{low} {unit}s or more"
    return f"{low} {unit}" if low == high == 1 else f"{low} to {high} {unit}s"


def _speakers(speaker: pd.Series) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields the most frequent speakers, then all others together."""
    counts = speaker[speaker != ""].value_counts(sort=False)
    counts = counts[counts >= MIN_UTTERANCES].sort_values(ascending=False, kind="stable")[:SPEAKERS]
    for name in counts.index:
        yield "speaker", name, (speaker == name).to_numpy()
    others = (~speaker.isin(counts.index) & (speaker != "")).to_numpy()
    yield "speaker", plural(speaker[others].nunique(), "other") if len(counts) else "all", others
    yield "speaker", "unknown", (speaker == "").to_numpy()


def _shifts(dialogue: np.ndarray, label: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields slices by the emotion of the previous utterance in the dialogue."""
    last: dict[str, int] = {}
    before = np.full(len(label), -1)
    for i, (name, value) in enumerate(zip(dialogue, label, strict=True)):
        before[i] = last.get(name, -1)
        last[name] = value
    yield "emotion of the previous utterance", "same", before == label
    yield "emotion of the previous utterance", "different (a shift)", (before != label) & (before >= 0)
    yield "emotion of the previous utterance", "no previous utterance", before < 0


def _faces(table: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    crops = table["faces"].to_numpy()
    present = crops > 0
    yield "face", "none", ~present
    yield "face", "present", present
    for n in range(1, max([1, *crops]) + 1):
        yield "number of face crops", str(n), crops == n
    tracks = table["face_tracks"].to_numpy()
    yield "faces in the clip", "one", present & (tracks == 1)
    yield "faces in the clip", "several, speaker clear", present & (tracks > 1) & ~table["doubtful"].to_numpy()
    yield "faces in the clip", "several, speaker doubtful", present & (tracks > 1) & table["doubtful"].to_numpy()
    yield from _thirds("size of the face", table["face_height"].to_numpy(), ("small", "medium", "large"), "{:.0f} px")
    unknown = present & ~np.isfinite(table["face_height"].to_numpy())
    yield "size of the face", "unknown (image file)", unknown
    names = ("blurred", "medium", "sharp")
    yield from _thirds("sharpness of the face", table["sharpness"].to_numpy(), names, "sharpness {:.0f}")


def _thirds(
    kind: str, values: np.ndarray, names: tuple[str, str, str], unit: str
) -> Iterator[tuple[str, str, np.ndarray]]:
    finite = values[np.isfinite(values)]
    if len(np.unique(finite)) < 3:
        if len(finite):
            yield kind, f"all {unit.format(finite[0])}", np.isfinite(values)
        return
    low, high = np.quantile(finite, [1 / 3, 2 / 3])
    yield kind, f"{names[0]}, below {unit.format(low)}", values < low
    yield kind, names[1], (values >= low) & (values < high)
    yield kind, f"{names[2]}, from {unit.format(high)}", values >= high
