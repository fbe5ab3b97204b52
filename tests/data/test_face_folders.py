"""Folders of labelled faces: splits, labels, and images in two splits."""

import json

import cv2
import numpy as np
import pytest

from emotion_tf.data.face_folders import read_face_folder
from emotion_tf.errors import UserError
from emotion_tf.labels import MELD_EMOTIONS

LABELS = ("neutral", "joy", "fear")


def picture(path, seed):
    """Writes noise that depends on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8))


def keys(folder, split):
    return {row.dialogue_id for row in folder.rows if row.split == split}


@pytest.fixture
def split(tmp_path):
    """train, validation and Test with two emotions of three pictures each."""
    for i, name in enumerate(("train", "validation", "Test")):
        for j, emotion in enumerate(("happy", "neutral")):
            for k in range(3):
                picture(tmp_path / "pictures" / name / emotion / f"{k}.png", 100 * i + 10 * j + k)
    return tmp_path / "pictures"


def test_splits_and_usual_names_of_emotions(split):
    folder = read_face_folder(split, LABELS)
    assert keys(folder, "dev") == {f"validation/{e}/{k}.png" for e in ("happy", "neutral") for k in range(3)}
    assert len(keys(folder, "train")) == len(keys(folder, "test")) == 6
    assert {(row.dialogue_id.split("/")[1], LABELS[row.label]) for row in folder.rows} == {
        ("happy", "joy"),
        ("neutral", "neutral"),
    }
    assert folder.notes == ("No picture of fear",)
    assert all(row.utterance == "" and row.faces[0].is_file() for row in folder.rows)


def test_a_picture_stays_in_the_last_of_its_splits(split):
    picture(split / "train" / "happy" / "leak.png", 200)  # as Test/happy/0.png
    picture(split / "validation" / "neutral" / "leak.png", 211)  # as Test/neutral/1.png
    picture(split / "train" / "neutral" / "again.png", 0)  # as train/happy/0.png: another label, no leak
    folder = read_face_folder(split, LABELS)
    assert not [row for row in folder.rows if "leak" in row.dialogue_id] and len(folder.rows) == 19
    assert "2 pictures left out: a byte-identical one is in a later split" in folder.notes
    assert "2 pictures with different labels" in folder.notes


def test_a_missing_dev_is_a_tenth_of_train_and_test_stays(tmp_path):
    for i in range(200):
        picture(tmp_path / "train" / "joy" / f"{i:03}.png", i)
    for i in range(20):
        picture(tmp_path / "test" / "joy" / f"{i:03}.png", 1000 + i)
    folder = read_face_folder(tmp_path, LABELS)
    assert keys(folder, "test") == {f"test/joy/{i:03}.png" for i in range(20)}
    assert 8 <= len(keys(folder, "dev")) <= 36 and len(keys(folder, "dev")) + len(keys(folder, "train")) == 200
    assert read_face_folder(tmp_path, LABELS) == folder


def test_without_splits_content_decides_and_identical_images_stay_together(tmp_path):
    for i in range(300):
        picture(tmp_path / ("joy" if i % 2 else "fear") / f"{i}.png", i // 3)
    folder = read_face_folder(tmp_path, LABELS)
    assert all(5 <= len(keys(folder, name)) <= 75 for name in ("dev", "test")) and len(folder.rows) == 300
    by_content = {}
    for row in folder.rows:
        by_content.setdefault(row.faces[0].read_bytes(), set()).add(row.split)
    assert len(by_content) == 100 and all(len(splits) == 1 for splits in by_content.values())


@pytest.mark.parametrize(
    ("paths", "parts"),
    [
        ([], ["No picture", "Expected folders of emotions"]),
        (["readme.txt"], ["No picture"]),
        (["joy/note.txt", "joy/.hidden.png"], ["No picture"]),
        (["hapy/1.png"], ["hapy", "names no emotion", "neutral, joy, fear"]),
        (["nutral/1.png"], ["Did you mean 'neutral'?"]),
        (["train/joy/1.png", "joy/1.png"], ["'joy' beside folders of splits"]),
        (["val/joy/1.png", "dev/joy/1.png"], ["Two folders of the split dev", "val", "dev"]),
    ],
)
def test_an_invalid_folder_of_faces(tmp_path, paths, parts):
    for i, path in enumerate(paths):
        picture(tmp_path / path, i) if path.endswith("png") else (tmp_path / path).parent.mkdir(exist_ok=True)
    with pytest.raises(UserError) as caught:
        read_face_folder(tmp_path, LABELS)
    assert all(part in str(caught.value) for part in [str(tmp_path), *parts]), caught.value


def test_no_folder_at_all(tmp_path):
    with pytest.raises(UserError, match="Cannot read .*nowhere.*No such file"):
        read_face_folder(tmp_path / "nowhere", LABELS)


def test_the_verb_writes_a_data_set_and_removes_an_incomplete_one(split, tmp_path, succeed, fault):
    out = tmp_path / "faces"
    output = succeed("prepare", "faces", split, "--out", out, "--face-size", "16")
    assert "train: 6 utterances" in output and "No picture of surprise, anger, sadness, disgust, fear" in output
    info = json.loads((out / "dataset_info.json").read_text())
    assert info["labels"] == list(MELD_EMOTIONS) and info["splits"]["test"]["with_face"] == 6
    (split / "train" / "happy" / "broken.jpg").write_bytes(b"no picture")
    message = fault("prepare", "faces", split, "--out", tmp_path / "again", "--face-size", "16")
    assert "broken.jpg" in message and "Cannot decode" in message and not (tmp_path / "again").exists()
