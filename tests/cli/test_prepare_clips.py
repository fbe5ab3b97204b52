"""`prepare clips` and `prepare meld` on the command line: an error is one line, and nothing is left."""

from __future__ import annotations

import inspect
import json
import os

import pytest
import synthetic_faces
from small_tables import write_table

from emotion_tf.cli.prepare import prepare_demo
from emotion_tf.data import clip_source
from emotion_tf.data.clips import COLUMNS
from emotion_tf.data.prepare import DEMO_OPTIONS, draw_demo
from emotion_tf.labels import MELD_EMOTIONS

YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


@pytest.fixture
def table(tmp_path):
    """A folder `in` with a clip and its table."""
    synthetic_faces.write_speaker(tmp_path / "in" / "a.mp4")
    rows = [{"clip": "a.mp4"}, {"split": "dev", "clip": "a.mp4"}]
    return write_table(tmp_path / "in" / "table.csv", rows, COLUMNS)


LEARNED = ("--tokenizer", "learned", "--face-size", "32")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--faces.detector-model", "/none.onnx"], "No face detector at /none.onnx"),
        (["--faces.detector-model", "{junk}"], "is not a YuNet model"),
        (["--faces.policy", "speking"], "Did you mean 'speaking'?"),
        (["--faces.policy", "boxes"], "needs the boxes of the active speaker"),
        (["--faces.detector", "yolo"], "Invalid `faces.detector`. Expected one of: yunet, mtcnn"),
        (["--faces.rate", "0"], "Invalid `faces.rate`"),
        (["--faces.crops", "0"], "Invalid `faces.crops`"),
        (["--processes", "-1"], "Invalid `--processes`"),
        (["--detector", "yunet"], "Unknown option --detector. Did you mean --faces.detector?"),
    ],
)
def test_a_wrong_option(table, tmp_path, fault, words, said):
    junk = tmp_path / "in" / "junk.onnx"
    junk.write_text("junk")
    words = [word.format(junk=junk) for word in words]
    assert said in fault("prepare", "clips", table, "--out", tmp_path / "out" / "data", *LEARNED, *words)
    assert os.listdir(tmp_path) == ["in"]


def test_an_output_that_cannot_be_written(table, tmp_path, fault):
    clip = tmp_path / "in" / "a.mp4"
    for out, reason in (
        ("/proc/none/data", "Cannot write /proc/none/data"),
        (clip / "data", f"Expected a name in a folder. Received {clip / 'data'}, but {clip} is a file"),
    ):
        message = fault("prepare", "clips", table, "--out", out, *LEARNED, "--faces.detector", "mtcnn")
        assert reason in message


def test_yunet_needs_no_download(table, tmp_path, succeed, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    words = ("--processes", "1")
    printed = succeed("prepare", "clips", table, "--out", tmp_path / "data", *LEARNED, *words)
    assert "train: 1 row: no face found 1\n" in printed  # the faces of the tests are drawn
    faces = json.loads((tmp_path / "data" / "dataset_info.json").read_text())["faces"]
    assert faces["detector"] == "yunet" and faces["detector_model"] == YUNET_SHA256


def test_meld_without_anything_and_with_options_that_exclude_each_other(tmp_path, fault):
    words = ("prepare", "meld", "--root", tmp_path, "--out", tmp_path / "data", *LEARNED)
    assert f"No table of MELD in {tmp_path}" in fault(*words)
    assert "--fair-times" in fault(*words, "--fair-boxes", tmp_path / "b.csv")
    assert "reads no clips" in fault(*words, "--text-only", "--fair-times", tmp_path)
    assert "Expected one of: emotion, sentiment" in fault(*words, "--target", "emotions")
    assert os.listdir(tmp_path) == []


def test_the_account_is_printed(table, tmp_path, succeed, monkeypatch):
    monkeypatch.setattr(clip_source, "load_detector", synthetic_faces.load_detector)
    words = ("--faces.detector", "mtcnn", "--processes", "1")
    printed = succeed("prepare", "clips", table, "--out", tmp_path / "data", *LEARNED, *words)
    assert "train: 1 row: with a face 1\ndev: 1 row: with a face 1\n" in printed


def test_prepare_demo_draws_the_data_set_that_train_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no demo data set yet
    verb, draw = inspect.signature(prepare_demo).parameters, inspect.signature(draw_demo).parameters
    assert verb["dataset"].default.options(MELD_EMOTIONS, "demo") == DEMO_OPTIONS
    for name in ("utterances", "seed"):
        assert verb[name].default == draw[name].default
