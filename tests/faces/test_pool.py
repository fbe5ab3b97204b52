"""Clips by a pool of processes: in order, the same with any number, and a bad clip costs itself alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic_faces
from helpers import ROOT

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces import pool
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip, crop_all, frames_at

CONFIG = CropConfig(crops=2, seconds=4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two good clips around one that hangs, one that crashes, one that is no video and one that is not there."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [
        synthetic_faces.write_speaker(folder / "a.mp4", 1),
        synthetic_faces.write_empty(folder / "hang.mp4", synthetic_faces.HANG),
        synthetic_faces.write_empty(folder / "crash.mp4", synthetic_faces.CRASH),
        folder / "text.mp4",
        folder / "none.mp4",
        synthetic_faces.write_empty(folder / "empty.mp4"),
        synthetic_faces.write_speaker(folder / "b.mp4", 2),
    ]
    paths[3].write_text("not a video")
    return [Clip((Segment(path),)) for path in paths]


def test_a_clip_that_hangs_or_crashes_costs_itself_alone(clips):
    began = time.monotonic()
    results = list(crop_all(clips, CONFIG, synthetic_faces.load_detector, 32, 2))
    assert [crops.problem for crops in results] == [
        "", "time limit", "decoder crashed", "cannot be decoded", "cannot be decoded", "no face found", "",
    ]  # fmt: skip
    assert results[1].detail == "given up after 4 s" and "exit code" in results[2].detail
    assert "Expected a video" in results[3].detail and "No such file" in results[4].detail
    assert [len(crops.jpegs) for crops in results] == [2, 0, 0, 0, 0, 0, 2]
    assert time.monotonic() - began < 60


def test_a_clip_is_not_blamed_for_the_one_after_it(clips, monkeypatch):
    """Messages of a process that ended are read late, as on a busy machine."""
    from pebble.pool.process import PoolManager

    process = PoolManager.process_next_message

    def late(manager, timeout):
        time.sleep(0.5)
        process(manager, timeout)

    monkeypatch.setattr(PoolManager, "process_next_message", late)
    results = list(crop_all([clips[5], clips[2], clips[5]], CONFIG, synthetic_faces.load_detector, 32, 1))
    assert [crops.problem for crops in results] == ["no face found", "decoder crashed", "no face found"]


def test_a_clip_that_takes_too_much_memory_costs_itself_alone(clips, tmp_path):
    hungry = synthetic_faces.write_empty(tmp_path / "hungry.mp4", synthetic_faces.HUNGRY)
    several = [Clip((Segment(hungry),)), clips[5]]
    first, second = crop_all(several, CONFIG, synthetic_faces.load_detector, 32, 1)
    assert first.problem == "cannot be decoded" and "hungry.mp4: its frames take more than 2 GB" in first.detail
    assert second.problem == "no face found"


class Segments(tuple):
    """Segments whose clip hangs or crashes the decoder."""

    def __bool__(self):
        time.sleep(600) if self[0] == "hang" else os._exit(3)


def test_a_frame_of_a_clip_that_hangs_or_crashes_is_left_out(clips):
    places = [(segments, 0.5) for segments in (Segments(["hang"]), Segments(["crash"]), (), clips[3].segments)]
    frames = list(frames_at([*places, (clips[0].segments, 0.5)], 4.0))
    assert frames[:4] == [None] * 4 and frames[4].ndim == 3


def test_one_process_and_two_give_the_same_in_the_order_of_the_clips(clips):
    good = [clips[0], FaceCrops(problem="no clip"), clips[6], clips[5], *[clips[0]] * 9, clips[6]]
    serial, parallel = (list(crop_all(iter(good), CONFIG, synthetic_faces.load_detector, 32, n)) for n in (1, 2))
    assert serial == parallel and serial[1].problem == "no clip"
    assert serial[0] == serial[4] and serial[2] == serial[-1] != serial[0]


def test_no_clip_is_read_further_ahead_than_the_processes_need(clips):
    consumed = []

    def clip_source():
        for n in range(40):
            consumed.append(n)
            yield clips[5]

    results = crop_all(clip_source(), CONFIG, synthetic_faces.load_detector, 32, 1)
    next(results)
    assert len(consumed) <= 17
    results.close()


def no_detector():
    raise UserError("No face detector")


def test_a_missing_detector_is_told_before_any_process_starts(clips):
    with pytest.raises(UserError, match="No face detector"):
        next(crop_all(clips, CONFIG, no_detector, 32, 2))


def test_the_processes_end_with_a_killed_command(clips):
    """Even in a clip that hangs, whose time limit nobody watches any more."""
    code = (
        "import synthetic_faces\n"
        "from emotion_tf.config import CropConfig\n"
        "from emotion_tf.faces.pool import *\n"
        f"clip = Clip((Segment(Path({str(clips[1].segments[0].path)!r})),))\n"
        "list(crop_all([clip], CropConfig(seconds=1000), synthetic_faces.load_detector, 32, 1))\n"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}) as command:
        while not (workers := _workers(command.pid)):
            time.sleep(0.1)
        time.sleep(2)  # until it is in the clip
        command.kill()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


def _workers(pid):
    children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_worker_of_a_cluster_needs_the_clips_at_the_same_path(tmp_path):
    clip = Clip((Segment(Path("none.mp4")),))
    with pytest.raises(UserError, match=r"has no file .*none.mp4. Expected the clips on storage that all workers have"):
        pool._crop_on_worker(clip, CONFIG, 32, synthetic_faces.load_detector, tmp_path)
