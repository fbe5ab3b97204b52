"""Two commands at once, and what a kill leaves, for the verbs that take minutes at most."""

from __future__ import annotations

import kills
import pytest

from emotion_tf import files, locks
from emotion_tf.cli.explain import _claim


def test_two_explanations_at_once_have_different_numbers(tmp_path):
    (tmp_path / "1").mkdir()
    with kills.lock_of_another_process(tmp_path / "2") as holder:
        with _claim(None, tmp_path) as folder:
            assert folder == tmp_path / "3"
        told = pytest.raises(locks.Occupied, match=f"2 is being written by process {holder.pid}")
        with told, _claim(tmp_path / "2", tmp_path):
            pass
    with _claim(None, tmp_path) as folder:
        assert folder == tmp_path / "2"


def test_two_data_sets_at_one_place(tmp_path, fault):
    with kills.lock_of_another_process(tmp_path / "data") as holder:
        message = fault("prepare", "demo", "--utterances", "200", "--out", tmp_path / "data")
        assert f"data is being written by process {holder.pid}" in message
    assert not list(tmp_path.glob(".*"))


def test_a_demo_is_drawn_once_by_two_trainings(tmp_path, monkeypatch):
    """The second waits, and finds the data set."""
    from emotion_tf.data import prepare

    monkeypatch.setattr(prepare, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(prepare, "draw_demo", lambda *_, **__: pytest.fail("drawn twice"))
    writer = locks.writer

    def writer_after_the_other(path, wait=False):
        assert wait and path == tmp_path / "demo"
        path.mkdir()
        return writer(path)

    monkeypatch.setattr(prepare.locks, "writer", writer_after_the_other)
    prepare.draw_missing_demo(tmp_path / "demo")


def test_pictures_of_a_killed_demo_are_removed(tmp_path, succeed):
    (tmp_path / ".data.drawing" / "faces").mkdir(parents=True)
    (tmp_path / ".data.partial").mkdir()
    succeed("prepare", "demo", "--utterances", "200", "--out", tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_data_set_whose_replacement_was_killed_is_found(dataset, tmp_path):
    import shutil

    from emotion_tf.data.dataset import Dataset

    shutil.copytree(dataset, files.replaced(tmp_path / "data"))
    assert Dataset.open(tmp_path / "data").splits
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
