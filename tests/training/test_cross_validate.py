"""Cross-validation from the command line: complete, without a leak, the same after an interruption."""

import json

import pandas as pd
import pytest

from emotion_tf import cli
from emotion_tf.data import pipeline, records, splits
from emotion_tf.training import cross_validate
from emotion_tf.training.train import Trainer

OPTIONS = ("--towers", "text", "--text.branches", "cnn", "--text.word-dim", 4, "--text.cnn-filters", 3, "--folds", 2)
ONE_EPOCH = ("--train.epochs", 1, "--train.batch-size", 64)


@pytest.fixture
def words(dataset):
    return ("crossval", "--data", dataset, *OPTIONS, *ONE_EPOCH)


@pytest.mark.slow
def test_every_utterance_is_predicted_by_a_model_that_did_not_see_its_dialogue(words, succeed, dataset, eager):
    said = succeed(*words, "--name", "cv", "--repeats", 2)
    path = cli.RUNS / "cv"
    table = pd.read_csv(path / "oof.csv", dtype=str)
    info = records.read_info(dataset)
    rows = list(pipeline.read_rows(pipeline.split_rows(dataset, info, "train")))
    assert [(r["dialogue_id"], r["utterance_id"]) for r in rows] == list(
        zip(table["dialogue_id"], table["utterance_id"], strict=True)
    )
    for repeat in range(2):
        held = [pd.read_csv(path / f"repeat{repeat}-fold{n}" / "held_out.csv", dtype=str) for n in range(2)]
        assert not set(held[0]["dialogue_id"]) & set(held[1]["dialogue_id"])
        assert len(held[0]) + len(held[1]) == len(rows)
    numbers = json.loads((path / "metrics.json").read_text())
    assert [(f["repeat"], f["fold"]) for f in numbers["folds"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert numbers["pooled"][0]["utterances"] == len(rows) and len(numbers["pooled"]) == 2
    assert numbers["deviation"]["weighted_f1"] >= 0 and "always neutral" in said


@pytest.mark.slow
def test_interrupted_it_goes_on_at_its_fold_to_the_identical_file(words, succeed, command, monkeypatch, eager):
    succeed(*words, "--name", "whole")
    real = Trainer._record
    calls = []

    def interrupted(self, *numbers):
        calls.append(self.run.path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *numbers)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_record", interrupted)
        code, said = command(*words, "--name", "cut")
    assert code == 130 and "`crossval`" in said.err
    first = cli.RUNS / "cut" / "repeat0-fold0" / "held_out.csv"
    before = first.stat().st_mtime_ns
    succeed(*words, "--name", "cut")
    assert calls == ["repeat0-fold0", "repeat0-fold1"] and first.stat().st_mtime_ns == before
    assert (cli.RUNS / "cut" / "oof.csv").read_bytes() == (cli.RUNS / "whole" / "oof.csv").read_bytes()


def test_a_planted_leak_ends_it(dataset, monkeypatch):
    monkeypatch.setattr(splits, "groups", lambda dialogue, pictures: list(range(len(dialogue))))  # single utterances
    info = records.read_info(dataset)
    with pytest.raises(cross_validate.UserError, match="is on both sides"):
        cross_validate.plan(dataset, info, 2, 1, 0)


def test_a_tower_that_has_seen_the_folds_is_refused(words, fault, untrained):
    said = fault(*words, "--name", "cv", "--text.init", untrained)
    assert "Invalid `text.init`" in said and "has seen what a fold holds out" in said
    assert not (cli.RUNS / "cv").exists()


def test_another_folder_or_number_of_folds_is_refused(words, fault, succeed, tmp_path):
    (cli.RUNS / "cv").mkdir(parents=True)
    assert "is of another cross-validation" in fault(*words, "--name", "cv")
    assert "Invalid `--folds`. Expected 2 to" in fault(*words, "--name", "x", "--folds", 1)
    assert "Invalid `--repeats`" in fault(*words, "--name", "x", "--repeats", 0)
    assert not (cli.RUNS / "x").exists()
