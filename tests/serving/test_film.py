"""`predict` and `predict-film` with photos, clips and subtitles, on the command line."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import synthetic_faces

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.faces.crops import crop_clip
from emotion_tf.faces.frames import Segment
from emotion_tf.serving import film

pytestmark = pytest.mark.usefixtures("opened_once")

SRT = """1
00:00:00,000 --> 00:00:01,500
<i>You did it!</i>

2
00:00:01,500 --> 00:00:03,000
- No.
- Yes.

3
00:00:50,000 --> 00:00:51,000
After the end.
"""

BACKWARDS = b"1\n00:00:05,000 --> 00:00:02,000\nBackwards\n"


@pytest.fixture(autouse=True)
def synthetic_detector(monkeypatch):
    monkeypatch.setattr(film, "load_detector", synthetic_faces.load_detector)


@pytest.fixture
def media(tmp_path):
    """A photo with two faces, a clip of a speaking face, a clip without a face, and subtitles."""
    photo = synthetic_faces.draw_scene(
        [(synthetic_faces.draw_face(1), (20, 60)), (synthetic_faces.draw_face(2)[:90, :90], (300, 60))]
    )
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    synthetic_faces.write_speaker(tmp_path / "a.mp4", 1, 72)
    synthetic_faces.write_empty(tmp_path / "nobody.mp4")
    (tmp_path / "film.srt").write_text(SRT)
    return tmp_path


def probabilities(printed):
    """Returns the printed lines of three classes."""
    return [line for line in printed.splitlines() if line.split()[0] in ("neutral", "joy", "fear")]


@pytest.mark.slow
def test_a_clip_and_its_crops_give_the_same_prediction(untrained, media, succeed):
    """The crops of `--clip` are those of `prepare clips`."""
    options = ("--text", "yes", "--faces.detector", "mtcnn")
    printed = succeed("predict", untrained, "--clip", media / "a.mp4", *options)
    assert printed.startswith("face: speaking, score ") and "crops at 0." in printed
    crops = crop_clip([Segment(media / "a.mp4")], synthetic_faces.detect_faces, CropConfig(), 32).jpegs
    paths = [media / f"{n}.jpg" for n in range(len(crops))]
    for path, jpeg in zip(paths, crops, strict=True):
        path.write_bytes(jpeg)
    of_crops = succeed("predict", untrained, "--face", *paths, "--face-is-crop", "--text", "yes")
    assert probabilities(of_crops) == probabilities(printed) != []


def test_a_photo_is_aligned_first_unless_it_is_a_crop(untrained, media, succeed, fault):
    aligned = succeed("predict", untrained, "--face", media / "photo.png", "--faces.detector", "mtcnn")
    as_is = succeed("predict", untrained, "--face", media / "photo.png", "--face-is-crop")
    assert probabilities(aligned) != probabilities(as_is)
    (jpeg,) = film.crop_photos([media / "photo.png"], CropConfig(detector="mtcnn"), None, 32)
    pixels = encode.read_pixels(media / "photo.png")
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).shape == (32, 32, 3) and pixels.shape == (240, 480, 3)
    cv2.imwrite(str(media / "grey.png"), np.full((90, 90, 3), 128, np.uint8))
    message = fault("predict", untrained, "--face", media / "grey.png", "--faces.detector", "mtcnn")
    assert "No face found in" in message and "--face-is-crop" in message


@pytest.mark.slow
def test_a_clip_without_a_face_leaves_the_text(untrained, media, succeed, fault):
    words = ("predict", untrained, "--clip", media / "nobody.mp4", "--faces.detector", "mtcnn")
    printed = succeed(*words, "--text", "yes")
    assert printed.startswith("face: no face found, the text alone\n")
    assert probabilities(printed) == probabilities(succeed("predict", untrained, "--text", "yes"))
    assert "No face found" in fault(*words)


def test_a_film_with_subtitles_gives_a_table_and_a_timeline(untrained, media, succeed, fault):
    out = media / "film"
    words = ("predict-film", untrained, media / "a.mp4", media / "film.srt", "--out", out, "--faces.detector", "mtcnn")
    printed = succeed(*words, "--abstain-below", "1")
    assert f"3 utterances, 2 with a face: {out / 'predictions.csv'}" in printed
    assert "Subtitles outside the film, predicted from their text alone: 1. First: The clip" in printed
    table = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    assert table["utterance"].tolist() == ["You did it!", "'- No. - Yes.", "After the end."]  # no formula
    assert table["start"].tolist() == [0.0, 1.5, 50.0] and table["faces"].tolist() == [4, 4, 0]
    assert table["predicted"].tolist() == ["abstained"] * 3
    assert table["face_problem"].tolist() == ["", "", "outside the clip"]
    assert table.filter(regex="^p_").sum(axis=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    picture = cv2.imread(str(out / "timeline.png"))
    assert picture.shape[1] > 1000 and picture.std() > 5
    assert f"{out} exists. Expected a new name" in fault(*words)
    succeed(*words, "--overwrite")
    assert "abstained" not in pd.read_csv(out / "predictions.csv")["predicted"].tolist()
    assert "is no folder of film predictions" in fault(*words[:5], media, *words[6:], "--overwrite")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "No subtitles"),
        (b"just words\nand more", "No subtitles"),
        (BACKWARDS, "Subtitle 1 ends before it starts.*5 and 2 seconds, .Backwards"),
        (b"\xff\xfe\x00\x01", "No subtitles"),
        (b"1\n00:00:00,000 --> 00:00:01,000\n<i></i>\n", "No subtitles: none of 1 has a text"),
        (b'<tt xmlns="http://www.w3.org/ns/ttml"><body><p begin="25f">Hi</p></body></tt>', "ttml is not read"),
        (None, "Cannot read the subtitles .*No such file"),
    ],
)  # fmt: skip
def test_broken_subtitles(untrained, media, fault, content, expected):
    path = media / "bad.srt"
    if content is not None:
        path.write_bytes(content)
    before = sorted(media.iterdir())
    words = ("predict-film", untrained, media / "a.mp4", path, "--out", media / "out")
    message = fault(*words, "--faces.detector", "mtcnn")
    assert str(path) in message
    with pytest.raises(UserError, match=expected):
        film.read_subtitles(path)
    assert sorted(media.iterdir()) == before


def test_old_encodings_and_other_formats_of_subtitles(tmp_path):
    (tmp_path / "a.srt").write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\nIt\x92s caf\xe9\n")
    assert film.read_subtitles(tmp_path / "a.srt") == [film.Subtitle(1.0, 2.0, "It’s café")]
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:02.000 --> 00:03.000\nLater\n\n00:01.000 --> 00:02.000\nFirst\n")
    assert [subtitle.text for subtitle in film.read_subtitles(tmp_path / "a.vtt")] == ["First", "Later"]


def test_a_text_file_named_mp4_and_no_such_film(untrained, media, fault):
    (media / "text.mp4").write_text("not a video")
    for name, expected in (("text.mp4", "Cannot decode the clip"), ("none.mp4", "No such file")):
        detector = ("--faces.detector", "mtcnn")
        assert expected in fault("predict", untrained, "--text", "Hi", "--clip", media / name, *detector)
        film_and_subtitles = (media / name, media / "film.srt")
        assert expected in fault("predict-film", untrained, *film_and_subtitles, "--out", media / "out", *detector)
        assert not (media / "out").exists()


def test_the_options_of_the_data_set_hold_unless_others_are_given():
    prepared = {"detector": "mtcnn", "rate": 4.0, "policy": "boxes", "crops": 2}
    assert film.crop_config(prepared, {}) == CropConfig(detector="mtcnn", rate=4.0, crops=2)
    assert film.crop_config(prepared, {"policy": "largest", "crops": 1}) == CropConfig(
        detector="mtcnn", rate=4.0, policy="largest", crops=1
    )
    with pytest.raises(UserError, match="Invalid `faces.crops`"):
        film.crop_config(prepared, {"crops": 0})
    with pytest.raises(UserError, match="needs no boxes"):
        film.crop_config(prepared, {"policy": "boxes"})


def test_an_option_counts_where_it_is_the_default_of_all_data_sets(untrained, media, succeed):
    """`--faces.policy speaking` for a data set that was prepared with another policy."""
    run = shutil.copytree(untrained, media / "run")
    about = json.loads((run / "run.json").read_text())
    about["crops"] = {"detector": "mtcnn", "policy": "largest", "crops": 1}
    (run / "run.json").write_text(json.dumps(about))
    assert succeed("predict", run, "--clip", media / "a.mp4").startswith("face: largest, score ")
    printed = succeed("predict", run, "--clip", media / "a.mp4", "--faces.policy", "speaking")
    assert printed.startswith("face: speaking, score ")
