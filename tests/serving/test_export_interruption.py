"""What a killed or failed export leaves, and two exports of one run at once. The graph is not written here."""

import shutil

import kills
import pytest

from emotion_tf.errors import UserError
from emotion_tf.serving import export as module


@pytest.fixture
def run(untrained_text, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_write", lambda predictor, folder: (folder / "saved_model.pb").write_text("new"))
    monkeypatch.setattr(module, "verify", lambda folder: None)
    return shutil.copytree(untrained_text, tmp_path / "run")


def names(run):
    return sorted(path.name for path in (run / "serving").iterdir())


def test_the_next_export_removes_what_killed_ones_left(run, succeed):
    for name in (".1.unfinished", ".2.unfinished", ".3.deleted"):
        (run / "serving" / name / "assets").mkdir(parents=True)
    (run / "serving" / ".1.lock").write_text("process 1")
    assert "serving/1" in succeed("export", run)
    assert names(run) == ["1"] and not list(run.glob(".*"))


def test_links_of_somebody_else_are_not_followed(run, tmp_path, fault, succeed):
    (tmp_path / "mine" / ".a.deleted").mkdir(parents=True)
    (run / "serving").symlink_to(tmp_path / "mine")
    assert "is a symbolic link to" in fault("export", run)
    (run / "serving").unlink()
    (run / "serving").mkdir()
    (run / "serving" / ".b.deleted").symlink_to(tmp_path / "mine")
    succeed("export", run)
    assert names(run) == ["1"] and [path.name for path in (tmp_path / "mine").iterdir()] == [".a.deleted"]


def test_a_failed_export_leaves_no_folder(run, fault, monkeypatch):
    before = sorted(path.name for path in run.iterdir())

    def fail(folder):
        raise UserError("The export breaks the contract.")

    monkeypatch.setattr(module, "verify", fail)
    assert fault("export", run) == "The export breaks the contract."
    assert sorted(path.name for path in run.iterdir()) == before


def test_two_exports_of_one_run_at_once(run, fault, succeed):
    with kills.lock_of_another_process(run / "serving") as holder:
        assert f"{run / 'serving'} is being written by process {holder.pid}" in fault("export", run)
        assert not (run / "serving").exists()
    succeed("export", run)
