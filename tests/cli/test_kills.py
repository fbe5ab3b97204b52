"""`train`, `crossval`, `evaluate` after a kill, an error, a full disk: nothing is lost, the same command completes."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import time

import kills
import numpy as np
import pytest

from emotion_tf import files, folders
from emotion_tf.cli import report
from emotion_tf.cli import train as train_verb
from emotion_tf.errors import UserError
from emotion_tf.folders import RUN
from emotion_tf.runs.run import Run
from emotion_tf.training import cross_validate, loop

OPTIONS = ("--towers", "text", "--text.branches", "cnn", "--text.word-dim", 4, "--text.cnn-filters", 3)
OPTIONS += ("--train.steps-per-epoch", 1, "--train.batch-size", 16)


pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def words(dataset):
    return ("train", "--data", dataset, *OPTIONS, "--train.epochs", 2, "--name", "x")


@pytest.fixture
def runs(command):
    """The folder of the runs, with nothing in it."""
    folders.RUNS.mkdir()
    return folders.RUNS


@pytest.fixture
def old(runs, untrained_words):
    """A finished run x with a mark of its own."""
    shutil.copytree(untrained_words, runs / "x")
    (runs / "x" / "old.txt").write_text("mine")
    return runs / "x"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The pages without explanations, which take most of the time."""
    monkeypatch.setattr(report, "_explanations", lambda run, rows, mistakes: {})


def raises(error):
    def function(*arguments, **options):
        raise error

    return function


def content(run):
    """The results of a run without the clock, the command and the pictures."""
    results = {"weights": [np.array(variable).tobytes() for variable in Run(run).model.weights]}
    for file in run.rglob("*"):
        name = str(file.relative_to(run))
        if file.suffix in (".csv", ".txt") or file.name in ("config.json", "calibration.json"):
            results[name] = file.read_bytes()
        elif file.is_file():
            results[name if "events" not in name else file.suffix] = "present"
    with open(run / "history.csv") as file:
        rows = list(csv.DictReader(file))
    clock = ("seconds", "utterances_per_second")
    results["history.csv"] = [{k: v for k, v in row.items() if k not in clock} for row in rows]
    metrics = json.loads((run / "metrics.json").read_text())
    results["metrics.json"] = {
        split: {k: v for k, v in numbers.items() if k != "command"} for split, numbers in metrics.items()
    }
    return results


@pytest.mark.parametrize("verb", ["train", "crossval"])
def test_only_a_folder_of_its_own_is_overwritten(verb, words, fault, runs, untrained_words):
    (runs / "foreign").mkdir()
    (runs / "foreign" / "notes.txt").write_text("mine")
    (runs / "link").symlink_to(untrained_words)
    shutil.copytree(untrained_words, runs / "run")
    (runs / "validation").mkdir()
    for name in ("crossval.json", "config.json"):
        (runs / "validation" / name).write_text("{}")
    kind, other = ("run", "validation") if verb == "train" else ("cross-validation", "run")
    for name in ("foreign", other):
        message = fault(verb, *words[1:-1], name, "--overwrite")
        assert f"{name} is no {kind}: it has no " in message and f"--overwrite replaces only a {kind}" in message
    assert "link is a symbolic link to" in fault(verb, *words[1:-1], "link", "--overwrite")
    assert sorted(os.listdir(runs)) == ["foreign", "link", "run", "validation"]
    assert (
        (runs / "foreign" / "notes.txt").exists() and RUN.is_finished(runs / "run") and RUN.is_finished(untrained_words)
    )


