"""Handlers of the page, without a browser."""

from __future__ import annotations

import types
from pathlib import Path

import cv2
import pytest
import synthetic_faces

from emotion_tf.config import CropConfig
from emotion_tf.faces import encode
from emotion_tf.faces.candidates import find_in_photo
from emotion_tf.page import app
from emotion_tf.page.inputs import FaceFinder

SIZE = 32


@pytest.fixture
def finder():
    finder = FaceFinder(CropConfig(), synthetic_faces.load_detector)
    yield finder
    finder.close()


def test_a_choice_of_face_belongs_to_one_upload(finder, tmp_path, monkeypatch):
    pair, other = str(tmp_path / "pair.png"), str(tmp_path / "other.png")
    for path, (first, second) in ((pair, (1, 2)), (other, (3, 4))):
        faces = [(synthetic_faces.draw_face(first), (20, 40)), (synthetic_faces.draw_face(second), (300, 60))]
        cv2.imwrite(path, synthetic_faces.draw_scene(faces))
    predicted = []
    monkeypatch.setattr(app, "answer_utterance", lambda run, utterance, precision: predicted.append(utterance.faces))
    monkeypatch.setattr(app.html, "answers_html", lambda answers: "")
    run = types.SimpleNamespace(predictor=types.SimpleNamespace(facts=types.SimpleNamespace(face_size=SIZE)))
    runs = types.SimpleNamespace(open=lambda name: run, call=lambda function, *args: function(*args))
    handlers = app.Handlers(runs, finder, synthetic_faces.load_detector)
    _, choice, upload_faces = handlers.find_faces("run", pair, None, False)
    assert [name for name, _ in choice.choices] == ["1", "2"] and choice.visible
    second = choice.choices[1][1]

    def face(picture, chosen, faces):
        assert handlers.predict("run", "", "none", "", "", picture, None, False, chosen, faces) == ""
        return predicted.pop()

    def crops(path):
        return [
            crops.jpegs
            for crops in find_in_photo(encode.read_pixels(Path(path)), synthetic_faces.load_detector(), SIZE).faces
        ]

    assert face(pair, choice.value, upload_faces) == crops(pair)[0]
    assert face(pair, second, upload_faces) == crops(pair)[1]
    assert face(pair, second, app.UploadFaces()) == crops(pair)[1]  # the session has expired, the choice has not
    assert face(other, second, upload_faces) == crops(other)[0]  # pressed before its faces were found
    assert face(other, second, app.UploadFaces()) == crops(other)[0]
