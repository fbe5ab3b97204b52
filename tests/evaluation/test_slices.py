"""Slices of a small table, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.significance import intervals
from emotion_tf.evaluation.slices import slice_rows, slices

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
TABLE = pd.DataFrame(ROWS, columns=list(NAMES)).assign(words=lambda table: table["utterance"].str.split().str.len())
LABEL = TABLE["label"].to_numpy()


def slice_members(table=TABLE, label=LABEL):
    return {(kind, name): np.flatnonzero(rows).tolist() for kind, name, rows in slice_rows(table, label) if rows.any()}


def test_the_slices_of_a_table():
    kinds = {}
    for (kind, name), rows in slice_members().items():
        kinds.setdefault(kind, {})[name] = rows
    assert kinds == {
        "speaker": {"all": [0, 1, 3, 4, 5], "unknown": [2]},
        "length of the utterance": {
            "no text": [2],
            "1 word": [0],
            "2 to 5 words": [1],
            "6 to 10 words": [5],
            "11 to 20 words": [3],
            "21 words or more": [4],
        },
        "position in the dialogue": {"first": [0, 4], "2 to 5": [1, 2, 3, 5]},
        "emotion of the previous utterance": {
            "same": [2, 5],
            "different (a shift)": [1, 3],
            "no previous utterance": [0, 4],
        },
        "face": {"none": [2, 5], "present": [0, 1, 3, 4]},
        "number of face crops": {"1": [0, 3, 4], "2": [1]},
        "faces in the clip": {
            "one": [0],
            "several, speaker clear": [3],
            "several, speaker doubtful": [1],
        },
        "size of the face": {
            "small, below 67 px": [0],
            "medium": [1],
            "large, from 93 px": [3],
            "unknown (image file)": [4],
        },
        "sharpness of the face": {
            "blurred, below sharpness 20": [0],
            "medium": [1],
            "sharp, from sharpness 30": [3, 4],
        },
    }


def test_slices_of_a_kind_are_disjoint():
    for kind in {kind for kind, _ in slice_members()}:
        rows = [row for (other, _), members in slice_members().items() if other == kind for row in members]
        assert len(rows) == len(set(rows))


def test_infrequent_speakers_share_a_slice():
    names = np.repeat([f"s{i}" for i in range(12)], [40, 30, 20, 19, 18, 17, 16, 15, 14, 13, 12, 3])
    table = pd.concat([TABLE.iloc[:1]] * len(names), ignore_index=True).assign(speaker=names)
    speakers = [name for kind, name in slice_members(table, np.zeros(len(names), int)) if kind == "speaker"]
    assert speakers == [*(f"s{i}" for i in range(8)), "4 others"]


def test_metrics_and_intervals_of_a_slice():
    rng = np.random.default_rng(0)
    table = pd.concat([TABLE] * 40, ignore_index=True)
    table["dialogue_id"] = (np.arange(240) // 6).astype(str)
    label, predicted = np.tile(LABEL, 40), rng.integers(0, 2, 240)
    by_name = {(row.kind, row.name): row for row in slices(table, label, predicted, majority=1)}
    row, rows = by_name["face", "none"], (table["faces"] == 0).to_numpy()
    assert (row.utterances, row.dialogues) == (80, 40)
    assert row.accuracy == pytest.approx(np.mean(label[rows] == predicted[rows]))
    assert row.weighted_f1 == pytest.approx(weighted_f1(label[rows], predicted[rows]))
    assert row.floor == pytest.approx(np.mean(label[rows] == 1))
    bounds = intervals(label[rows], predicted[rows], table["dialogue_id"][rows].to_numpy())
    assert (row.accuracy_interval, row.weighted_f1_interval) == (bounds["accuracy"], bounds["weighted_f1"])


def test_few_dialogues_have_no_interval_and_perfect_accuracy_has_one_of_positive_width():
    few = slices(TABLE, LABEL, LABEL, 0)
    assert {row.accuracy_interval for row in few} == {None} and {row.accuracy for row in few} == {1}
    table = pd.concat([TABLE] * 20, ignore_index=True)
    table["dialogue_id"] = (np.arange(120) // 6).astype(str)
    label = np.tile(LABEL, 20)
    row = slices(table, label, label, 0)[0]
    assert row.accuracy_interval == pytest.approx((1 / (1 + t.ppf(0.975, 19) ** 2 / 20), 1.0))
    names = [f"{i}" for i in range(19)]
    short = TABLE.iloc[[0] * 19].assign(dialogue_id=names)
    assert {row.accuracy_interval for row in slices(short, np.zeros(19, int), np.zeros(19, int), 0)} == {None}
