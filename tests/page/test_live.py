"""Frames of a camera, answered one by one without a browser."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import synthetic_faces
from stub_predictor import Certain

from emotion_tf.evaluation.calibration import Calibration
from emotion_tf.faces.track import LONGEST_GAP
from emotion_tf.page import live
from emotion_tf.page.live import FollowedFaces, Live
from emotion_tf.page.runs import OpenRun, Runs


class Recorder(Certain):
    """Remembers what it is asked."""

    def __init__(self):
        self.questions = []

    def _predict_batch(self, utterances, contexts, crops):
        self.questions.append((utterances, contexts, [len(row) for row in crops]))
        return super()._predict_batch(utterances, contexts, crops)


@pytest.fixture
def predictor():
    return Recorder()


@pytest.fixture
def page(predictor):
    run = OpenRun("certain", predictor, ("text", "face"), None, "", Calibration())
    return Live(Runs(Path(), ["certain"], lambda path: run), synthetic_faces.load_detector)


def question(*places, **changes):
    """A frame with faces at these places (left, top)."""
    faces = [(synthetic_faces.draw_face(n), place) for n, place in enumerate(places)]
    jpeg = cv2.imencode(".jpg", synthetic_faces.draw_scene(faces), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return {"visitor": "a", "run": "certain", "frame": base64.b64encode(jpeg).decode()} | changes


def lefts(answer):
    return [round(480 * box[0]) for box in answer["boxes"]]


def test_a_frame_is_answered_with_its_box_and_probabilities(page, predictor):
    answer = page.answer(question((300, 60), text=" Yes. ", context=["Ada: No."]))
    assert answer["labels"] == ["joy", "fear"] and answer["probabilities"] == [1.0, 0.0] and answer["sure"]
    assert answer["predicted"] == 0 and abs(lefts(answer)[0] - 300) < 25
    assert predictor.questions == [(["Yes."], [[]], [1])]  # it reads no previous utterances
    assert not page.answer(question((300, 60), precision=0.9))["sure"]  # no thresholds, no promise


def test_the_first_face_is_followed_until_it_is_lost(page):
    """The second face comes later and stands elsewhere; the first one moves."""
    page.answer(question((20, 60)))
    for left in (30, 40, 50):
        first, second = lefts(page.answer(question((left, 60), (300, 60))))
        assert abs(first - left) < 25 and abs(second - 300) < 25
    for n in range(LONGEST_GAP + 2):
        answer = page.answer(question((300, 60)))
        # nobody else answers for a face that is missed
        assert ("probabilities" in answer) == (n >= LONGEST_GAP + 1) and answer.get(
            "notice", live.HIDDEN
        ) == live.HIDDEN
    assert page.answer(question((300, 60), visitor="b"))["probabilities"]  # each visitor has faces of their own


def test_what_cannot_be_answered_is_a_notice(page, monkeypatch):
    assert page.answer(question())["notice"] == live.NOTHING
    assert page.answer(question(text="Yes."))["probabilities"] == [1.0, 0.0]
    for broken in ("!", base64.b64encode(b"no picture").decode(), question()["frame"][:400]):
        assert "cannot be decoded" in page.answer(question(frame=broken))["notice"]
    monkeypatch.setattr(live, "MAX_FRAME_PIXELS", 480 * 240 - 1)
    assert "cannot be decoded" in page.answer(question((20, 60)))["notice"]
    assert "There is no run" in page.answer(question(run="../other"))["notice"]
    for data in (None, [], {}, question(visitor=""), question(precision="x"), question(text=["a"])):
        assert page.answer(data) == {"notice": "This is no frame of the page's camera.", "boxes": []}


def test_few_frames_wait_and_few_visitors_are_remembered(page, monkeypatch):
    for n in range(live.MAX_VISITORS + 5):
        page.answer(question(visitor=str(n)))
    assert len(page._visitors) == live.MAX_VISITORS
    entered, may_end = threading.Semaphore(0), threading.Event()
    monkeypatch.setattr(
        live, "_decode", lambda frame: (entered.release(), may_end.wait(20), np.zeros((9, 9, 3), np.uint8))[2]
    )
    waiting = [threading.Thread(target=page.answer, args=(question(),)) for _ in range(live.MAX_WAITING)]
    for thread in waiting:
        thread.start()
    assert all(entered.acquire(timeout=20) for _ in waiting)
    assert page.answer(question())["notice"] == live.BUSY
    may_end.set()
    for thread in waiting:
        thread.join(20)
    assert page.answer(question())["notice"] == live.NOTHING


def test_followed_faces_hold_no_pixels():
    faces = FollowedFaces()
    scene = synthetic_faces.draw_scene([(synthetic_faces.draw_face(1), (20, 60))])
    for _ in range(50):
        faces.update(synthetic_faces.detect_faces(scene))
    (track,) = faces.tracks
    assert len(track.index) == len(track.faces) == 1 and track.crops == []
