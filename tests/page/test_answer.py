"""Answers of the page, without a browser."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import re

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import synthetic_faces

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.evaluation import colours
from emotion_tf.evaluation.calibration import Calibration
from emotion_tf.evaluation.selective import Threshold
from emotion_tf.evaluation.timeline import plot_timeline
from emotion_tf.faces.candidates import Candidates, find_in_clip, find_in_photo
from emotion_tf.faces.crops import crop_clip, crop_photo
from emotion_tf.faces.frames import Segment
from emotion_tf.interpret.pictures import MAX_OPACITY, overlay
from emotion_tf.page import inputs
from emotion_tf.page.answer import NEVER, Answer, threshold_for
from emotion_tf.page.chart import draw_answer
from emotion_tf.page.html import answers_html, faces_html, notice
from emotion_tf.page.inputs import FaceFinder, read_texts
from emotion_tf.page.theme import STYLE

ROWS = (Threshold(0.7, 0.0, 1.0, 0.76), Threshold(0.8, 0.55, 0.7, 0.84), Threshold(0.95))
CALIBRATION = Calibration(thresholds=ROWS, utterances=1109, dialogues=114)


@pytest.mark.parametrize(
    "precision, threshold, note",
    [
        (0.0, 0.0, "It always answers."),
        (0.7, 0.0, "On validation, at least 70 % of all its answers were right, and"),
        (0.8, 0.55, "at least 80 % of its answers with at least 55.00 % were right, and"),
        (0.95, NEVER, "95 % cannot be promised with 1,109 validation utterances in 114 dialogues: it never answers."),
    ],
    ids=["always", "all together keep it", "its own", "out of reach"],
)
def test_the_threshold_for_a_precision(precision, threshold, note):
    value, sentence = threshold_for(CALIBRATION, precision)
    assert value == threshold and note in sentence
    assert ("with 90 % confidence" in sentence) == (precision in (0.7, 0.8))


def test_a_run_without_thresholds_never_predicts_with_a_promise():
    assert threshold_for(Calibration(), 0.9) == (
        NEVER, "This run has no thresholds, so it promises no precision. It never answers."
    )  # fmt: skip
    weighted, note = threshold_for(Calibration(utterances=10, dialogues=2), 0.9)
    assert weighted == NEVER and "weights other than 0 and 1" in note
    assert threshold_for(Calibration(), 0.0) == (0.0, "It always answers.")


def test_a_threshold_in_words_is_rounded_down():
    near_one = Calibration(thresholds=(Threshold(0.8, float(np.float32(0.9999997)), 0.7, 0.84),), utterances=9)
    assert "its answers with at least 99.99 %" in threshold_for(near_one, 0.8)[1]


def test_texts_are_stripped_and_limited_in_length():
    assert read_texts("  You did it! ", "Ada: a\n\n  Ben: b \n") == ("You did it!", ("Ada: a", "Ben: b"))
    assert read_texts(None, None) == ("", ())
    for text, past in (("x" * 2001, ""), ("", "y" * 2001), ("", "z\n" * 51)):
        with pytest.raises(UserError, match="At most"):
            read_texts(text, past)


def test_all_faces_of_a_photo_the_largest_first():
    small = cv2.resize(synthetic_faces.draw_face(2), (80, 80), interpolation=cv2.INTER_NEAREST)
    pixels = synthetic_faces.draw_scene([(small, (20, 40)), (synthetic_faces.draw_face(1), (300, 60))])
    candidates = find_in_photo(pixels, synthetic_faces.detect_faces, 48)
    assert [round(face.boxes[0][2]) for face in candidates.faces] == [120, 80]
    assert (
        candidates.faces[0].jpegs == crop_photo(pixels, synthetic_faces.detect_faces, 48).jpegs
    )  # what `predict` takes
    (frame,) = candidates.frames
    assert frame.numbers == (1, 2)
    drawn = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == pixels.shape and np.abs(drawn.astype(int) - pixels).mean() > 1  # with boxes


def test_all_faces_of_a_clip_the_speaker_first(tmp_path):
    def pictures(n):
        still, speaking = synthetic_faces.draw_face(1, 0.3), synthetic_faces.draw_face(2, 0.5 + 0.5 * np.sin(n))
        return synthetic_faces.draw_scene([(still, (20, 40)), (speaking, (300, 60))])

    clip = synthetic_faces.write_clip(tmp_path / "a.mp4", [pictures(n) for n in range(36)])
    candidates = find_in_clip(clip, synthetic_faces.detect_faces, CropConfig(), 48)
    assert len(candidates.faces) == 2 and candidates.faces[0].boxes[0][0] > 200 > candidates.faces[1].boxes[0][0]
    assert candidates.faces[0] == crop_clip([Segment(clip)], synthetic_faces.detect_faces, CropConfig(), 48)
    assert sorted(n for frame in candidates.frames for n in frame.numbers) == [1, 2]


def test_a_clip_that_hangs_or_crashes_the_decoder(tmp_path):
    finder = FaceFinder(CropConfig(seconds=5), synthetic_faces.load_detector)
    try:
        synthetic_faces.write_empty(tmp_path / "crash.mp4", synthetic_faces.CRASH)
        synthetic_faces.write_empty(tmp_path / "none.mp4")
        (tmp_path / "broken.mp4").write_bytes(b"no film")
        for name in ("crash.mp4", "broken.mp4"):
            with pytest.raises(UserError, match=f"^{name} cannot be decoded"):
                finder.find_in_clip(tmp_path / name, 48)
        assert finder.find_in_clip(tmp_path / "none.mp4", 48).problem == "no face found"  # the process was replaced
        with pytest.raises(UserError, match="^Cannot decode the picture broken.mp4"):
            finder.find_in_picture(tmp_path / "broken.mp4", 48, False)
        with pytest.raises(UserError, match="Remove one of them"):
            finder.find(tmp_path / "a.png", tmp_path / "none.mp4", 48, False)
    finally:
        finder.close()


def test_a_clip_has_a_time_limit_and_does_not_delay_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_CLIP_SECONDS", 3.0)
    synthetic_faces.write_empty(tmp_path / "hang.mp4", synthetic_faces.HANG)
    cv2.imwrite(str(tmp_path / "a.png"), synthetic_faces.draw_scene([(synthetic_faces.draw_face(1), (20, 40))]))
    finder = FaceFinder(CropConfig(), synthetic_faces.load_detector)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            clip = pool.submit(finder.find_in_clip, tmp_path / "hang.mp4", 48)
            assert len(finder.find_in_picture(tmp_path / "a.png", 48, False).faces) == 1
            assert not clip.done()
            with pytest.raises(UserError, match="^Finding the faces in hang.mp4 takes too long: given up after 3 s"):
                clip.result()
    finally:
        finder.close()


def plain_answer(threshold=0.0, predicted=1):
    probabilities = np.array([0.123456, 0.876544], np.float32)
    return Answer("<run>", ("joy", "<fear>"), predicted, probabilities, threshold, "Why.", None, ("A note.",), 0.1)


def test_an_answer_is_escaped_and_complete():
    html = answers_html([plain_answer(), "A sentence & more."])
    assert "<h2>&lt;fear&gt;</h2>" in html and "12.35 %" in html and "87.65 %" in html
    assert "A sentence &amp; more." in html and "A note." in html and "<run>" not in html
    assert "Not sure" in answers_html([plain_answer(0.9)])
    another = answers_html([plain_answer(0.1, predicted=0)])  # the answer need not be the most probable class
    assert "<h2>joy</h2>" in another and "Probability 12.35 %" in another
    assert "Not sure" in answers_html([plain_answer(0.5, predicted=0)])
    table = pd.read_csv(io.StringIO(plain_answer().table().to_csv(index=False)))
    assert table.values.tolist() == [
        ["probability", "joy", pytest.approx(0.123456), "<run>"],
        ["probability", "<fear>", pytest.approx(0.876544), "<run>"],
    ]


def test_the_picture_of_an_answer():
    sure, unsure = (
        cv2.imdecode(np.frombuffer(draw_answer(plain_answer(t)), np.uint8), cv2.IMREAD_COLOR) for t in (0, 0.9)
    )
    assert sure.shape == unsure.shape and (sure != unsure).any()  # the titles differ


def test_pictures_drawn_in_several_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "figure", None)  # its numbers are one list for all threads

    def timeline(n, name):
        spans = np.array([(i, i + 1 + n) for i in range(3)], float)
        plot_timeline(tmp_path / name, spans, ("a", "b"), np.zeros(3, int), np.full((3, 2), 0.1 * n), f"film {n}")
        return (tmp_path / name).read_bytes()

    def made(n, name):
        return draw_answer(dataclasses.replace(plain_answer(), run=f"run {n}")), timeline(n, name)

    alone = [made(n, "alone.png") for n in range(4)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: made(i % 4, f"{i}.png"), range(12)))
    assert len(set(alone)) == 4 and all(pictures == alone[i % 4] for i, pictures in enumerate(together))


def test_notices_are_escaped():
    assert notice("<b>") == '<p class="notice">&lt;b&gt;</p>'
    assert "&lt;b&gt;.png" in faces_html(Candidates(problem="no face found"), "<b>.png")
    assert faces_html(Candidates(), "").strip() == ""


def test_red_supports_and_blue_opposes_as_in_every_other_picture():
    bars = dict(re.findall(r"i\.(for|against) \{ background: (#\w+)", STYLE))
    assert bars == {"for": colours.hex_code(colours.FOR), "against": colours.hex_code(colours.AGAINST)} != {}
    crop = np.full((8, 8, 3), 255, np.uint8)
    for value, rgb in ((1.0, colours.FOR), (-1.0, colours.AGAINST)):
        drawn = cv2.imdecode(np.frombuffer(overlay(crop, np.full((8, 8), value), True, 1.0), np.uint8), 1)[50, 50, ::-1]
        np.testing.assert_allclose(drawn, 255 - MAX_OPACITY * (255 - np.array(rgb)), atol=1)
