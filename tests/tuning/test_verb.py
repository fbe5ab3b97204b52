"""`tune` as a user runs it, with real trainings: minutes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT
from network import Host, free_ports, hosts

pytestmark = pytest.mark.slow
SEARCH = ("--search", "learning_rate", "optimizer=adamw,adam", "fusion.kind=concat,gated", "fusion.dropout")
# towers that are traced in a second or two, which is what a trial takes
SMALL = ("--train.steps-per-epoch", "4", "--text.branches", "cnn", "--text.word-dim", "8", "--text.cnn-filters", "4")
SMALL += ("--face.cnn-filters", "4")
SHORT = ("--train.epochs", "2", *SMALL)
MINUTE = 60


class Program:
    """The command line in a process of its own."""

    def __init__(self, process, log: Path):
        self.process, self.log = process, log

    def end(self, code: int = 0, within: float = 10 * MINUTE) -> str:
        ended = self.process.wait(within)
        output = self.log.read_text()
        assert ended == code, output
        return output

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def children(self) -> list[int]:
        """Processes that it started and that run Python code of ours: multiprocessing's, without its tracker."""
        found = []
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in path.read_text().split():
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
        return found


@pytest.fixture
def run(tmp_path, dataset, forks):
    """Function that starts the command line in a folder of the test: by a fork, or `new`, as a user does.

    The hosts of a search on several hosts soon miss each other.
    """
    started = []

    def start(*words, data=True, new=False, host=None):
        words = [*map(str, words), *(("--data", str(dataset)) if data else ())]
        if new:
            log = tmp_path / f"{time.monotonic_ns()}.log"
            with open(log, "w") as output:
                command = [sys.executable, str(ROOT / "main.py"), *words]
                process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
        else:
            script = Path(__file__).with_name("impatient.py") if host else ROOT / "main.py"
            process = forks.start(tmp_path, *words, script=script, namespace=host.namespace if host else "")
            log = process.log
        started.append(Program(process, log))
        return started[-1]

    yield start
    for program in started:
        if program.process.poll() is None:
            program.process.kill()


@pytest.fixture
def results(tmp_path):
    return tmp_path / "tuning" / "results"


def trials(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / "trials.csv", dtype={"trial": str})
    except (OSError, pd.errors.EmptyDataError):
        return pd.DataFrame({"trial": []})


def wait_for(program: Program, folder: Path, count: int) -> None:
    end = time.monotonic() + 10 * MINUTE
    while len(trials(folder)) < count:
        assert time.monotonic() < end and program.process.poll() is None
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_killed_and_resumed_and_training_with_best_json_repeats_the_best_trial(run, results, tmp_path):
    first = run("tune", "--name", "x", "--trials", 6, *SEARCH, *SHORT)
    wait_for(first, results / "x", 2)
    children = first.children
    first.kill()
    before = trials(results / "x")
    end = time.monotonic() + 20
    while any(map(alive, children)):  # they must not write beside a resumed search
        assert time.monotonic() < end
        time.sleep(0.1)
    run("tune", "--resume", data=False).end()
    after = trials(results / "x")
    assert len(after) == 6 and after["trial"].is_unique and len(children) == 2
    assert set(after["worker"]) == {"worker0", "worker1"}
    pd.testing.assert_frame_equal(after[: len(before)], before)
    summary = json.loads((results / "x" / "summary.json").read_text())
    assert summary["trials"] == 6 and summary["broken"] == 0
    run("train", "--config", results / "x" / "best.json", "--name", "again", data=False).end()
    again = json.loads((tmp_path / "saved_models" / "again" / "metrics.json").read_text())
    assert again["dev"]["weighted_f1"] == summary["best"]["dev_weighted_f1"]
    assert again["dev"]["majority_floor"]["weighted_f1"] == summary["majority_floor"]["weighted_f1"]


