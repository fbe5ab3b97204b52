"""`tune` with trials that are a formula: broken trials, interruptions, workers elsewhere, results."""

import json
import re
import socket
import threading

import pandas as pd
import pytest
from fake_trials import Fake, LoudJob, score

from emotion_tf.config import Config, read_config
from emotion_tf.errors import UserError
from tuning import arguments, distributed, oracle, plan, search, workers
from tuning.search import check_broken, lead, run_trials
from tuning.trial import Task


def test_a_search_writes_trials_best_configuration_and_plots(tune, folder):
    printed = tune("--trials", "12", "--train.seed", "3", "--search", "learning_rate", "optimizer", "loss", plots=True)
    table = pd.read_csv(folder / "trials.csv", dtype={"trial": str})
    assert sorted(table["trial"]) == [f"{i:02d}" for i in range(12)] and len(table) == 12
    broken = table[table["status"] == "broken"]
    assert len(broken) and set(broken["train.optimizer"]) == {"rmsprop"} and broken["dev_weighted_f1"].isna().all()
    assert broken["error"].str.startswith("The loss became nan").all()
    summary = json.loads((folder / "summary.json").read_text())
    best = table.loc[table["dev_weighted_f1"].idxmax()]
    assert summary["best"]["trial"] == best["trial"] and summary["broken"] == len(broken) and summary["seed"] == 3
    config = read_config(folder / "best.json")
    assert score(config) + 0.02 == pytest.approx(summary["best"]["dev_weighted_f1"])
    assert config.train.learning_rate == best["train.learning_rate"] and config.train.epochs == 2
    assert config.train.threads >= 1
    for picture in ("objective", "hyperparameters"):
        assert (folder / f"{picture}.png").stat().st_size > 5000
    assert not (folder / "trials").exists()
    for output in ("12 trials", "always neutral", f"train --config {folder / 'best.json'}", "left", "broken: The loss"):
        assert output in printed
    floor = summary["majority_floor"]["weighted_f1"]
    assert 0 < floor < 0.5 and f"{floor:.4f}" in printed


def test_the_first_trial_is_the_base_and_a_seed_repeats_the_trials(tune, folder):
    tune("--trials", "6", "--search", "learning_rate", "fusion.kind=concat,gated")
    first = pd.read_csv(folder / "trials.csv")
    tune("--trials", "6", "--search", "learning_rate", "fusion.kind=concat,gated", "--overwrite", "--workers", "3")
    second = pd.read_csv(folder / "trials.csv").sort_values("trial")
    assert list(first["train.learning_rate"]) == list(second["train.learning_rate"])
    assert first["train.learning_rate"][0] == 0.003 and first["fusion.kind"][0] == "concat"
    assert {"train.batch_size", "text.dropout"}.isdisjoint(first.columns)
    tune("--trials", "6", "--search", "learning_rate", "--overwrite", "--train.seed", "1")
    assert list(pd.read_csv(folder / "trials.csv")["train.learning_rate"])[1:] != list(first["train.learning_rate"])[1:]


def test_the_best_configuration_of_a_smoke_search_trains_whole(tune, folder):
    printed = tune("--trials", "2", "--search", "learning_rate", "--smoke")
    best = read_config(folder / "best.json").train
    assert list(pd.read_csv(folder / "trials.csv")["epochs"]) == [1, 1]
    assert (best.epochs, best.steps_per_epoch) == (10, 0) and "smoke search" in printed
    tune("--trials", "3", "--resume")
    assert list(pd.read_csv(folder / "trials.csv")["epochs"]) == [1, 1, 1]


def test_the_score_of_the_base_is_that_of_a_trial(tune, folder):
    for space, shown in (("learning_rate", 2), ("learning_rate=1e-4:1e-3", 1)):  # the base has 3e-3
        printed = tune("--trials", "4", "--search", space, "--overwrite")
        (line,) = (line for line in printed.splitlines() if "at the best epoch" in line)
        scores, table = re.findall(r"0\.\d{4}", line), pd.read_csv(folder / "trials.csv")["dev_weighted_f1"]
        assert scores == [f"{table.max():.4f}", f"{table[0]:.4f}"][:shown]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_bayesian_search_finds_the_maximum(tune, folder):
    tune("--trials", "5", "--tuner.algorithm", "bayesian", "--search", "learning_rate")
    assert pd.read_csv(folder / "trials.csv")["dev_weighted_f1"].max() > 0.75


