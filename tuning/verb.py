"""`tune`: wiring only; TensorFlow and KerasTuner are imported when it begins."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_tf import folders
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.program import command
from emotion_tf.quiet import start_tensorflow
from tuning import choice, plan, space
from tuning.arguments import SHORT, TuneArguments, saved_plan
from tuning.plan import Plan

if TYPE_CHECKING:
    from emotion_tf.data.dataset import Dataset


def tune(arguments: TuneArguments) -> None:
    """Searches, goes on with a search, or takes trials from a chief."""
    start_tensorflow()
    if arguments.tuner.role == "worker":
        _work(arguments)
        return
    from emotion_tf.data.prepare import draw_missing_demo

    draw_missing_demo(Path(arguments.config.data))
    dataset = _open(Path(arguments.config.data))
    made = _plan(arguments, dataset, command())
    if made.folds:
        from emotion_tf.training.initialize import check_unseen

        check_unseen(made.config, made.data_sha256)
    folder = plan.RESULTS / (arguments.name or folders.free_name(made.config, plan.RESULTS))
    searched, job = _searched(made, dataset), _job(made)
    _begin(folder, made, arguments)
    _lead(folder, made, searched, job, arguments)


def _open(path: Path) -> Dataset:
    from emotion_tf.data.dataset import Dataset

    dataset = Dataset.open(path)
    dataset.verify()
    return dataset


def _plan(arguments: TuneArguments, dataset: Dataset, command: str) -> Plan:
    train, threads = arguments.config.train, arguments.config.train.threads
    if arguments.resume and arguments.name:
        saved = saved_plan(plan.RESULTS / arguments.name)
        threads, command = threads or saved.config.train.threads, saved.command
    # what a run repeats of a trial depends on it, so it is in best.json
    threads = threads or max(1, (os.cpu_count() or 1) // max(1, arguments.workers))
    short = train.epochs if arguments.tuner.algorithm == "hyperband" else SHORT
    train = dataclasses.replace(train, threads=threads, epochs=min(train.epochs, arguments.tuner.epochs or short))
    return Plan(
        config=dataclasses.replace(arguments.config, train=train),
        search=arguments.search,
        fix=arguments.fix,
        algorithm=arguments.tuner.algorithm,
        folds=arguments.folds,
        data_sha256=dataset.spec.data_sha256,
        trials=arguments.trials,
        command=command,
    )


def _searched(made: Plan, dataset: Dataset) -> list[space.Parameter]:
    facts = space.Facts(context=dataset.context, crops=dataset.max_faces)
    found = space.parameters(made.config, facts)
    return choice.choose(found, made.search, made.fix, made.config, facts)


def _begin(folder: Path, made: Plan, arguments: TuneArguments) -> None:
    """Makes the folder, or checks that it holds this search."""
    from emotion_tf import files

    if folder.exists() and not (arguments.resume or arguments.overwrite):
        raise UserError(f"{folder} exists. --resume goes on with it, --overwrite replaces it, --name gives another.")
    if arguments.resume:
        saved_plan(folder).check_same(made, folder)
    elif folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "search.json", made.text())


def _job(made: Plan) -> Any:
    from emotion_tf.models.pretrained import pretrained_files
    from tuning.trial import Training

    config = made.config
    return Training(
        threads=config.train.threads,
        pretrained=pretrained_files(config),
        folds=made.folds,
    )


def _task(made: Plan, searched: list[space.Parameter], folder: Path) -> Callable[[Any], Any]:
    """Trial -> task."""
    from tuning.trial import Task

    def task(trial: Any) -> Any:
        values = trial.hyperparameters.values
        earlier = values.get("tuner/trial_id")
        return Task(
            config=space.draw(trial.hyperparameters, searched, made.config),
            folder=folder / trial.trial_id,
            command=made.command,
            until=values.get("tuner/epochs", 0),
            earlier=folder / earlier if earlier else None,
        )

    return task


def _lead(folder: Path, made: Plan, searched: list[space.Parameter], job: Any, arguments: TuneArguments) -> None:
    from tuning import oracle as oracles
    from tuning import results
    from tuning.machines import serving
    from tuning.search import lead
    from tuning.show import Show
    from tuning.workers import workers

    config, state = made.config, folder / "oracle.json"
    oracle = oracles.build(
        made.algorithm, lambda hp: space.draw(hp, searched, config), made.trials, config.train.epochs,
        config.train.seed, state, made.text(),
    )  # fmt: skip
    if arguments.resume and state.exists():
        oracle.reload()
    _check_unfinished(folder, oracle, made)
    (folder / "summary.json").unlink(missing_ok=True)
    print(f"Search: {folder}, {made.trials} trials ({made.algorithm}), {len(searched)} hyperparameters", flush=True)
    chief = arguments.tuner.role == "chief"
    if chief:
        print(f"Workers on other machines may join: tune --tuner.role worker --tuner.address {arguments.tuner.address}")
    written = -1

    def tick(running: dict[str, Any]) -> None:
        nonlocal written
        if len(oracle.ended) != written:
            written = len(oracle.ended)
            results.write(folder, oracle, searched, config)
        show.update(running)

    task, names = _task(made, searched, folder / "trials"), [f"worker{i}" for i in range(arguments.workers)]
    with workers(job, max(1, len(names)), folder / "workers.log") as submit:
        open_to_others = serving(oracle, arguments.tuner.address) if chief else contextlib.nullcontext()
        with Show(oracle, searched, made.trials) as show, open_to_others:
            lead(oracle, submit, task, names, tick)
            tick({})
        if results.best_trial(oracle) is None:
            raise UserError(f"All {len(oracle.ended)} trials broke: see {folder / 'trials.csv'}.")
        again = _again(made, searched, results.best_trial(oracle), folder, submit)
    shutil.rmtree(folder / "trials", ignore_errors=True)
    _finish(folder, made, searched, oracle, again)


def _check_unfinished(folder: Path, oracle: Any, made: Plan) -> None:
    if (folder / "summary.json").exists() and len(oracle.ended) >= made.trials:
        raise UserError(
            f"{folder} is finished: {len(oracle.ended)} trials. Expected more --trials to go on; the best is in "
            f"{folder / 'best.json'}."
        )


def _again(made: Plan, searched: list[space.Parameter], best: Any, folder: Path, submit: Any) -> dict[str, Any]:
    """Hyperband's winner trained from scratch: its own score may be that of a training stopped half-way."""
    from tuning.trial import Task
    from tuning.workers import outcome

    if made.algorithm != "hyperband":
        return {}
    print("Training the best trial again from scratch", flush=True)
    config = space.draw(best.hyperparameters, searched, made.config)
    found = outcome(submit(Task(config, folder / "trials" / "again", made.command)))
    if found.error:
        raise UserError(f"The best trial ({best.trial_id}) could not be trained again: {found.error}")
    return {"trained_again": found.score}


