"""`tune`: a hyperparameter search. TensorFlow and KerasTuner are imported when it starts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_tf import files, folders, interrupts, locks
from emotion_tf.config import Config
from emotion_tf.csv_rows import count_rows
from emotion_tf.errors import UserError
from emotion_tf.program import command, program
from emotion_tf.quiet import start_tensorflow
from emotion_tf.terminal import say
from emotion_tf.wording import plural
from tuning import plan as plans
from tuning import space
from tuning.arguments import ANSWER_TIMEOUT, DEFAULT_EPOCHS, TuneArguments, read_plan, unfinished_searches
from tuning.plan import Plan
from tuning.selection import select

if TYPE_CHECKING:
    from emotion_tf.data.dataset import Dataset


def tune(arguments: TuneArguments) -> None:
    """Starts or continues a search, or runs trials of a chief on another machine."""
    if arguments.tuner.role == "worker":
        _run_worker(arguments)
        return
    start_tensorflow()
    from emotion_tf.data.prepare import draw_missing_demo

    draw_missing_demo(Path(arguments.config.data))
    dataset = _open(Path(arguments.config.data))
    plan = _plan(arguments, dataset, command())
    from emotion_tf.training.initialize import check_unseen

    held_out, selecting = (["train", "dev"], []) if plan.folds else (["test"], ["dev"])
    initial = check_unseen(plan.config, dataset, held_out, selecting, say)
    searched, job = _searched(plan, dataset), _job(plan, arguments.strategy)
    with _folder(plan, arguments) as folder:
        resume = f"Continue with: {program()} tune --resume --name {shlex.quote(folder.name)}"
        if arguments.tuner.role == "chief":
            resume += f" --workers {arguments.workers} --tuner.role chief --tuner.address {arguments.tuner.address}"
        elif arguments.workers != TuneArguments.workers:
            resume += f" --workers {arguments.workers}"
        resume += " --strategy mirrored" * (arguments.strategy == "mirrored") + " --trust" * arguments.trust
        progress = interrupts.tell_progress(folder, lambda: _progress(folder, plan.trials))
        with progress, files.growing_folder(folder, plans.SEARCH, resume, arguments.overwrite, keep_failed=True):
            _create_folder(folder, plan, arguments)
            _search(folder, plan, searched, job, arguments, initial)


def _progress(folder: Path, trials: int) -> str:
    return f"Stopped after {count_rows(folder / 'trials.csv')} of {plural(trials, 'trial')}."


@contextlib.contextmanager
def _folder(plan: Plan, arguments: TuneArguments) -> Iterator[Path]:
    """Yields the folder of --name; without a name that of an interrupted search of the same plan, or a new one."""
    if arguments.name:
        yield plans.RESULTS / arguments.name
        return
    stem = re.escape(folders.stem(plan.config))
    for folder in () if arguments.overwrite else unfinished_searches():
        if not re.fullmatch(rf"{stem}(-\d+)?", folder.name):
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.writer(folder))
                read_plan(folder).check_same(plan, folder)
            except UserError:  # another process runs it, or it is another search
                continue
            if not plans.SEARCH.is_finished(folder):
                yield folder
                return
    with folders.free_folder(plan.config, plans.RESULTS) as folder:
        yield folder


def _open(path: Path) -> Dataset:
    from emotion_tf.data.dataset import Dataset

    dataset = Dataset.open(path)
    dataset.verify()
    return dataset


def _plan(arguments: TuneArguments, dataset: Dataset, command: str) -> Plan:
    train, threads = arguments.config.train, arguments.config.train.threads
    if arguments.resume and arguments.name:
        saved = read_plan(plans.RESULTS / arguments.name)
        threads, command = threads or saved.config.train.threads, saved.command
    # the result depends on it, so that best.json has it
    threads = threads or max(1, (os.cpu_count() or 1) // max(1, arguments.workers))
    default = train.epochs if arguments.tuner.algorithm == "hyperband" else DEFAULT_EPOCHS
    epochs = train.epochs if arguments.smoke else min(train.epochs, arguments.tuner.epochs or default)
    train = dataclasses.replace(train, threads=threads, epochs=epochs)
    return Plan(
        config=dataclasses.replace(arguments.config, train=train),
        search=arguments.search,
        fix=arguments.fix,
        algorithm=arguments.tuner.algorithm,
        folds=arguments.folds,
        data_sha256=dataset.spec.data_sha256,
        trials=arguments.trials,
        command=command,
        smoke=arguments.smoke,
    )


def _searched(plan: Plan, dataset: Dataset) -> list[space.Parameter]:
    """Returns the hyperparameters to search."""
    facts = space.DatasetFacts(context=dataset.context, crops=dataset.max_faces)
    return select(space.parameters(plan.config, facts), plan.search, plan.fix, plan.config, facts)


def _create_folder(folder: Path, plan: Plan, arguments: TuneArguments) -> None:
    """Creates the folder of a search, unless it has a search to continue: a killed one, or the one of --resume."""
    is_search = plans.SEARCH.matches(folder) and not arguments.overwrite
    if arguments.resume or (is_search and not plans.SEARCH.is_finished(folder)):
        read_plan(folder).check_same(plan, folder)
        files.write_text(folder / "search.json", plan.to_json())
        return
    hint = "--resume continues it, --overwrite replaces it, --name gives another"
    with files.new_folder(folder, plans.SEARCH, arguments.overwrite, hint) as temporary:
        (temporary / "search.json").write_text(plan.to_json(), encoding="utf-8")


def _job(plan: Plan, strategy: str) -> Any:
    """Returns the job of the worker processes."""
    from emotion_tf.models.pretrained import pretrained_files
    from tuning.trial import TrainingJob

    job = TrainingJob(plan.config.train.threads, pretrained_files(plan.config), plan.folds, strategy)
    job.check(plan.config)
    return job


def _task_builder(plan: Plan, searched: list[space.Parameter], folder: Path) -> Callable[[Any], Any]:
    """Returns a function from a trial to its task."""
    from tuning.trial import Task

    def task(trial: Any) -> Any:
        values = trial.hyperparameters.values
        earlier = values.get("tuner/trial_id")
        return Task(
            config=plan.of_trial(space.draw(trial.hyperparameters, searched, plan.config)),
            folder=folder / trial.trial_id,
            command=plan.command,
            until=values.get("tuner/epochs", 0),
            earlier=folder / earlier if earlier else None,
        )

    return task


def _search(
    folder: Path,
    plan: Plan,
    searched: list[space.Parameter],
    job: Any,
    arguments: TuneArguments,
    initial: list[str],
) -> None:
    """Runs the trials of a search and writes its results, with the sentences about its initial checkpoints."""
    from tuning import oracle as oracles
    from tuning import results
    from tuning.display import SearchDisplay
    from tuning.distributed import serve_trials
    from tuning.search import lead
    from tuning.workers import worker_pool

    config, state = plan.config, folder / "oracle.json"
    oracle = oracles.build(
        plan.algorithm, lambda hp: space.draw(hp, searched, config), plan.trials, config.train.epochs,
        config.train.seed, state, plan.to_json(),
    )  # fmt: skip
    if state.exists():
        oracle.reload()
    _check_unfinished(folder, oracle, plan)
    (folder / "summary.json").unlink(missing_ok=True)
    counts = f"{plural(plan.trials, 'trial')} ({plan.algorithm}), {plural(len(searched), 'hyperparameter')}"
    say(f"Search: {folder}, {counts}", flush=True)
    is_chief = arguments.tuner.role == "chief"
    if is_chief:
        join = f"{program()} tune --tuner.role worker --tuner.address {arguments.tuner.address}"
        say(f"Workers on other machines can join: {join}")
    trials_written = -1

    def tick(running: dict[str, Any]) -> None:
        nonlocal trials_written
        if len(oracle.ended_trials) != trials_written:
            trials_written = len(oracle.ended_trials)
            results.write_trials(folder, oracle, searched, config)
        display.update(running)

    task, names = _task_builder(plan, searched, folder / "trials"), [f"worker{i}" for i in range(arguments.workers)]
    with worker_pool(job, max(1, len(names)), folder / "workers.log") as submit:
        server = serve_trials(oracle, arguments.tuner.address) if is_chief else contextlib.nullcontext()
        with SearchDisplay(oracle, searched, plan.trials) as display, server:
            lead(oracle, submit, task, names, tick)
            tick({})
        if results.best_trial(oracle) is None:
            error = oracle.reports[oracle.ended_trials[-1].trial_id]["error"]
            raise UserError(f"{plural(len(oracle.ended_trials), 'trial')}, all broken. The last: {error}")
        retrained = _retrain_best(plan, searched, oracle, folder, submit)
    shutil.rmtree(folder / "trials", ignore_errors=True)
    _write_results(folder, plan, searched, oracle, {**retrained, "initial": initial})


def _check_unfinished(folder: Path, oracle: Any, plan: Plan) -> None:
    if (folder / "summary.json").exists() and len(oracle.ended_trials) >= plan.trials:
        raise UserError(
            f"{folder} is finished: {plural(len(oracle.ended_trials), 'trial')}. Expected more --trials to continue; "
            f"the best configuration is {folder / 'best.json'}."
        )


def _retrain_best(
    plan: Plan, searched: list[space.Parameter], oracle: Any, folder: Path, submit: Any
) -> dict[str, Any]:
    """Trains the best trial of Hyperband from scratch: its own score may be that of an unfinished training."""
    from tuning import results
    from tuning.trial import Task
    from tuning.workers import outcome_of

    best = results.best_trial(oracle)
    if plan.algorithm != "hyperband":
        return {}
    if best.trial_id not in oracle.retrained:
        say("Training the best trial again from scratch", flush=True)
        config = plan.of_trial(space.draw(best.hyperparameters, searched, plan.config))
        outcome = outcome_of(submit(Task(config, folder / "trials" / "again", plan.command)))
        if outcome.error:
            raise UserError(f"The best trial ({best.trial_id}) could not be trained again: {outcome.error}")
        oracle.retrained[best.trial_id] = outcome.score
        oracle.save()
    return {"trained_again": oracle.retrained[best.trial_id]}


def _write_results(
    folder: Path, plan: Plan, searched: list[space.Parameter], oracle: Any, more: dict[str, Any]
) -> None:
    from emotion_tf.progress import stage
    from tuning import results
    from tuning.plots import plot_all

    config, floor = plan.config, _majority_floor(plan)
    trials = results.trial_table(oracle, searched, config)
    with stage("drawing the pictures"):
        plot_all(folder, trials, searched, floor["weighted_f1"], config.train.seed)
    summary = {**results.summarise(oracle, searched, plan, floor), **more}
    results.write_summary(folder, summary)
    results.print_summary(folder, summary, oracle, searched, config)


def _majority_floor(plan: Plan) -> dict[str, Any]:
    """Returns the most frequent class of train, by weight, and its weighted F1 on the utterances of the objective."""
    import numpy as np

    from emotion_tf.data import pipeline
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation.metrics import weighted_f1

    dataset = Dataset.open(Path(plan.config.data))
    splits = ("train", "dev") if plan.folds else ("dev",)
    train, objective = (pipeline.read_labels(dataset.rows(*names)) for names in (("train",), splits))
    majority = int(np.bincount(train.label, train.weight, len(dataset.labels)).argmax())
    label, weight = objective.label, objective.weight
    floor = weighted_f1(label, np.full_like(label, majority), weight)
    return {"label": dataset.labels[majority], "weighted_f1": floor}


def _run_worker(arguments: TuneArguments) -> None:
    """Runs trials of a chief on another machine until it has no more."""
    address = arguments.tuner.address
    say(f"Waiting for the chief at {address}, at most {ANSWER_TIMEOUT} s", flush=True)
    start_tensorflow()
    from tuning.distributed import connect, receive_plan, worker_name
    from tuning.search import run_trials
    from tuning.workers import worker_pool

    with connect(address) as client, tempfile.TemporaryDirectory(prefix="emotion_tf-tune-") as temporary:
        plan = plans.from_json(receive_plan(client))
        if arguments.config.data != Config.data:
            plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, data=arguments.config.data))
        dataset = _open(Path(plan.config.data))
        if dataset.spec.data_sha256 != plan.data_sha256:
            raise UserError(
                f"{plan.config.data} differs from the data set of the chief at {address}. Expected a copy of it, which "
                "--data names."
            )
        searched, folder = _searched(plan, dataset), Path(temporary)
        names = [f"{worker_name()}-{i}" for i in range(arguments.workers)]
        say(f"Working for {address} with {plural(len(names), 'process', 'processes')}", flush=True)
        with worker_pool(_job(plan, arguments.strategy), len(names), folder / "workers.log") as submit:
            run_trials(client, submit, _task_builder(plan, searched, folder), names, lambda running: None)
    say(f"The search at {address} has no more trials")
