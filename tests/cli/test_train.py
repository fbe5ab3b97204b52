"""`train --seeds`: several runs and their mean."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from emotion_tf.training import loop


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_two_seeds_are_two_runs_and_the_same_command_goes_on(
    command, succeed, fault, dataset, tmp_path, eager, monkeypatch
):
    (tmp_path / "glove.txt").write_text("the 1.5 2.5 0.5\nyou -1 0.125 2\n")
    words = ("train", "--data", dataset, "--towers", "text", "--text.branches", "cnn", "--name", "x")
    words += ("--train.epochs", 1, "--train.steps-per-epoch", 4, "--train.batch-size", 8, "--train.freeze-epochs", 1)
    words += ("--text.embeddings", tmp_path / "glove.txt")  # of another width than the command's configuration
    printed = succeed(*words, "--seeds", "2", "--train.seed", "3")
    runs = [tmp_path / "saved_models" / f"x-seed{seed}" for seed in (3, 4)]
    scores = [json.loads((run / "metrics.json").read_text())["test"]["weighted_f1"] for run in runs]
    histories = [pd.read_csv(run / "history.csv")["loss"][0] for run in runs]
    assert histories[0] != histories[1]
    assert f"{np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}" in printed and "always neutral" in printed
    kept = (runs[0] / "model.keras").stat().st_mtime_ns
    again = succeed(*words, "--seeds", "2", "--train.seed", "3")
    assert "epoch" not in again and (runs[0] / "model.keras").stat().st_mtime_ns == kept
    assert again[again.index("dev, 2 seeds") :] == printed[printed.index("dev, 2 seeds") :]
    # interrupted while it was evaluated, and after an epoch
    (runs[0] / "report.html").unlink()
    (runs[0] / "metrics.json").write_text(
        json.dumps({"dev": json.loads((runs[0] / "metrics.json").read_text())["dev"]})
    )
    shutil.rmtree(runs[1])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save_best", interrupt)
        assert command(*words, "--seeds", "2", "--train.seed", "3")[0] == 130
    assert (runs[0] / "report.html").exists() and (runs[0] / "model.keras").stat().st_mtime_ns == kept
    again = succeed(*words, "--seeds", "2", "--train.seed", "3")
    assert "Resumed after epoch" in again
    assert again[again.index("dev, 2 seeds") :] == printed[printed.index("dev, 2 seeds") :]
    assert "has other options" in fault(*words, "--seeds", "2", "--train.seed", "3", "--train.clip-norm", "2")
    assert "`--seeds`. Expected a number from 1 to" in fault(*words, "--seeds", "0")


def test_a_data_service_that_is_not_there(dataset, fault):
    words = ("train", "--data", dataset, "--name", "x", "--data.service")
    assert "No tf.data service at grpc://127.0.0.1:1" in fault(*words, "grpc://127.0.0.1:1")
    assert "Invalid `--data.service`" in fault(*words, "127.0.0.1:1")
    assert "--data.service feeds one host" in fault(*words, "grpc://127.0.0.1:1", "--local-workers", "2")
    assert "--data.service feeds one host" in fault(*words, "grpc://127.0.0.1:1", "--strategy", "multiworker")