def _finish(folder: Path, made: Plan, searched: list[space.Parameter], oracle: Any, again: dict[str, Any]) -> None:
    from tuning import results
    from tuning.plots import plot_all

    floor = _floor(made)
    plot_all(
        folder, results.rows(oracle, searched, made.config), searched, floor["weighted_f1"], made.config.train.seed
    )
    found = {**results.summary(oracle, searched, made, floor), **again}
    results.write_summary(folder, found)
    results.print_summary(folder, found, oracle, searched, made.config)


def _floor(made: Plan) -> dict[str, Any]:
    """What always predicting training's most frequent class would score on the utterances that trials are judged by."""
    import numpy as np

    from emotion_tf.data import pipeline
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation.metrics import weighted_f1

    dataset = Dataset.open(Path(made.config.data))
    splits = ("train", "dev") if made.folds else ("dev",)
    rows = list(pipeline.read_rows(dataset.rows(*splits)))
    counts = dataset.splits["train"].per_class
    majority = max(counts, key=lambda label: counts[label])
    label, weight = np.array([r["label"] for r in rows]), np.array([r["weight"] for r in rows])
    predicted = np.full_like(label, dataset.labels.index(majority))
    return {"label": majority, "weighted_f1": weighted_f1(label, predicted, weight)}


def _work(arguments: TuneArguments) -> None:
    """Takes trials from a chief on another machine."""
    from tuning.machines import joined, plan_of, worker_name
    from tuning.search import run_trials
    from tuning.workers import workers

    address = arguments.tuner.address
    with joined(address) as client, tempfile.TemporaryDirectory(prefix="emotion_tf-tune-") as temporary:
        made = plan.from_text(plan_of(client))
        if arguments.config.data != Config().data:
            made = dataclasses.replace(made, config=dataclasses.replace(made.config, data=arguments.config.data))
        dataset = _open(Path(made.config.data))
        if dataset.spec.data_sha256 != made.data_sha256:
            raise UserError(
                f"{made.config.data} is another data set than the chief's at {address}. Expected a copy of it: name it "
                "with --data."
            )
        searched, folder = _searched(made, dataset), Path(temporary)
        names = [f"{worker_name()}-{i}" for i in range(arguments.workers)]
        print(f"Working for {address} with {len(names)} processes", flush=True)
        with workers(_job(made), len(names), folder / "workers.log") as submit:
            run_trials(client, submit, _task(made, searched, folder), names, lambda running: None)
    print(f"The search at {address} has no more trials")
