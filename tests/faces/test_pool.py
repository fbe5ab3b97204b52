"""Clips by a pool of processes: in order, the same with any number, and a bad clip costs itself alone."""

from __future__ import annotations

import time

import made_faces
import pytest

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Piece
from emotion_tf.faces.pool import Clip, crop_all

CONFIG = CropConfig(crops=2, seconds=4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two good clips around one that hangs, one that crashes, one that is no video and one that is not there."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [
        made_faces.write_speaker(folder / "a.mp4", 1),
        made_faces.write_empty(folder / "hang.mp4", made_faces.HANG),
        made_faces.write_empty(folder / "crash.mp4", made_faces.CRASH),
        folder / "text.mp4",
        folder / "none.mp4",
        made_faces.write_empty(folder / "empty.mp4"),
        made_faces.write_speaker(folder / "b.mp4", 2),
    ]
    paths[3].write_text("not a video")
    return [Clip((Piece(path),)) for path in paths]


def test_a_clip_that_hangs_or_crashes_costs_itself_alone(clips):
    began = time.monotonic()
    found = list(crop_all(clips, CONFIG, made_faces.load_made, 32, 2))
    assert [crops.problem for crops in found] == [
        "", "time limit", "decoder crashed", "cannot be decoded", "cannot be decoded", "no face found", "",
    ]  # fmt: skip
    assert found[1].detail == "given up after 4 s" and "exit code" in found[2].detail
    assert "Expected a video" in found[3].detail and "No such file" in found[4].detail
    assert [len(crops.jpegs) for crops in found] == [2, 0, 0, 0, 0, 0, 2]
    assert time.monotonic() - began < 60


def test_one_process_and_two_give_the_same_in_the_order_asked_for(clips):
    good = [clips[0], FaceCrops(problem="no clip"), clips[6], clips[5], *[clips[0]] * 9, clips[6]]
    one, two = (list(crop_all(iter(good), CONFIG, made_faces.load_made, 32, n)) for n in (1, 2))
    assert one == two and one[1].problem == "no clip"
    assert one[0] == one[4] and one[2] == one[-1] != one[0]


def test_no_clip_is_read_further_ahead_than_the_processes_need(clips):
    asked = []

    def ask():
        for n in range(40):
            asked.append(n)
            yield clips[5]

    found = crop_all(ask(), CONFIG, made_faces.load_made, 32, 1)
    next(found)
    assert len(asked) <= 17
    found.close()


def no_detector():
    raise UserError("No face detector")


def test_a_missing_detector_is_told_before_any_process_starts(clips):
    with pytest.raises(UserError, match="No face detector"):
        next(crop_all(clips, CONFIG, no_detector, 32, 2))
