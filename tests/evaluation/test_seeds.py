"""Configurations over several seeds: `compare --with`, the means of `train --seeds`, cross-validations."""

from __future__ import annotations

import json
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest

from emotion_tf.config import Config, TrainConfig, to_json
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.seeds import (
    compare_configurations,
    print_seeds,
    read_configuration,
    tables,
    unused_seeds,
)
from emotion_tf.evaluation.significance import crossed_difference, intervals

LABELS = ("joy", "fear")
LABEL = np.random.default_rng(0).integers(0, 2, 200)
GROUP = np.arange(200) // 5


def predictions(seed, accuracy):
    right = np.random.default_rng(seed).random(200) < accuracy
    return np.where(right, LABEL, 1 - LABEL)


def table(predicted):
    ids = {"dialogue_id": GROUP.astype(str), "utterance_id": (np.arange(200) % 5).astype(str)}
    names = np.array(LABELS)
    return pd.DataFrame({**ids, "emotion": names[LABEL], "predicted": names[predicted]})


def write_run(path, seed, predicted, **train):
    path.mkdir(parents=True)
    (path / "config.json").write_text(to_json(Config(train=TrainConfig(seed=seed, **train))))
    numbers = metrics(LABEL, predicted, np.eye(2)[predicted] * 0.6 + 0.2, LABELS, 0)
    (path / "metrics.json").write_text(json.dumps({split: numbers for split in ("dev", "test")}))
    for split in ("dev", "test"):
        table(predicted).to_csv(path / f"predictions_{split}.csv", index=False)
    return path


def write_crossval(path, accuracy, repeats=5, folds=2, **train):
    path.mkdir()
    (path / "config.json").write_text(to_json(Config(train=TrainConfig(seed=3, **train))))
    (path / "crossval.json").write_text("{}")
    repeated = [predictions(int(100 * accuracy) + repeat, accuracy) for repeat in range(repeats)]
    for repeat, predicted in enumerate(repeated):
        for fold in range(folds):
            (path / f"repeat{repeat}-fold{fold}").mkdir()
            rows = table(predicted)[GROUP % folds == fold]
            rows.to_csv(path / f"repeat{repeat}-fold{fold}" / "held_out.csv", index=False)
    table(repeated[0]).to_csv(path / "oof.csv", index=False)
    pooled = [metrics(LABEL, p, np.eye(2)[p] * 0.6 + 0.2, LABELS, 0) for p in repeated]
    (path / "metrics.json").write_text(json.dumps({"pooled": pooled, "command": "crossval", "data": "here"}))
    return repeated


@pytest.fixture
def sides(tmp_path):
    """Runs a-seed0 to a-seed4 with 80 % of the predictions right, and b-seed0 to b-seed4 with 60 %."""
    for seed in range(5):
        write_run(tmp_path / f"a-seed{seed}", seed, predictions(seed, 0.8))
        write_run(tmp_path / f"b-seed{seed}", seed, predictions(10 + seed, 0.6), epochs=3)
    return tmp_path


def test_the_difference_of_two_configurations(sides, succeed):
    first, second = (read_configuration([sides / name], "test") for name in "ab")
    difference, parts = compare_configurations(first, second)
    stacks = [
        np.stack([predictions(start + seed, right) for seed in range(5)]) for start, right in ((0, 0.8), (10, 0.6))
    ]
    expected, _ = crossed_difference(LABEL, *stacks, GROUP)
    assert astuple(difference) == pytest.approx(astuple(expected)) and difference.two_sided < 0.001
    _, options, configurations, (*_, (cells,)) = tables(first, second, difference, parts)
    assert options[2] == [["train.epochs", str(TrainConfig().epochs), "3"]]
    low, high = intervals(LABEL, stacks[0], GROUP)["weighted_f1"]
    assert configurations[2][0][2].endswith(f"[{low:.4f}, {high:.4f}]")
    assert cells[-1] == "a is better than b" and cells[3] == "< 0.001"
    listed = succeed("compare", *(sides / f"a-seed{i}" for i in range(5)), "--with", sides / "b")
    assert listed.split() == succeed("compare", sides / "a", "--with", sides / "b").split()
    assert "a is better than b" in " ".join(listed.split()) and "Left out" not in listed


def test_three_seeds_are_descriptive(sides, succeed, tmp_path):
    page = tmp_path / "page.html"
    paths = [sides / f"a-seed{i}" for i in range(3)]
    printed = " ".join(succeed("compare", *paths, "--with", sides / "b", "--out", page).split())
    text = page.read_text()
    assert "fewer than 5 seeds on a side are descriptive" in text
    assert "Student" in text and "bootstrap" not in text and "Holm" not in text
    assert "Left out, by their names other seeds: a-seed3, a-seed4" in printed
    assert unused_seeds(paths) == ["a-seed3", "a-seed4"] and unused_seeds([sides / "a"]) == []


def test_equal_configurations_do_not_differ(sides):
    first = read_configuration([sides / "a"], "test")
    for seed in range(5):
        write_run(sides / f"c-seed{seed}", seed, predictions(20 + seed, 0.8))
    second = read_configuration([sides / "c"], "test")
    assert tables(first, second, *compare_configurations(first, second))[-1][2][0][-1] == "none: not different from 0"


def test_one_dialogue_supports_no_claim(sides, succeed):
    for path in sides.glob("?-seed?/predictions_test.csv"):
        pd.read_csv(path).assign(dialogue_id="1", utterance_id=np.arange(200)).to_csv(path, index=False)
    first, second = (read_configuration([sides / name], "test") for name in "ab")
    *_, (cells,) = tables(first, second, *compare_configurations(first, second))[-1]
    assert cells[-1] == "none: too few dialogues" and "too few" in cells[2] and cells[3] == "1.0000"
    assert "better than" not in succeed("compare", sides / "a", "--with", sides / "b")


