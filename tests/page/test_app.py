"""What stands behind the buttons, without a browser."""

from __future__ import annotations

import contextlib
import types
from pathlib import Path

import cv2
import pytest
import synthetic_faces

from emotion_tf.config import CropConfig
from emotion_tf.data import images
from emotion_tf.faces.candidates import find_in_photo
from emotion_tf.page import app
from emotion_tf.page.inputs import FaceFinder

SIZE = 32


@pytest.fixture
def finder():
    made = FaceFinder(CropConfig(), synthetic_faces.load_detector)
    yield made
    made.close()


def test_a_choice_is_of_one_upload(finder, tmp_path, monkeypatch):
    one, other = str(tmp_path / "one.png"), str(tmp_path / "other.png")
    for path, (first, second) in ((one, (1, 2)), (other, (3, 4))):
        faces = [(synthetic_faces.draw_face(first), (20, 40)), (synthetic_faces.draw_face(second), (300, 60))]
        cv2.imwrite(path, synthetic_faces.draw_scene(faces))
    asked = []
    monkeypatch.setattr(app, "answer_utterance", lambda run, utterance, precision: asked.append(utterance.faces))
    monkeypatch.setattr(app.html, "answers_html", lambda found: "")
    run = types.SimpleNamespace(predictor=types.SimpleNamespace(facts=types.SimpleNamespace(face_size=SIZE)))
    runs = types.SimpleNamespace(open=lambda name: run, lock=contextlib.nullcontext())
    do = app.Handlers(runs, finder, synthetic_faces.load_detector)
    _, chooser, seen = do.find_faces("run", one, None, False)
    assert [name for name, _ in chooser.choices] == ["1", "2"] and chooser.visible
    second = chooser.choices[1][1]

    def face(picture, chosen, seen):
        assert do.predict("run", "", "none", "", "", picture, None, False, chosen, seen) == ""
        return asked.pop()

    def crops(path):
        return [
            found.jpegs
            for found in find_in_photo(images.read_pixels(Path(path)), synthetic_faces.load_detector(), SIZE).faces
        ]

    assert face(one, chooser.value, seen) == crops(one)[0]
    assert face(one, second, seen) == crops(one)[1]
    assert face(one, second, app.UploadFaces()) == crops(one)[1]  # what was seen is forgotten, the choice is not
    assert face(other, second, seen) == crops(other)[0]  # asked before it was looked at
    assert face(other, second, app.UploadFaces()) == crops(other)[0]
