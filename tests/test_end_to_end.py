"""The whole way by the command line, as a user goes it, with a kill -9 on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

pytestmark = pytest.mark.slow
SMALL = ("--text.branches", "cnn", "--face.cnn-filters", "8", "8")  # towers that are traced in seconds


def main(folder, *args):
    done = subprocess.run([sys.executable, str(ROOT / "main.py"), *args], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo_from_nothing_with_a_kill_in_epoch_two(tmp_path):
    main(tmp_path, "prepare", "demo", "--utterances", "240")
    command = [sys.executable, str(ROOT / "main.py"), "train", "--train.epochs", "4", "--name", "killed", *SMALL]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while "epoch 1/4" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run = tmp_path / "saved_models" / "killed"
    assert not (run / "model.keras").exists()
    said = main(tmp_path, "train", "--resume")
    assert "Resumed after epoch" in said
    assert "epoch 1/4" not in said
    assert "epoch 4/4" in said
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"dev", "test"}
    assert {"command", "data", "seed", "majority_floor", "weighted_f1"} <= set(metrics["test"])
    assert not (run / "checkpoint").exists()
    assert "surprise" in main(tmp_path, "predict", str(run), "--text", "I did not expect that.")
    assert "serving/1" in main(tmp_path, "export", str(run))
    assert "killed" in main(tmp_path, "runs")
