"""A search is never lost and no finished trial runs twice: kills, full disks, two searches at once, --overwrite."""

import json
import os

import kills
import pandas as pd
import pytest
from fake_trials import Fake

from emotion_tf import files
from emotion_tf.files import WriteError

WORDS = ("--trials", "6", "--workers", "1", "--search", "learning_rate")


class Counting(Fake):
    """Records the trials that run; `stop` is raised in place of trial number `at`."""

    def __init__(self, stop=None, at=3):
        super().__init__()
        object.__setattr__(self, "ran", [])
        object.__setattr__(self, "stop", (stop, at))

    def submit(self, task):
        if self.stop[0] and len(self.ran) == self.stop[1]:
            raise self.stop[0]
        self.ran.append(task.folder.name)
        return super().submit(task)


class Full(Counting):
    """The disk becomes full in trial number `at`."""

    def run(self, task):
        if len(self.ran) == self.stop[1] + 1:
            raise self.stop[0]
        return super().run(task)

    def submit(self, task):
        self.ran.append(task.folder.name)
        return Fake.submit(self, task)


def table(folder):
    return pd.read_csv(folder / "trials.csv", dtype={"trial": str})


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def test_the_same_command_continues_a_killed_search(tune, folder, tmp_path, command):
    first, second = Counting(Killed()), Counting()
    with pytest.raises(Killed):
        tune(*WORDS, job=first, through=command)
    before = table(folder)
    tune(*WORDS, job=second)
    assert len(before) == 3 and not set(second.ran) & set(before["trial"])
    after = table(folder)
    pd.testing.assert_frame_equal(after[:3], before)
    assert len(after) == 6 and after["trial"].is_unique
    tune(*WORDS, "--overwrite")
    undisturbed = table(folder).sort_values("trial", ignore_index=True)
    pd.testing.assert_frame_equal(after.sort_values("trial", ignore_index=True)[undisturbed.columns], undisturbed)
    assert os.listdir(tmp_path / "results") == ["x"]


def test_the_same_command_without_a_name_continues_a_killed_search(tune, folder, tmp_path, command):
    for seed in ("0", "1"):  # the second, with other options, is not continued
        with pytest.raises(Killed):
            tune(*WORDS, "--train.seed", seed, job=Counting(Killed()), through=command, name="")
    last = Counting()
    tune(*WORDS, job=last, name="")
    first, second = sorted((tmp_path / "results").iterdir())
    assert len(last.ran) == 3 and (len(table(first)), len(table(second))) == (6, 3)
    with kills.lock_of_another_process(second):
        tune(*WORDS, "--train.seed", "1", name="")
    assert len(os.listdir(tmp_path / "results")) == 3


def test_resume_finds_a_search_whose_replacement_was_killed(tune, folder, command):
    with pytest.raises(Killed):
        tune(*WORDS, job=Counting(Killed()), through=command)
    folder.rename(files.replaced_folder(folder))
    tune("--resume", name="")
    assert len(table(folder)) == 6 and os.listdir(folder.parent) == ["x"]


def test_the_error_of_a_new_search_does_not_name_files_of_the_old_one(tune, folder, fault):
    tune(*WORDS)
    words = ("--trials", "2", "--workers", "1", "--search", "learning_rate", "--overwrite")
    message = tune(*words, job=Fake(breaks="The loss is no number"), through=fault)
    assert "2 trials, all broken. The last: The loss is no number with" in message and "trials.csv" not in message
    assert f"{folder} is as it was before" in message and len(table(folder)) == 6


def test_a_chief_is_continued_as_a_chief(tune, folder, command):
    address = "127.0.0.1:39181"
    words = ("--trials", "6", "--workers", "1", "--search", "learning_rate")
    chief = ("--tuner.role", "chief", "--tuner.address", address)
    code, output = tune(*words, *chief, job=Counting(KeyboardInterrupt()), through=command)
    assert code == 130 and f"--name x --workers 1 --tuner.role chief --tuner.address {address}" in output.err


def test_a_killed_search_with_other_options_is_not_continued(tune, folder, command, fault):
    with pytest.raises(Killed):
        tune(*WORDS, job=Counting(Killed()), through=command)
    assert "another train.seed (0, not 1)" in tune(*WORDS, "--train.seed", "1", through=fault)
    assert len(table(folder)) == 3


@pytest.mark.parametrize("error", [WriteError("Cannot write last.npz: No space left on device."), OSError(28, "Full")])
def test_a_full_disk_leaves_a_search_that_continues(error, tune, folder, fault):
    """A trial that cannot write its files is not a broken one."""
    message = tune(*WORDS, job=Full(error), through=fault)
    assert message.startswith("Cannot write ") and f"{folder} is kept." in message
    assert message.endswith("Continue with: python main.py tune --resume --name x --workers 1")
    assert len(table(folder)) == 3 and table(folder)["error"].isna().all()
    again = Counting()
    tune("--resume", job=again)
    assert len(again.ran) == 3 and len(table(folder)) == 6 and table(folder)["error"].isna().all()


def test_overwrite_replaces_only_a_search(tune, folder, fault):
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    message = tune(*WORDS, "--overwrite", through=fault)
    assert "is no search: it has no search.json" in message and os.listdir(folder) == ["thesis.txt"]


def test_overwrite_keeps_the_old_search_until_the_new_one_has_a_trial(tune, folder, tmp_path, command):
    tune(*WORDS)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, output = tune(*WORDS, "--overwrite", job=Counting(KeyboardInterrupt(), at=0), through=command)
    assert code == 130 and f"{folder} is as it was before" in output.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    code, output = tune(*WORDS, "--overwrite", job=Counting(KeyboardInterrupt()), through=command)
    old = tmp_path / "results" / ".x.replaced"
    assert code == 130 and f"stays in {old}" in output.err and "tune --resume --name x" in output.err
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before and len(table(folder)) == 3
    tune("--resume")
    assert len(table(folder)) == 6 and os.listdir(tmp_path / "results") == ["x"]


def test_two_searches_of_one_name(tune, folder, fault):
    tune(*WORDS)
    with kills.lock_of_another_process(folder) as holder:
        for word in ("--resume", "--overwrite"):
            assert f"{folder} is being written by process {holder.pid}" in tune(word, *WORDS, through=fault)
    assert len(table(folder)) == 6


def test_a_kill_while_the_results_are_written_trains_nothing_again(tune, folder, monkeypatch, command):
    words = ("--trials", "8", "--tuner.algorithm", "hyperband", "--tuner.epochs", "4", "--search", "learning_rate")

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("tuning.results.write_summary", die)
        tune(*words, through=command)
    last = Counting()
    tune(*words, job=last)
    summary = json.loads((folder / "summary.json").read_text())
    assert last.ran == [] and summary["trained_again"] and not (folder / "trials").exists()