def test_killed_workers_end_the_search(run, results):
    program = run("tune", "--name", "x", "--trials", 30, *SEARCH, *SHORT)
    then = 2
    while program.process.poll() is None:
        if len(trials(results / "x")) >= then:
            time.sleep(1)  # until each is in its next trial: one that dies between two is replaced without a word
            for pid in program.children:
                os.kill(pid, signal.SIGKILL)
            then = len(trials(results / "x")) + 2
        time.sleep(0.1)
    assert "The worker processes die" in program.end(2)
    assert len(trials(results / "x")) < 30


def test_a_chief_with_remote_workers_and_after_their_end(run, results):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    host = Host(address)
    chief = run("tune", "--name", "x", "--trials", 30, "--workers", 0, *SEARCH, *SHORT,
                "--tuner.role", "chief", "--tuner.address", address, host=host)  # fmt: skip
    worker = run("tune", "--tuner.role", "worker", "--tuner.address", address, "--workers", 1, host=host)
    wait_for(chief, results / "x", 2)
    worker.kill()
    assert "All workers are lost" in chief.end(2, within=MINUTE)
    done = len(trials(results / "x"))
    chief = run("tune", "--resume", "--trials", done + 2, "--workers", 0, data=False)
    assert "Invalid `--workers`" in chief.end(2)
    role = ("--tuner.role", "chief", "--tuner.address", address)
    chief = run("tune", "--resume", "--trials", done + 2, "--workers", 0, *role, data=False)
    worker = run("tune", "--tuner.role", "worker", "--tuner.address", address, "--workers", 1)
    assert f"{done + 2} trials" in chief.end() and "no more trials" in worker.end()
    assert trials(results / "x")["trial"].is_unique


def test_twelve_trials_on_several_hosts_one_of_which_dies(run, results):
    with hosts(3) as (chief_host, *worker_hosts):
        address = chief_host.address
        chief = run("tune", "--name", "x", "--trials", 12, "--workers", 0, *SEARCH, *SHORT,
                    "--tuner.role", "chief", "--tuner.address", address, host=chief_host)  # fmt: skip
        words = ("tune", "--tuner.role", "worker", "--tuner.address", address, "--workers", 1)
        workers = [run(*words, host=host) for host in worker_hosts]
        wait_for(chief, results / "x", 2)
        workers[0].kill()  # in a trial, which the other one runs again
        assert "12 trials, 0 broken" in chief.end()
        assert "no more trials" in workers[1].end()
        table = trials(results / "x")
        assert len(table) == 12 and table["trial"].is_unique and table["worker"].nunique() == 2
        assert sorted(table["trial"].astype(int)) == list(range(12))

        chief = run("tune", "--name", "y", "--trials", 30, "--workers", 0, *SEARCH, *SHORT,
                    "--tuner.role", "chief", "--tuner.address", address, host=chief_host)  # fmt: skip
        worker = run(*words, host=worker_hosts[0])
        wait_for(chief, results / "y", 1)
        chief.kill()
        (line,) = (line for line in worker.end(2, within=2 * MINUTE).splitlines() if line.startswith("error: "))
        assert f"The chief at {address} does not answer" in line


def test_hyperband_continues_trials_and_retrains_the_winner(run, results):
    words = ("--tuner.algorithm", "hyperband", "--tuner.epochs", 4, "--trials", 8, *SEARCH, *SMALL)
    output = run("tune", "--name", "x", *words, "--train.epochs", 4).end()
    summary, table = json.loads((results / "x" / "summary.json").read_text()), trials(results / "x")
    best = table[table["trial"] == summary["best"]["trial"]].iloc[0]
    assert {2, 4} == set(table["until_epoch"]) and "trained again from scratch" in output
    if best["until_epoch"] == 4:  # what stopped and went on is what did not stop
        assert summary["trained_again"] == summary["best"]["dev_weighted_f1"]


def test_folds(run, results):
    run("tune", "--name", "x", "--trials", 2, "--folds", 2, *SEARCH, *SHORT, new=True).end()
    table = trials(results / "x")
    assert table["dev_weighted_f1"].tolist() == pytest.approx(((table["fold0"] + table["fold1"]) / 2).tolist())
    assert (table["fold0"] != table["fold1"]).any() and (table["epochs"] == 4).all()
