"""`evaluate --report` and `predict --abstain-below`, as a user types them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from small_records import with_dev_as_test

from emotion_tf.evaluation import calibration, slices
from emotion_tf.evaluation.before_use import markdown
from emotion_tf.folders import other_results

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def run(untrained_words, tmp_path):
    """A run of its own, of before there were temperatures."""
    return shutil.copytree(untrained_words, tmp_path / "run")


@pytest.fixture
def run_of_two(small_config, initialised):
    """An untrained run of two towers."""
    text = dataclasses.replace(small_config.text, branches=("cnn",), word_dim=4, cnn_filters=3)
    face = dataclasses.replace(small_config.face, cnn_filters=(4,))
    return initialised(dataclasses.replace(small_config, text=text, face=face)).path


def test_a_report_whose_calibration_is_fitted_before_test_is_read(run_of_two, dataset, succeed, monkeypatch):
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.training import ablation, evaluate

    run = run_of_two
    happened, real_rows, real_fit = [], Dataset.rows, evaluate.fit_calibration
    monkeypatch.setattr(ablation, "EXCHANGES", 2)
    monkeypatch.setattr(slices, "MIN_DIALOGUES", 3)  # of which the tiny data set has few
    monkeypatch.setattr(Dataset, "rows", lambda self, split: happened.append(split) or real_rows(self, split))
    monkeypatch.setattr(evaluate, "fit_calibration", lambda *dev: happened.append("calibration") or real_fit(*dev))
    printed = succeed("evaluate", run, "--report")
    assert happened[:2] == ["dev", "calibration"] and set(happened[2:]) == {"test"}
    assert printed.splitlines()[-1] == f"Report: {run / 'report.html'}"
    assert f"Calibrated on dev: {run / 'calibration.json'}" in printed
    assert "cannot be promised with" in printed
    page = (run / "report.html").read_text(encoding="utf-8")
    about = json.loads((run / "run.json").read_text())
    for part in (
        about["data_sha256"],
        "main.py evaluate",
        "Faces ",
        "Text ",
        "position in the dialogue",
        "sharpness of the face",
    ):
        assert part in page
    assert markdown("") in (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    numbers = json.loads((run / "metrics.json").read_text())["test"]
    assert set(numbers["intervals"]) == {"weighted_f1", "accuracy", "macro_f1"}
    assert numbers["calibration"]["temperatures"].keys() == {"nothing", "text only", "face only", "text and face"}
    kept = (run / "calibration.json").read_bytes()
    happened.clear()
    succeed("evaluate", run)
    assert happened == ["test"] and (run / "calibration.json").read_bytes() == kept
    assert not [name for name in os.listdir(run) if name.startswith(".")]


def test_another_data_set_leaves_the_results_on_its_own(run, dataset, tmp_path, succeed, fault):
    succeed("evaluate", run)
    other, second = tmp_path / "other", tmp_path / "second"
    copied = with_dev_as_test(dataset, other)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    folder = other_results(run, other)
    assert folder.parent == run / "elsewhere" and folder != other_results(run, tmp_path / "x" / "other")
    for path in (run, second):
        if path is second:
            shutil.copytree(run, second, ignore=shutil.ignore_patterns("elsewhere"))
        said = succeed("evaluate", path, "--data", other)
        assert f"Results on another data set than that of the run: {other_results(path, other)}" in said
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    numbers = json.loads((folder / "metrics.json").read_text())["test"]
    assert numbers["data"] == str(other) and numbers["utterances"] == copied.splits["dev"].records
    succeed("evaluate", run, "--data", shutil.copytree(dataset, tmp_path / "copy"))  # the run's own, elsewhere
    assert os.listdir(run / "elsewhere") == [folder.name]
    assert f"{numbers['utterances']} utterances" in succeed("compare", run, second, "--data", other)
    assert f"evaluate {run} --split dev --data {other}" in fault(
        "compare", run, second, "--split", "dev", "--data", other
    )


def test_a_damaged_history_is_an_error_before_anything_is_written(run, fault):
    """After the evaluation it would have replaced the metrics and the predictions."""
    calibration.write_calibration(run, calibration.Calibration())
    (run / "history.csv").write_bytes(b"\xff\xfe\0\x01")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert "history.csv: line 1: Expected UTF-8" in fault("evaluate", run, "--report")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_damaged_calibration_is_one_line(run, fault):
    (run / "calibration.json").write_text("{")
    message = fault("predict", run, "--text", "Hi")
    assert str(run / "calibration.json") in message and "Remove the file" in message


@pytest.mark.usefixtures("opened_once")
def test_abstaining(run, tmp_path, succeed, fault):
    printed = succeed("predict", run, "--text", "yes", "--abstain-below", "0.999")
    assert printed.startswith("abstained: the prediction has a probability below 0.999\n") and "neutral" in printed
    assert "abstained" not in succeed("predict", run, "--text", "yes", "--abstain-below", "0.01")
    pd.DataFrame({"utterance": ["yes", "no", "I see", ""]}).to_csv(tmp_path / "t.csv", index=False)
    words = ("predict-table", run, tmp_path / "t.csv", "--out", tmp_path / "p.csv")
    succeed(*words)
    before = pd.read_csv(tmp_path / "p.csv")
    probabilities = before.filter(like="p_").to_numpy()
    middle = float(np.sort(probabilities.max(axis=1))[1:3].mean())
    succeed(*words, "--abstain-below", middle)
    after = pd.read_csv(tmp_path / "p.csv")
    sure = probabilities.max(axis=1) >= middle
    assert 0 < sure.sum() < 4
    assert after["predicted"].tolist() == np.where(sure, before["predicted"], "abstained").tolist()
    np.testing.assert_array_equal(after.filter(like="p_").to_numpy(), probabilities)
    for value in ("1.5", "-0.1", "nan"):
        assert "Invalid `--abstain-below`. Expected a number from 0 to 1" in fault(*words, "--abstain-below", value)


def test_a_run_reads_its_temperatures(run):
    from emotion_tf.evaluation.calibration import Temperatures
    from emotion_tf.runs.run import Run

    assert Run(run).calibration == calibration.Calibration()
    made = calibration.Calibration(Temperatures(2.0, {}, {"all": (150, 30)}), (), 150)
    calibration.write_calibration(run, made)
    assert Run(run).calibration == made
