"""Tables of utterances for reports."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_records import read, shards

from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.utterances import _properties, read_crops, read_texts, read_utterances


def test_the_table_has_the_values_of_the_records(dataset):
    rows = Dataset.open(dataset).rows("test")
    table, records = read_utterances(rows), read(shards(dataset, "test"))
    texts = read_texts(rows, range(len(records)))
    assert [text["utterance"] for text in texts.values()] == [row["utterance"].decode() for row in records]
    assert table["words"].tolist() == [len(row["utterance"].split()) for row in records]
    assert table["speaker"].tolist() == [row["speaker"].decode() for row in records]
    assert table["faces"].tolist() == [len(row["face_jpeg"]) for row in records]
    assert table["dialogue_id"].tolist() == [row["dialogue_id"] for row in pipeline.read_rows(rows)]
    assert table["face_height"].isna().all() and not table["doubtful"].any()
    i = next(i for i, row in enumerate(records) if len(row["context"]) >= 3)
    last = [
        b": ".join(pair).decode() for pair in zip(records[i]["context_speaker"], records[i]["context"], strict=True)
    ]
    assert texts[i]["before"] == last[-3:]
    assert list(read_texts(rows, [i])) == [i]
    i = next(i for i, row in enumerate(records) if len(row["face_jpeg"]) == 1)
    pixels = cv2.imdecode(np.frombuffer(records[i]["face_jpeg"][0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert table["sharpness"][i] == pytest.approx(cv2.Laplacian(pixels, cv2.CV_64F).var(), rel=0.1)
    assert table["sharpness"].isna().tolist() == [not row["face_jpeg"] for row in records]


def test_crops_of_some_utterances(dataset):
    records = read(shards(dataset, "test"))
    without = next(i for i, row in enumerate(records) if not row["face_jpeg"])
    several = max(range(len(records)), key=lambda i: len(records[i]["face_jpeg"]))
    rows = Dataset.open(dataset).rows("test")
    jpegs = records[several]["face_jpeg"]
    assert len(jpegs) > 1 and read_crops(rows, [without, several]) == {several: jpegs[len(jpegs) // 2]}


def test_faces_of_clips():
    row = dict.fromkeys(("dialogue_id", "utterance_id", "speaker", "utterance"), b"x")
    row |= {"face_jpeg": [b"1", b"2", b"3"]}
    row |= {"face_height": [40.0, 80.0, 60.0], "face_sharpness": [3.0, 1.0, 2.0], "face_tracks": 2}
    properties = _properties({**row, "face_margin": 9.0, "face_policy": b"active"})
    assert (properties["faces"], properties["face_height"], properties["sharpness"], properties["doubtful"]) == (
        3,
        60,
        2,
        False,
    )
    assert _properties({**row, "face_margin": 0.0, "face_policy": b"active"})["doubtful"]
    assert _properties({**row, "face_margin": 9.0, "face_policy": b"active>largest"})["doubtful"]
    assert not _properties({**row, "face_margin": 0.0, "face_policy": b"active", "face_tracks": 1})["doubtful"]
