"""Runs are found by their paths and by their names in saved_models/."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion_tf import folders
from emotion_tf.cli.arguments import train_arguments
from emotion_tf.cli.compare import compare
from emotion_tf.cli.demo import demo
from emotion_tf.cli.evaluate import evaluate
from emotion_tf.cli.predict import predict
from emotion_tf.command_line import parse
from emotion_tf.errors import UserError
from emotion_tf.program import program


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The working folder, with the folder `here` and saved_models/ with runs, an ensemble and an export."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "mine2", "here", "other-seed0", "other-seed1"):
        folder = tmp_path / "saved_models" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    (tmp_path / "saved_models/mine2/run.json").rename(tmp_path / "saved_models/mine2/ensemble.json")
    (tmp_path / "saved_models/mine/serving/1").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    return tmp_path


def test_a_run_is_found_by_its_name(saved):
    for name in ("mine", "mine2", "mine/serving/1"):
        assert folders.find_run(Path(name)) == folders.RUNS / name
    for path in (folders.RUNS / "mine", Path("here"), saved / "saved_models/mine"):  # a path that exists goes before
        assert folders.find_run(path) == path
    assert folders.find_run(Path("other")) == folders.RUNS / "other"  # the stem of its seeds


def test_a_run_whose_replacement_was_killed_is_found_by_its_name(saved):
    run = saved / "saved_models/mine"
    (run / "config.json").write_text("{}")
    run.rename(run.with_name(".mine.replaced"))
    assert folders.find_run(Path("mine")) == folders.RUNS / "mine"
    assert run.is_dir()


@pytest.mark.parametrize("path", ["mien", "saved_models/mien"])
def test_the_error_for_a_missing_run_names_similar_ones(saved, path):
    with pytest.raises(UserError) as caught:
        folders.find_run(Path(path))
    assert str(caught.value).replace(program(), "main.py") == (
        f"No run at {path}: run.json does not exist. Expected a folder that `train` made, or its name in "
        "saved_models/. Did you mean 'mine' or 'mine2'? main.py runs lists them."
    )


def test_verbs_take_names(saved):
    def arguments(verb, *words):
        return parse(verb, words, "main.py").keywords

    mine = folders.RUNS / "mine"
    assert arguments(evaluate, "mine")["run"] == arguments(predict, "mine", "--text", "x")["run"] == mine
    assert arguments(demo)["run"] is None and arguments(demo, "mine")["run"] == mine
    compared = arguments(compare, "mine", "here", "--with", "mine2")
    assert compared["runs"] == (mine, Path("here")) and compared["other"] == (folders.RUNS / "mine2",)
    with pytest.raises(UserError, match="No run at mien"):
        parse(compare, ["mine", "mien"], "main.py")


def test_a_tower_starts_from_a_run_of_that_name(saved):
    config = train_arguments(["--text.init", "mine", "--face.init", "here"]).config
    assert (config.text.init, config.face.init) == ("saved_models/mine", "here")
