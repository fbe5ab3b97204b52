"""What `--smoke` leaves out, and that its numbers are not taken for results."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil

import pytest

from emotion_tf import config as configuration
from emotion_tf import folders
from emotion_tf.cli import report
from emotion_tf.data.dataset import Dataset
from emotion_tf.training import evaluate, history


@pytest.fixture
def run(untrained_words, monkeypatch, command):
    """A smoke run whose training has ended, and which evaluates three rows."""
    monkeypatch.setattr(evaluate, "SMOKE_ROWS", 3)
    run = shutil.copytree(untrained_words, folders.RUNS / "x")
    config = configuration.smoke(configuration.read_config(run / "config.json"))
    (run / "config.json").write_text(configuration.to_json(config))
    (run / "metrics.json").unlink(missing_ok=True)
    return run


@pytest.mark.usefixtures("eager")
def test_a_smoke_run_says_everywhere_that_it_is_one(run, dataset, succeed, fault, monkeypatch):
    monkeypatch.setattr("emotion_tf.interpret.explain.explain", lambda *_, **__: pytest.fail("explained"))
    printed = succeed("train", "--resume", "--name", "x")
    metrics = json.loads((run / "metrics.json").read_text())
    for split, numbers in metrics.items():
        part = f"3 of {Dataset.open(dataset).splits[split].records} utterances"
        assert numbers["utterances"] == 3 and numbers["smoke"] == part
        assert f"smoke run: {part}" in " ".join(printed.split())
    assert set(metrics) == {"dev", "test"}
    for name in ("report.html", "MODEL_CARD.md"):
        assert f"evaluated on {part}: the numbers say nothing about the model" in (run / name).read_text()
    listed = " ".join(succeed("runs").split())
    assert "finished (smoke)" in listed and f"{metrics['test']['weighted_f1']:.4f} (3 rows)" in listed
    assert f"x is a smoke run, evaluated on {part}. Expected results on all of test" in fault("compare", "x", "x")
    succeed("evaluate", "x")  # on all rows
    assert "smoke" not in json.loads((run / "metrics.json").read_text())["test"]


def test_a_smoke_configuration_is_known_by_its_training():
    config = configuration.preset("demo")
    assert configuration.is_smoke(configuration.smoke(config)) and not configuration.is_smoke(config)
    longer = dataclasses.replace(configuration.smoke(config).train, epochs=2)
    assert not configuration.is_smoke(dataclasses.replace(config, train=longer))


def test_a_sample_of_a_split_is_spread_over_it(dataset):
    opened = Dataset.open(dataset)
    records = opened.splits["dev"].records
    assert list(opened.sample("dev", 2).positions) == [0, records - 1]
    assert opened.sample("dev", records).positions is None


def test_the_time_left_counts_the_stages_after_the_epochs(dataset, monkeypatch):
    opened = Dataset.open(dataset)
    dev, test = (opened.splits[split].records for split in ("dev", "test"))
    later = functools.partial(report.later_stages, opened, ["dev", "test"])
    assert dev < history.LEAST_DEV and later(2, smoke=False) < 20  # else a row of dev stands for hours
    monkeypatch.setattr(history, "LEAST_DEV", 1)
    assert later(2, smoke=False) == pytest.approx(2 + (2 * test + report.EXPLAINED_AS) / dev)
    assert later(1, smoke=False) == pytest.approx(2 + (test + report.EXPLAINED_AS) / dev)
    assert later(2, smoke=True) == pytest.approx(2 + min(test, 64) / min(dev, 64))