@pytest.mark.parametrize("error", [UserError("The loss became nan."), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("place", ["build_setup", "_train_epoch"])
def test_a_run_that_fails_before_its_first_checkpoint_gives_the_old_one_back(
    error, place, words, command, old, monkeypatch
):
    monkeypatch.setattr(loop, place, raises(error))
    if isinstance(error, MemoryError):
        with pytest.raises(MemoryError):
            command(*words, "--overwrite")
    else:
        code, output = command(*words, "--overwrite")
        assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
        assert output.err.splitlines()[-1].endswith("x is as it was before.")
    assert (old / "old.txt").exists() and RUN.is_finished(old) and os.listdir(old.parent) == ["x"]


@pytest.mark.parametrize("error", [files.WriteError("Cannot write: disk full."), KeyboardInterrupt()])
def test_an_unfinished_run_is_not_offered_in_place_of_the_new_one(error, words, command, old, monkeypatch):
    """`--resume` would continue its configuration."""
    (old / "model.keras").unlink()
    (old / "checkpoint" / "last.npz").write_text("")
    monkeypatch.setattr(loop, "build_setup", raises(error))
    _, output = command(*words, "--overwrite")
    assert output.err.splitlines()[-1].endswith("x is as it was before.") and "--resume" not in output.err


def test_the_hint_names_the_run_which_needs_no_quotes(words, command, fault, runs, monkeypatch):
    monkeypatch.setattr(loop, "_train_epoch", raises(KeyboardInterrupt()))
    assert "Invalid `--name`. Expected" in fault(*words[:-1], "my run")
    _, output = command(*words[:-1], "my-run")
    message = (
        f"Stopped in epoch 1 of 2. {runs / 'my-run'} is kept. Continue with: python main.py train --resume --name "
    )
    assert output.err.splitlines()[-1] == f"{message}my-run"
    monkeypatch.setattr(loop, "build_setup", raises(KeyboardInterrupt()))
    _, output = command(*words[:-1], "another", "--trust")
    assert output.err.splitlines()[-1].startswith(
        "Interrupted. Nothing was written. Start again with: python main.py tr"
    )


def test_the_message_of_ctrl_c_says_how_far_the_training_has_come(tmp_path):
    run = tmp_path / "x"
    assert train_verb._progress(run, 3) == "Stopped in epoch 1 of 3."
    run.mkdir()
    for epochs, expected in ((1, "Stopped in epoch 2 of 3."), (3, "Stopped after the last epoch.")):
        (run / "history.csv").write_text("epoch,loss\n" + "1,0.5\n" * epochs)
        assert train_verb._progress(run, 3) == expected
    for name in ("run.json", "config.json", "model.keras"):
        (run / name).write_text("{}")
    assert train_verb._progress(run, 3) == "Stopped in the evaluation."


def test_seeds_that_are_overwritten_start_again_while_old_ones_are_left(
    words, command, runs, untrained_words, monkeypatch
):
    """Without --overwrite, the command would mix old and new runs."""
    for seed in range(2):
        shutil.copytree(untrained_words, runs / f"x-seed{seed}")

    def interrupted(config, path, overwrite, *others):
        with files.new_folder(path, RUN, overwrite) as folder:
            shutil.copytree(untrained_words, folder, dirs_exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_verb, "_train_one", interrupted)
    _, output = command(*words, "--overwrite", "--seeds", 2)
    assert "Start again from x-seed0, since later runs are still the old ones, with: python main.py " in output.err
    assert "--overwrite" in output.err
    shutil.rmtree(runs / "x-seed1")
    _, output = command(*words, "--overwrite", "--seeds", 2)
    assert "Continue with: python main.py " in output.err and "--overwrite" not in output.err


def test_a_full_disk_after_an_epoch_keeps_both_runs(words, fault, succeed, old, untrained_words, monkeypatch):
    """The message says so; a command that reads names the old one; --resume completes the new one."""
    save, full = np.savez, OSError(errno.ENOSPC, "No space left on device")
    calls = []

    def fails_the_second_time(file, **arrays):
        calls.append(file.name)
        if ".last.npz." in file.name and sum(".last.npz." in name for name in calls) == 2:
            raise full
        save(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fails_the_second_time)
        message = fault(*words, "--overwrite")
    aside = old.parent / ".x.replaced"
    assert message.startswith(f"Cannot write {old}/checkpoint/last.npz: No space left on device.")
    assert f"{old} is kept. Continue with: python main.py train --resume --name x" in message
    assert message.endswith(f"The run that it replaces stays in {aside} until it is finished.")
    assert f"The run that it replaces is kept in {aside}." in fault("evaluate", old)
    assert "x exists" in fault(*words)
    assert RUN.is_finished(aside) and (aside / "old.txt").exists()
    printed = succeed("train", "--resume", "--name", "x")
    assert "Resumed after epoch 1" in printed and os.listdir(old.parent) == ["x"]
    assert (old / "report.html").exists() and not (old / "old.txt").exists()
    assert "nothing to resume" in fault("train", "--resume", "--name", "x")


def test_a_missing_run_is_the_replaced_one(words, succeed, old):
    """Killed between two renamings."""
    for verb in ("runs", "evaluate"):
        old.rename(files.replaced_folder(old))
        assert "x" in succeed(*(("runs",) if verb == "runs" else ("evaluate", old)))
        assert (old / "old.txt").exists() and os.listdir(old.parent) == ["x"]


def test_what_is_missing_after_the_model_is_done_once(fault, succeed, old, monkeypatch):
    """Killed between model.keras and the report."""
    (old / "checkpoint").mkdir(exist_ok=True)  # killed before the checkpoints were deleted
    evaluated = []
    evaluate_split = train_verb.evaluate_split
    monkeypatch.setattr(
        train_verb, "evaluate_split", lambda *a, **o: (evaluated.append(a[2]), evaluate_split(*a, **o))[1]
    )
    with monkeypatch.context() as patch:
        patch.setattr(report, "write", raises(UserError("killed")))
        fault("train", "--resume", "--name", "x")
    assert evaluated == ["dev", "test"] and not (old / "checkpoint").exists()
    printed = succeed("train", "--resume")  # the newest that is not complete
    assert evaluated == ["dev", "test", "test"] and f"Report: {old / 'report.html'}" in printed
    assert (old / "report.html").exists() and (old / "MODEL_CARD.md").exists()
    assert f"{old} is finished: nothing to resume" in fault("train", "--resume", "--name", "x")
    assert "Nothing to resume" in fault("train", "--resume")
    (old / "metrics.json").write_text(json.dumps({"test": {}}))
    succeed("train", "--resume", "--name", "x")
    assert evaluated[3:] == ["dev"]


def test_a_finished_run_is_not_evaluated_on_other_data(fault, old):
    about = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps({**about, "data_sha256": "0" * 64}))
    assert "was trained on other data" in fault("train", "--resume", "--name", "x")


def test_two_commands_do_not_write_one_run(words, fault, old):
    with kills.lock_of_another_process(old) as process:
        for command in ((*words, "--overwrite"), ("train", "--resume", "--name", "x"), ("evaluate", old)):
            assert f"{old} is being written by process {process.pid} on " in fault(*command)
    assert (old / "old.txt").exists()


def test_a_cross_validation_goes_on_after_a_model_without_predictions(
    dataset, untrained_words, runs, command, succeed, monkeypatch
):
    """Killed between model.keras and held_out.csv, and while its predictions are written."""
    words = ("crossval", "--data", dataset, *OPTIONS, "--folds", 2, "--name", "cv")
    with monkeypatch.context() as patch:
        patch.setattr(cross_validate, "train", raises(KeyboardInterrupt()))
        code, output = command(*words)
    message = f"Stopped in fold 1 of 2. {runs / 'cv'} is kept. Continue with: python main.py crossval "
    assert code == 130 and message in output.err
    for fold in range(2):
        shutil.copytree(untrained_words, runs / "cv" / f"repeat0-fold{fold}")
    with monkeypatch.context() as patch:
        patch.setattr(cross_validate, "write_predictions", raises(KeyboardInterrupt()))
        assert command(*words)[0] == 130
    assert "Out-of-fold predictions" in succeed(*words)
    metrics = json.loads((runs / "cv" / "metrics.json").read_text())
    assert [fold["fold"] for fold in metrics["folds"]] == [0, 1] and os.listdir(runs) == ["cv"]
    assert not [path for path in (runs / "cv").rglob(".*")]


def test_an_evaluation_after_a_kill_leaves_nothing_behind(succeed, old, tmp_path):
    with kills.Snapshots(old.parent, tmp_path / "kills") as snapshots:
        succeed("evaluate", old)
    names = sorted(os.listdir(old))
    hidden = [runs for runs in snapshots.copies.iterdir() if any((runs / "x").glob(".*"))]
    assert len(hidden) >= 3 and all((runs / ".x.lock").exists() for runs in hidden)
    run = max(hidden, key=lambda runs: int(runs.name)) / "x"
    assert "metrics.json" not in os.listdir(run)  # written last
    succeed("evaluate", run)
    assert sorted(os.listdir(run)) == names and os.listdir(run.parent) == ["x"]
    results = [json.loads((path / "metrics.json").read_text())["test"] for path in (old, run)]
    assert results[0]["per_class"] == results[1]["per_class"]


@pytest.fixture
def undisturbed(words, succeed):
    """The results of a run that nothing interrupts, in a folder of its own."""
    succeed(*words[:-1], "undisturbed")
    results = content(folders.RUNS / "undisturbed")
    shutil.rmtree(folders.RUNS / "undisturbed")
    return results


@pytest.mark.parametrize("completed", [(0, 4, 8), pytest.param((1, 2, 3, 5, 6, 7, 9, 10), marks=pytest.mark.slow)])
def test_a_kill_before_any_change_of_a_file_loses_nothing(
    completed, words, succeed, command, tmp_path, old, undisturbed, monkeypatch
):
    """What it would leave has the old run or the new one whole; the command completes it, to the same bits.

    It completes some of eleven at equal distances, of which each takes seconds.
    """
    with kills.Snapshots(old.parent, tmp_path / "kills") as snapshots:
        succeed(*words, "--overwrite")
    assert content(old) == undisturbed and os.listdir(old.parent) == ["x"]
    assert snapshots.count > 40
    stride = -(-snapshots.count // 11)
    for number in range(snapshots.count):
        runs = tmp_path / "kills" / str(number)
        places = [path for path in (runs / "x", runs / ".x.replaced") if RUN.is_finished(path)]
        assert places, number
        if number not in [stride * place for place in completed]:
            continue
        monkeypatch.setattr(folders, "RUNS", runs)
        files.restore_missing(runs / "x", RUN)
        is_old = (runs / "x" / "old.txt").exists()
        code, output = command(*((*words, "--overwrite") if is_old else ("train", "--resume", "--name", "x")))
        assert code == 0 or "nothing to resume" in output.err, (number, output.err)
        assert content(runs / "x") == undisturbed, number
        assert [path.name for path in runs.rglob("*") if path.name[0] == "."] + os.listdir(runs) == ["x"], number


@pytest.mark.slow
def test_sigkills_at_random_moments(words, runs, forks):
    """Real processes, at any moment: the same bits as those of a process that nothing interrupts."""
    process, began = forks.start(runs.parent, *words[:-1], "undisturbed"), time.monotonic()
    assert process.wait() == 0, process.log.read_text()
    duration, rng, deaths = time.monotonic() - began, np.random.default_rng(0), 0
    undisturbed = content(runs / "undisturbed")
    shutil.rmtree(runs / "undisturbed")
    while True:
        command = ("train", "--resume", "--name", "x") if RUN.matches(runs / "x") else words
        process = forks.start(runs.parent, *command)
        try:
            code = process.wait(rng.uniform(0.1, 1) * duration if deaths < 6 else None)
            if deaths > 2:
                break
            shutil.rmtree(runs / "x")  # it was faster than the first one
        except subprocess.TimeoutExpired:
            process.kill()
            assert process.wait() == -signal.SIGKILL
            deaths += 1
    output = process.log.read_text()
    assert code == 0 or "nothing to resume" in output, output
    assert content(runs / "x") == undisturbed and os.listdir(runs) == ["x"]
    assert not list((runs / "x").rglob(".*"))