def test_hyperband_continues_the_best_and_retrains_the_winner(tune, folder):
    printed = tune("--trials", "20", "--tuner.algorithm", "hyperband", "--tuner.epochs", "4", "--search", "train")
    table = pd.read_csv(folder / "trials.csv")
    assert {2, 4} <= set(table["until_epoch"]) and len(table) == 20
    summary = json.loads((folder / "summary.json").read_text())
    config = read_config(folder / "best.json")
    assert summary["trained_again"] == pytest.approx(score(config) + 0.04) and config.train.epochs == 4
    assert "trained again from scratch" in printed and f"{summary['trained_again']:.4f}" in printed


def test_folds_refuse_a_tower_trained_on_them(tune, folder, fault, untrained):
    words = ("--trials", "2", "--folds", "2", "--search", "learning_rate")
    output = tune(*words, "--face.init", untrained, through=fault)
    assert "are held out (train and dev)" in output and not folder.exists()
    assert "mean over 2 folds of train and dev" in tune(*words)


def test_an_interrupted_search_repeats_no_finished_trial(tune, folder, command):
    class Interrupted(Fake):
        def submit(self, task):
            if task.folder.name == "04":
                raise KeyboardInterrupt
            return super().submit(task)

    words = ("--trials", "10", "--search", "learning_rate")
    code, output = tune(*words, job=Interrupted(), through=command)
    before = pd.read_csv(folder / "trials.csv", dtype={"trial": str})
    message = f"Stopped after {len(before)} of 10 trials. {folder} is kept. Continue with: python main.py tune --resume"
    assert code == 130 and message in output.err
    assert 0 < len(before) < 10 and not (folder / "summary.json").exists()
    ran = []

    class Counting(Fake):
        def submit(self, task):
            ran.append(task.folder.name)
            return super().submit(task)

    tune("--resume", job=Counting())
    after = pd.read_csv(folder / "trials.csv", dtype={"trial": str})
    assert len(after) == 10 and after["trial"].is_unique
    assert set(ran) == set(after["trial"]) - set(before["trial"]) and "04" in ran
    pd.testing.assert_frame_equal(after[: len(before)], before)


def test_a_finished_search_continues_only_with_more_trials(tune, folder, fault):
    tune("--trials", "3", "--search", "learning_rate")
    began = json.loads((folder / "summary.json").read_text())["command"]
    assert "is finished: 3 trials" in tune("--resume", through=fault)
    assert "--resume continues it, --overwrite replaces it" in tune(through=fault)
    assert "another train.epochs (2, not 1)" in tune("--resume", "--train.epochs", "1", through=fault)
    assert "another search" in tune("--resume", "--search", "loss", through=fault)
    tune("--resume", "--trials", "5")
    assert len(pd.read_csv(folder / "trials.csv")) == 5
    again = json.loads((folder / "summary.json").read_text())["command"]
    assert again == began and "--trials 3" in again


def test_a_search_of_another_space_is_not_continued(tune, folder, fault):
    """For example of a version of the program with other domains."""
    tune("--trials", "2", "--search", "optimizer")
    before = json.loads((folder / "oracle.json").read_text())
    for state in (before["hyperparameters"], *(trial["hyperparameters"] for trial in before["trials"])):
        (optimizer,) = state["space"]
        optimizer["config"]["values"].append("sgd")
    (folder / "oracle.json").write_text(json.dumps(before))
    message = tune("--resume", "--trials", "3", through=fault)
    assert "oracle.json: The search has other hyperparameters or domains than this version" in message
    assert json.loads((folder / "oracle.json").read_text()) == before


def test_preset_and_config_exclude_each_other(tune, fault):
    assert "each give a whole configuration" in tune("--preset", "demo", "--config", "x.json", through=fault)


def test_equal_errors_of_all_trials_end_the_search(tune, folder, fault):
    output = tune("--trials", "30", job=Fake(breaks="No space"), through=fault)
    assert re.match("The search has ended: the first [34] trials all broke. No space with", output)
    assert len(pd.read_csv(folder / "trials.csv")) <= 4
    assert not (folder / "best.json").exists()


