"""Parts of a split on which a model may do worse than the headline says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.significance import intervals

SPEAKERS = 8
FEWEST_OF_A_SPEAKER = 10
FEWEST_DIALOGUES = 10
RESAMPLES = 2000
WORDS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, None))
PLACES = ((1, 1), (2, 5), (6, 10), (11, None))

Bounds = tuple[float, float] | None


class Slice(NamedTuple):
    """One part of a split.

    Attributes:
        kind: what the split was parted by.
        name: which part.
        utterances: how many.
        dialogues: that they are of.
        accuracy, weighted_f1: on them.
        floor: accuracy of always predicting the majority class of training.
        accuracy_interval, weighted_f1_interval: 95 %, by dialogue; None with fewer than 10 dialogues.
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
    """Every part that is not empty, with its metrics.

    Args:
        table: N utterances in order of speaking, with the columns dialogue_id, speaker, utterance, faces (number of
            crops), face_height (pixels in the frame; nan: not known), sharpness (nan: no face), and for faces from
            clips face_tracks (faces of the clip) and doubtful (whether the choice among them is).
        label: int (N,), true classes.
        predicted: int (N,).
        majority: class most frequent in training.
        weight: float (N,), or None for equal weights.
    """
    found = []
    for kind, name, rows in parts(table, label):
        if not rows.any():
            continue
        own = None if weight is None else weight[rows]
        group = table["dialogue_id"].to_numpy()[rows]
        dialogues = len(np.unique(group))
        between = {}
        if dialogues >= FEWEST_DIALOGUES:
            between = intervals(label[rows], predicted[rows], group, RESAMPLES, weight=own)
        found.append(
            Slice(
                kind,
                name,
                int(rows.sum()),
                dialogues,
                float(np.average(label[rows] == predicted[rows], weights=own)),
                weighted_f1(label[rows], predicted[rows], own),
                float(np.average(label[rows] == majority, weights=own)),
                between.get("accuracy"),
                between.get("weighted_f1"),
            )
        )
    return found


def parts(table: pd.DataFrame, label: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """What parts there are: kind, name and rows bool (N,)."""
    yield from _speakers(table["speaker"])
    words = table["utterance"].str.split().str.len().to_numpy()
    yield "length of the utterance", "no text", words == 0
    for low, high in WORDS:
        yield "length of the utterance", _span(low, high, "word"), (words >= low) & (words <= (high or np.inf))
    place = table.groupby("dialogue_id", sort=False).cumcount().to_numpy() + 1
    for low, high in PLACES:
        name = {1: "the first"}.get(low, f"{low} to {high}" if high else f"after the {low - 1}th")
        yield "place in the dialogue", name, (place >= low) & (place <= (high or np.inf))
    yield from _shifts(table["dialogue_id"].to_numpy(), label)
    yield from _faces(table)


def _span(low: int, high: int | None, unit: str) -> str:
    if high is None:
        return f"{low} {unit}s or more"
    return f"{low} {unit}" if low == high == 1 else f"{low} to {high} {unit}s"


def _speakers(speaker: pd.Series) -> Iterator[tuple[str, str, np.ndarray]]:
    """The speakers who say most, then all others together."""
    counts = speaker[speaker != ""].value_counts(sort=False)
    counts = counts[counts >= FEWEST_OF_A_SPEAKER].sort_values(ascending=False, kind="stable")[:SPEAKERS]
    for name in counts.index:
        yield "speaker", name, (speaker == name).to_numpy()
    others = (~speaker.isin(counts.index) & (speaker != "")).to_numpy()
    yield "speaker", f"{speaker[others].nunique()} others" if len(counts) else "all", others
    yield "speaker", "not known", (speaker == "").to_numpy()


def _shifts(dialogue: np.ndarray, label: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Whether the true emotion is that of the utterance before."""
    last: dict[str, int] = {}
    before = np.full(len(label), -1)
    for i, (name, value) in enumerate(zip(dialogue, label, strict=True)):
        before[i] = last.get(name, -1)
        last[name] = value
    yield "emotion of the utterance before", "the same", before == label
    yield "emotion of the utterance before", "another: a shift", (before != label) & (before >= 0)
    yield "emotion of the utterance before", "there is none before", before < 0


def _faces(table: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    crops = table["faces"].to_numpy()
    present = crops > 0
    yield "face", "none", ~present
    yield "face", "there", present
    for n in range(1, max([1, *crops]) + 1):
        yield "number of face crops", str(n), crops == n
    tracks = table["face_tracks"].to_numpy()
    yield "faces in the clip", "one", present & (tracks == 1)
    yield "faces in the clip", "several, the choice is clear", present & (tracks > 1) & ~table["doubtful"].to_numpy()
    yield "faces in the clip", "several, the choice is doubtful", present & (tracks > 1) & table["doubtful"].to_numpy()
    yield from _thirds("size of the face", table["face_height"].to_numpy(), ("small", "middle", "large"), "{:.0f} px")
    unknown = present & ~np.isfinite(table["face_height"].to_numpy())
    yield "size of the face", "not known: given as a crop", unknown
    names = ("blurred", "middle", "sharp")
    yield from _thirds("quality of the face", table["sharpness"].to_numpy(), names, "sharpness {:.0f}")


def _thirds(
    kind: str, values: np.ndarray, names: tuple[str, str, str], unit: str
) -> Iterator[tuple[str, str, np.ndarray]]:
    known = values[np.isfinite(values)]
    if len(np.unique(known)) < 3:
        if len(known):
            yield kind, f"all alike, {unit.format(known[0])}", np.isfinite(values)
        return
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    yield kind, f"{names[0]}, below {unit.format(low)}", values < low
    yield kind, names[1], (values >= low) & (values < high)
    yield kind, f"{names[2]}, from {unit.format(high)}", values >= high
