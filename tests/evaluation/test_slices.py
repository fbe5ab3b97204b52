"""Slices against a table made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.significance import intervals
from emotion_tf.evaluation.slices import RESAMPLES, parts, slices

NAN = np.nan
ROWS = [
    # dialogue, speaker, utterance, label, crops, height, sharpness, faces of the clip, doubtful
    ("a", "Ada", "No", 0, 1, 40.0, 10.0, 1, False),
    ("a", "Ben", "You did it at last", 1, 2, 80.0, 20.0, 2, True),
    ("a", "", "", 1, 0, NAN, NAN, 0, False),
    ("a", "Ada", " ".join(["word"] * 11), 0, 1, 120.0, 30.0, 2, False),
    ("b", "Ada", " ".join(["word"] * 21), 0, 1, NAN, 40.0, 0, False),
    ("b", "Ben", "one two three four five six", 0, 0, NAN, NAN, 0, False),
]
NAMES = ("dialogue_id", "speaker", "utterance", "label", "faces", "face_height", "sharpness", "face_tracks", "doubtful")
TABLE = pd.DataFrame(ROWS, columns=list(NAMES))
LABEL = TABLE["label"].to_numpy()


def found(table=TABLE, label=LABEL):
    return {(kind, name): np.flatnonzero(rows).tolist() for kind, name, rows in parts(table, label) if rows.any()}


def test_the_parts_of_a_table():
    kinds = {}
    for (kind, name), rows in found().items():
        kinds.setdefault(kind, {})[name] = rows
    assert kinds == {
        "speaker": {"all": [0, 1, 3, 4, 5], "not known": [2]},
        "length of the utterance": {
            "no text": [2],
            "1 word": [0],
            "2 to 5 words": [1],
            "6 to 10 words": [5],
            "11 to 20 words": [3],
            "21 words or more": [4],
        },
        "place in the dialogue": {"the first": [0, 4], "2 to 5": [1, 2, 3, 5]},
        "emotion of the utterance before": {
            "the same": [2, 5],
            "another: a shift": [1, 3],
            "there is none before": [0, 4],
        },
        "face": {"none": [2, 5], "there": [0, 1, 3, 4]},
        "number of face crops": {"1": [0, 3, 4], "2": [1]},
        "faces in the clip": {
            "one": [0],
            "several, the choice is clear": [3],
            "several, the choice is doubtful": [1],
        },
        "size of the face": {
            "small, below 67 px": [0],
            "middle": [1],
            "large, from 93 px": [3],
            "not known: given as a crop": [4],
        },
        "quality of the face": {
            "blurred, below sharpness 20": [0],
            "middle": [1],
            "sharp, from sharpness 30": [3, 4],
        },
    }


def test_each_kind_holds_every_utterance_at_most_once():
    for kind in {kind for kind, _ in found()}:
        rows = [row for (other, _), members in found().items() if other == kind for row in members]
        assert len(rows) == len(set(rows))


def test_speakers_who_say_little_are_taken_together():
    names = np.repeat([f"s{i}" for i in range(12)], [40, 30, 20, 19, 18, 17, 16, 15, 14, 13, 12, 3])
    table = pd.concat([TABLE.iloc[:1]] * len(names), ignore_index=True).assign(speaker=names)
    speakers = [name for kind, name in found(table, np.zeros(len(names), int)) if kind == "speaker"]
    assert speakers == [*(f"s{i}" for i in range(8)), "4 others"]


def test_metrics_and_intervals_of_a_slice():
    rng = np.random.default_rng(0)
    table = pd.concat([TABLE] * 40, ignore_index=True)
    table["dialogue_id"] = (np.arange(240) // 6).astype(str)
    label, predicted = np.tile(LABEL, 40), rng.integers(0, 2, 240)
    made = {(one.kind, one.name): one for one in slices(table, label, predicted, majority=1)}
    one, rows = made["face", "none"], (table["faces"] == 0).to_numpy()
    assert (one.utterances, one.dialogues) == (80, 40)
    assert one.accuracy == pytest.approx(np.mean(label[rows] == predicted[rows]))
    assert one.weighted_f1 == pytest.approx(weighted_f1(label[rows], predicted[rows]))
    assert one.floor == pytest.approx(np.mean(label[rows] == 1))
    between = intervals(label[rows], predicted[rows], table["dialogue_id"][rows].to_numpy(), RESAMPLES)
    assert (one.accuracy_interval, one.weighted_f1_interval) == (between["accuracy"], between["weighted_f1"])


def test_few_dialogues_have_no_interval_and_all_right_has_one_that_is_no_point():
    few = slices(TABLE, LABEL, LABEL, 0)
    assert {one.accuracy_interval for one in few} == {None} and {one.accuracy for one in few} == {1}
    table = pd.concat([TABLE] * 20, ignore_index=True)
    table["dialogue_id"] = (np.arange(120) // 6).astype(str)
    label = np.tile(LABEL, 20)
    one = slices(table, label, label, 0)[0]
    assert one.accuracy_interval == pytest.approx((0.025 ** (1 / 20), 1.0))