def test_worker_processes_that_cannot_start_end_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "TICK", 0.05)
    log = tmp_path / "workers.log"
    cannot = pytest.raises(UserError, match="The worker processes cannot start. ImportError: no such module")
    with cannot, workers.worker_pool(Fake(starts=False), 1, log) as submit:
        lead(build(tmp_path), submit, lambda trial: trial.trial_id, ["near"], lambda running: None)
    assert "ImportError: no such module" in log.read_text()


def test_output_of_a_worker_process_goes_to_its_log(tmp_path, capfd):
    with workers.worker_pool(LoudJob(), 1, tmp_path / "workers.log") as submit:
        task = Task(config=Config(), folder=tmp_path / "trial", command="")
        assert submit(task).result(60).epochs == Config().train.epochs
    assert "imported" in (tmp_path / "workers.log").read_text() and capfd.readouterr().out == ""


def test_check_broken():
    check_broken(["nan at 1e-3"] * 2)
    check_broken(["nan at 1e-3", "nan at 2", "memory"])
    check_broken(["nan at 1e-3", "nan at 2", ""])
    with pytest.raises(UserError, match="first 3 trials all broke.*nan at 3"):
        check_broken(["nan at 1e-3", "nan at 2.5", "nan at 3"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "Invalid `--trials`"),
        (["--folds", "1"], "Invalid `--folds`. Expected 0 (dev alone) or at least 2"),
        (["--folds", "3", "--tuner.algorithm", "hyperband"], "whose trials continue an earlier one"),
        (
            ["--tuner.epochs", "2", "--tuner.algorithm", "hyperband"],
            "Expected at least 3, as for --train.epochs, with --tuner.algorithm hyperband",
        ),
        (["--tuner.algorithm", "bayes"], "Did you mean 'bayesian'?"),
        (["--tuner.role", "chief"], "Invalid `tuner.address`"),
        (["--tuner.role", "chief", "--tuner.address", "here"], "Expected HOST:PORT"),
        (["--workers", "0"], "Invalid `--workers`"),
        (["--search", "learning_rat"], "Did you mean 'learning_rate'?"),
        (["--name", "../x"], "Invalid `--name`"),
        (["--resume"], "No search at"),
        (["--data", "nowhere"], "nowhere"),
        (["--tuner.epoch", "3"], "--tuner.epochs"),
        (["--strategy", "multiworker"], "Invalid `--strategy`. Expected one of: none, mirrored."),
        (
            ["--strategy", "mirrored"],
            "--strategy mirrored gives all GPUs of this machine to one trial. Expected --workers 1",
        ),
    ],
)
def test_invalid_arguments_are_one_line(tune, fault, folder, words, message):
    assert message in tune(*words, through=fault)
    assert not folder.exists()


def test_nothing_to_resume(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "RESULTS", tmp_path)
    with pytest.raises(UserError, match="Nothing to resume"):
        arguments.tune_arguments(["--resume"])


def build(tmp_path, trials=6, algorithm="random"):
    def declare(hp):
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            hp.Float("rate", 1e-4, 1e-1, sampling="log", default=1e-3)

    return oracle.build(algorithm, declare, trials, 4, 0, tmp_path / "oracle.json", "the plan")


def formula_outcome(trial):
    return workers.Outcome(score=float(trial.hyperparameters.values.get("rate", 0)), epochs=1, seconds=0.1)


class Values:
    """Runs trials at once, in this process; the score is the sampled rate."""

    def __init__(self, error=None):
        self.error, self.ran = error, []

    def submit(self, trial):
        self.ran.append(trial.trial_id)
        done = distributed.futures.Future()
        done.set_exception(self.error) if self.error else done.set_result(formula_outcome(trial))
        return done


def test_a_killed_search_repeats_only_unfinished_trials(tmp_path):
    """The state after each step is that of a process killed there."""
    first = build(tmp_path)
    ended, running = first.create_trial("w0"), first.create_trial("w1")
    search.report(first, ended, formula_outcome(ended), "w0")
    again = build(tmp_path)
    again.reload()
    values = Values()
    lead(again, values.submit, lambda trial: trial, ["w0", "w1"], lambda running: None)
    assert ended.trial_id not in values.ran and values.ran[0] == running.trial_id
    assert len(again.ended_trials) == 6 and len({t.trial_id for t in again.ended_trials}) == 6
    assert again.trials[running.trial_id].hyperparameters.values == running.hyperparameters.values
    state = json.loads((tmp_path / "oracle.json").read_text())
    assert len(state["end_order"]) == 6 and state["reports"][ended.trial_id]["epochs"] == 1


