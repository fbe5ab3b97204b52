"""Two commands at once, and what a kill leaves, for the verbs that take minutes at most."""

from __future__ import annotations

import shutil

import kills
import pytest

from emotion_tf import files, locks
from emotion_tf.cli.explain import _claim


def test_two_explanations_at_once_have_different_numbers(tmp_path):
    (tmp_path / "1").mkdir()
    with kills.lock_of_another_process(tmp_path / "2") as holder:
        with _claim(None, tmp_path) as folder:
            assert folder == tmp_path / "3"
        refused = pytest.raises(locks.Occupied, match=f"2 is being written by process {holder.pid}")
        with refused, _claim(tmp_path / "2", tmp_path):
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
    from emotion_tf.data.dataset import Dataset

    shutil.copytree(dataset, files.replaced_folder(tmp_path / "data"))
    assert Dataset.open(tmp_path / "data").splits
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_demo_whose_replacement_was_killed_is_not_drawn_again(dataset, tmp_path, monkeypatch):
    from emotion_tf.data import prepare

    monkeypatch.setattr(prepare, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(prepare, "draw_demo", lambda *_, **__: pytest.fail("drawn again"))
    shutil.copytree(dataset, files.replaced_folder(tmp_path / "demo"))
    prepare.draw_missing_demo(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_refused_data_set_is_cleared_up(dataset, tmp_path, fault):
    """`prepare --overwrite` was killed after the new data set got its name."""
    for name in ("data", ".data.replaced", ".data.deleted", ".data.partial"):
        shutil.copytree(dataset, tmp_path / name)
    assert "data exists" in fault("prepare", "demo", "--utterances", "200", "--out", tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "marker"),
    [
        (("explain", ".", "--text", "a"), "index.html"),
        (("prepare", "demo", "--utterances", "200"), "dataset_info.json"),
    ],
)
def test_overwrite_keeps_a_folder_of_another_program(words, marker, tmp_path, fault):
    foreign = {marker: '{"version": "1.0.0"}', "vocab.txt": "mine"}
    (tmp_path / "site").mkdir()
    for name, text in foreign.items():
        (tmp_path / "site" / name).write_text(text)
    message = fault(*words, "--out", tmp_path / "site", "--overwrite")
    assert f"another program wrote its {marker}" in message
    assert {path.name: path.read_text() for path in (tmp_path / "site").iterdir()} == foreign


def test_an_explanation_that_exists_is_not_locked(tmp_path, monkeypatch):
    """Another command of its folder would be told that it is being written."""
    path = tmp_path / "1"
    writer, locked = locks.writer, []
    monkeypatch.setattr(locks, "writer", lambda path: (locked.append(path.name), writer(path))[1])
    monkeypatch.setattr("emotion_tf.cli.explain._last_number", lambda _: path.mkdir() or 0)  # another made it meanwhile
    with _claim(None, tmp_path):
        assert locked == ["2"]


def test_a_superscript_is_no_number_of_an_explanation(tmp_path):
    from emotion_tf.cli.explain import _last_number

    for name in ("3", "\u00b2", "new"):
        (tmp_path / name).mkdir()
    assert _last_number(tmp_path) == 3