def test_cross_validations_are_taken_whole(tmp_path, succeed, fault):
    repeated = [write_crossval(tmp_path / "a", 0.8), write_crossval(tmp_path / "b", 0.6, epochs=3)]
    first, second = (read_configuration([tmp_path / name]) for name in "ab")
    assert [run.options["train.seed"] for run in first.runs] == [3, 4, 5, 6, 7]
    expected, _ = crossed_difference(LABEL, *map(np.stack, repeated), GROUP)
    assert astuple(compare_configurations(first, second)[0]) == pytest.approx(astuple(expected))
    printed = succeed("compare", tmp_path / "a", "--with", tmp_path / "b")
    assert "10 runs on train, out of fold, 200 utterances" in printed
    assert "Expected the whole of it" in fault("compare", tmp_path / "a" / "repeat0-fold0", "--with", tmp_path / "b")
    run = write_run(tmp_path / "run-seed0", 0, predictions(0, 0.8))
    write_run(tmp_path / "run-seed1", 1, predictions(1, 0.8))
    assert "Expected one cross-validation on a side" in fault("compare", tmp_path / "a", run, "--with", tmp_path / "b")
    assert "Expected two cross-validations, or runs" in fault("compare", tmp_path / "a", "--with", tmp_path / "run")
    for option, value in (("--data", tmp_path), ("--split", "dev"), ("--split", "test")):
        message = fault("compare", tmp_path / "a", "--with", tmp_path / "b", option, value)
        assert f"Received: {option} {value}. Omit it" in message
    write_crossval(tmp_path / "once", 0.7, repeats=1)
    message = fault("compare", tmp_path / "once", "--with", tmp_path / "b")
    assert "Rerun `crossval` with --repeats 5" in message and "compare RUN RUN" not in message
    (tmp_path / "a" / "repeat1-fold0" / "held_out.csv").unlink()
    assert "is no finished cross-validation" in fault("compare", tmp_path / "a", "--with", tmp_path / "b")


def test_wrong_sides_are_rejected(sides, fault):
    a, b = sides / "a", sides / "b"
    assert "Received on both: a-seed0" in fault("compare", a, "--with", a)
    assert "Expected a second configuration: --with RUN" in fault("compare", a, b)
    assert "Expected runs on both sides of --with" in fault("compare", "--with", b)
    assert "Expected two or more seeds on each side" in fault("compare", a, "--with", sides / "b-seed0")
    assert "after --with. Received none." in fault("compare", a, sides / "b-seed0", "--with")
    message = fault("compare", sides / "a-seed0", sides / "b-seed1", "--with", b)
    assert "Expected runs of one configuration" in message and "train.epochs" in message
    again = write_run(sides / "again", 0, predictions(0, 0.8))
    assert "Expected different seeds" in fault("compare", sides / "a-seed0", again, "--with", b)
    assert "No run at" in fault("compare", a, "--with", sides / "none")
    rows = table(predictions(10, 0.6)).assign(utterance_id="7")
    rows.to_csv(sides / "b-seed0" / "predictions_test.csv", index=False)
    assert "b-seed0 and a-seed0 predict other utterances" in fault("compare", a, "--with", b)


@pytest.mark.parametrize("write", [write_crossval, None], ids=["cross-validations", "runs"])
def test_sides_of_the_same_names_in_other_folders(tmp_path, succeed, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    for folder, accuracy in (("x", 0.8), ("y", 0.6)):
        (tmp_path / folder).mkdir()
        if write:
            write(tmp_path / folder / "a", accuracy)
        for seed in range(0 if write else 5):
            write_run(tmp_path / folder / f"a-seed{seed}", seed, predictions(int(100 * accuracy) + seed, accuracy))
    printed = succeed("compare", "x/a", "--with", tmp_path / "y" / "a")
    assert "x/a is better than y/a" in " ".join(printed.split())
    assert all(f"{folder}/a{': repeat ' if write else '-seed'}{i}" in printed for folder in "xy" for i in range(5))


def test_runs_of_the_same_name_on_one_side_are_both_checked(sides, fault):
    other = write_run(sides / "other" / "a-seed0", 7, predictions(7, 0.8))
    rows = table(predictions(7, 0.8)).assign(utterance_id="7")
    rows.to_csv(other / "predictions_test.csv", index=False)
    message = fault("compare", sides / "a-seed0", other, sides / "a-seed1", "--with", sides / "b")
    assert "other/a-seed0 and" in message and "predict other utterances" in message


def test_towers_of_the_same_seed_are_one_configuration(tmp_path):
    for seed in range(2):
        path = write_run(tmp_path / f"a-seed{seed}", seed, predictions(seed, 0.8))
        config = json.loads((path / "config.json").read_text())
        config["face"]["init"] = f"saved_models/face-seed{seed}"
        (path / "config.json").write_text(json.dumps(config))
    assert len(read_configuration([tmp_path / "a"], "test").runs) == 2


def test_the_summary_of_seeds(sides, capsys):
    print_seeds([sides / f"a-seed{seed}" for seed in range(5)])
    printed = " ".join(capsys.readouterr().out.split())
    each = [predictions(s, 0.8) for s in range(5)]
    f1 = [metrics(LABEL, p, np.eye(2)[p], LABELS, 0)["weighted_f1"] for p in each]
    assert f"{np.mean(f1):.4f} ± {np.std(f1, ddof=1):.4f}" in printed and "descriptive" not in printed
    print_seeds([sides / f"a-seed{seed}" for seed in range(3)])
    assert "test, 3 seeds; descriptive: a claim needs 5" in capsys.readouterr().out