def test_lost_workers_and_their_late_reports(tmp_path, monkeypatch):
    first = build(tmp_path)
    lost = first.create_trial("far")
    assert first.requeue_lost() == []
    monkeypatch.setattr(oracle, "LOST_AFTER", -1.0)
    assert first.requeue_lost() == ["far"]
    again = first.create_trial("near")
    assert again.trial_id == lost.trial_id
    search.report(first, again, formula_outcome(again), "near")
    lost.hyperparameters.values[oracle.REPORT] = "{}"
    first.end_trial(lost)  # the first report counts
    assert len(first.ended_trials) == 1 and first.reports[again.trial_id]["worker"] == "near"


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def no_environment(monkeypatch):
    for name in ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")


def test_remote_workers_run_trials_and_report_errors(tmp_path, address, no_environment, monkeypatch):
    monkeypatch.setattr(search, "TICK", 0.05)
    first = build(tmp_path, trials=12)
    here, there = Values(), Values(UserError("broken there"))

    def join():
        with distributed.connect(address) as client:
            assert distributed.receive_plan(client) == "the plan"
            run_trials(client, there.submit, lambda trial: trial, ["far0", "far1"], lambda running: None)

    worker = threading.Thread(target=join)
    with distributed.serve_trials(first, address):
        worker.start()
        while not there.ran:  # what is near is quicker, and would leave nothing
            threading.Event().wait(0.01)
        lead(first, here.submit, lambda trial: trial, ["near"], lambda running: None)
    worker.join(20)
    assert not worker.is_alive()
    assert len(first.ended_trials) == 12 and sorted(here.ran + there.ran) == sorted(first.trials)
    broken = {name for name, report in first.reports.items() if report["error"]}
    assert broken == set(there.ran) and first.reports[there.ran[0]]["error"] == "broken there"
    for name in here.ran:
        assert first.trials[name].score == first.trials[name].hyperparameters.values.get("rate", 0)


def test_a_chief_without_workers_ends(tmp_path, address, no_environment, monkeypatch):
    monkeypatch.setattr(oracle, "LOST_AFTER", 0.3)
    monkeypatch.setattr(distributed, "LOST_AFTER", 0.3)
    monkeypatch.setattr(search, "TICK", 0.05)
    first = build(tmp_path)
    with pytest.raises(UserError, match="All workers are lost"), distributed.serve_trials(first, address):
        with distributed.connect(address) as client:
            client.create_trial("far")
        lead(first, Values().submit, lambda trial: trial, [], lambda running: None)


def test_a_worker_without_a_chief_and_a_port_in_use(tmp_path, address, no_environment, monkeypatch):
    monkeypatch.setattr(distributed, "ANSWER_TIMEOUT", 0.3)
    with pytest.raises(UserError, match="does not answer"), distributed.connect(address) as client:
        distributed.receive_plan(client)
    with (
        distributed.serve_trials(build(tmp_path), address),
        pytest.raises(UserError, match="Cannot listen at"),
        distributed.serve_trials(build(tmp_path), address),
    ):
        pass


def test_a_dead_process_breaks_its_trial_and_repeated_deaths_end_the_search(tune, folder, fault):
    search = ("--search", "optimizer=adamw,adam,rmsprop,sgd", "learning_rate", "--train.seed", "2")
    tune("--trials", "8", *search, job=Fake(dies="sgd"))
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 8
    died = table[table["train.optimizer"] == "sgd"]
    assert len(died) and (died["error"] == "the worker process ended with exit code -9").all()
    tune("--resume", "--trials", "9")  # in processes that live
    again = pd.read_csv(folder / "trials.csv")
    assert (
        len(again) == 9 and again["trial"].is_unique and not (set(died["trial"]) & set(again[: 8 - len(died)]["trial"]))
    )
    assert again["error"].fillna("").str.contains("exit code").sum() == 0
    output = tune("--overwrite", "--fix", "optimizer", job=Fake(dies="adamw"), through=fault)
    assert re.search("The worker processes die: [23] in a row", output)  # 3: one after the other, then both at once


def test_sentences_about_initial_towers_are_in_the_summary(tune, folder, monkeypatch):
    monkeypatch.setattr("emotion_tf.training.initialize.check_unseen", lambda *_: ["not checked"])
    tune("--trials", "1")
    assert json.loads((folder / "summary.json").read_text())["initial"] == ["not checked"]
