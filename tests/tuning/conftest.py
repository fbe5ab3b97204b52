"""The command `tune` with trials that are a formula."""

import pytest
from fake_trials import Fake

from tuning import plan, search, verb, workers

POOL = workers.worker_pool  # the tests put another in its place


@pytest.fixture
def tune(monkeypatch, succeed, dataset, tmp_path):
    """`main.py tune` with fake trials in this process; its last argument is the fake."""
    monkeypatch.setattr(plan, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(search, "TICK", 0.01)

    def run(*words, job=Fake(), through=succeed, plots=False, name="x"):
        if not plots:  # they take longer than all else
            monkeypatch.setattr("tuning.plots.plot_all", lambda *_: [])
        monkeypatch.setattr(verb, "_job", lambda plan, strategy: job)
        pool = POOL if job.dies else lambda job, count, log: _inline(job)
        monkeypatch.setattr("tuning.workers.worker_pool", pool)
        return through(
            "tune", "--data", dataset, "--towers", "text", "face", *(("--name", name) if name else ()), *words
        )

    return run


class _inline:
    def __init__(self, job):
        self.job = job

    def __enter__(self):
        return self.job.submit

    def __exit__(self, *_):
        pass


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "x"
