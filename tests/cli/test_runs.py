"""`runs` lists runs, ensembles and cross-validations; `run.json` says when, where and with what a run was made."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from helpers import run_info

from emotion_tf import provenance
from emotion_tf.config import Config, smoke, to_json

LABELS = ("joy", "fear")


@pytest.fixture
def saved(tmp_path):
    """saved_models/ with a finished run, a smoke run and a cross-validation of two folds."""
    saved = tmp_path / "saved_models"
    folders = {"a": {"seconds": 90.0, "date": "2026-11-30 08:24"}, "b": {}}
    for name, values in {
        **folders,
        "cv/repeat0-fold0": {"seconds": 60.0},
        "cv/repeat0-fold1": {"seconds": 6.0},
    }.items():
        (saved / name).mkdir(parents=True)
        (saved / name / "run.json").write_text(run_info(LABELS, **values))
        (saved / name / "config.json").write_text(to_json(Config()))
    (saved / "b" / "config.json").write_text(to_json(smoke(Config())))
    (saved / "a" / "model.keras").touch()
    (saved / "cv" / "config.json").write_text(to_json(Config(towers=("text",))))
    (saved / "cv" / "crossval.json").write_text("{}")
    return saved


def test_runs_have_date_duration_fusion_and_smoke(saved, succeed):
    floor = {"label": "joy", "accuracy": 0.5, "weighted_f1": 0.25}
    scores = {"utterances": 4, "accuracy": 0.5, "weighted_f1": 0.5, "macro_f1": 0.5, "majority_floor": floor}
    results = {"pooled": [{**scores, "per_class": {}}, {**scores, "weighted_f1": 0.75, "per_class": {}}]}
    for metrics in ("", json.dumps(results | {"command": "crossval", "data": "d"})):
        if metrics:
            (saved / "cv" / "metrics.json").write_text(metrics)
        rows = [
            [cell.strip() for cell in line.split("│")[1:-1]] for line in succeed("runs").splitlines() if "│" in line
        ]
        finished, short, crossval = rows
        assert finished[:4] == ["a", "finished", "2026-11-30 08:24", "1.5"] and finished[6:8] == ["gru + cnn", "concat"]
        assert short[:4] == ["b", "unfinished (smoke)", "", ""]
        assert crossval[0] == "cv" and crossval[3] == "1.1" and crossval[5:8] == ["text", "gru", ""]
        assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", crossval[2])
        state, score = ("finished", "0.6250 (out-of-fold)") if metrics else ("unfinished", "")
        assert (crossval[1], crossval[9]) == (f"{state} cross-validation", score)
    (saved / "cv" / "config.json").write_text(to_json(smoke(Config())))
    listed = succeed("runs")
    assert "finished cross-validation (smoke)" in listed and "0.6250 (out-of-fold, 4 rows)" in listed


def test_a_run_keeps_date_machine_versions_and_commit(untrained):
    info = json.loads((untrained / "run.json").read_text())
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", info["date"]) and info["seconds"] is None
    assert {"emotion_tf", "python", "tensorflow", "keras"} <= set(info["versions"])
    assert set(info["machine"]) == {"processor", "processors", "system", "gpus"} and info["machine"]["gpus"] == "0"


def test_the_commit_is_that_of_a_clone_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PROJECT", tmp_path / "clone")
    (tmp_path / "clone").mkdir()

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    git("init", "-q")  # the package lies in the folder of another project
    git("commit", "-q", "--allow-empty", "-m", "x")
    assert provenance.commit() == ""
    (tmp_path / ".git").rename(tmp_path / "clone" / ".git")
    commit = provenance.commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "clone" / "a").touch()
    subprocess.run(["git", "-C", tmp_path / "clone", "add", "a"], check=True)
    assert provenance.commit() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == ""
