"""`evaluate`: evaluates a run on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from emotion_tf import locks, remote
from emotion_tf.cluster import check_scheduler
from emotion_tf.command_line import Flag, RunPath, SchedulerAddress, opens_models
from emotion_tf.config import rules
from emotion_tf.folders import check_no_link, other_results
from emotion_tf.program import command
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say, with_urls


@opens_models
@needs_tensorflow
def evaluate(
    run: RunPath,
    data: Annotated[Path | None, rules.value("DATASET")] = None,
    split: Annotated[str, rules.SPLIT] = "test",
    report: Flag = False,
    scheduler: SchedulerAddress = "",
) -> None:
    """Evaluate a run: accuracy, F1, confusion matrix and predictions, beside the majority floor.

    Args:
        run: Run: its name in saved_models/, or its folder.
        data: Another data set. Its results are written to RUN/elsewhere/, where `compare --data` reads them.
            Default: the data set of the run.
        split: Split of the data set: train, dev or test.
        report: Write report.html and MODEL_CARD.md as well.
        scheduler: Address of Dask's scheduler, tcp://HOST:PORT, whose workers evaluate the shards. Empty: this
            machine does.
    """
    from emotion_tf.cli.report import calibrate_if_missing
    from emotion_tf.evaluation.report import print_thresholds
    from emotion_tf.runs.run import Run

    if scheduler:
        check_scheduler(scheduler)
    folder = Run(run)
    folder.check_finished()
    with locks.writer(run):
        if report:
            calibrate_if_missing(folder)
        data = data or Path(folder.config.data)
        page = evaluate_split(folder, data, split, command(), report, scheduler=scheduler)
    if page:
        print_thresholds(folder.calibration)
        say(f"Report: {page}")


def evaluate_split(
    run: Any, data: Path, split: str, command: str, report: bool = False, smoke: bool = False, scheduler: str = ""
) -> Path | None:
    """Evaluates a `Run` on a split of a data set. Writes and prints the results; returns the path of the report.

    With `smoke` it evaluates a few rows, and explains no mistakes. With `scheduler`, a cluster computes the outputs.
    The results on another data set than that of the run are written to a folder of their own.
    """
    from emotion_tf.cli import report as report_page
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.data.pipeline import read_rows
    from emotion_tf.evaluation import figures
    from emotion_tf.evaluation import report as results
    from emotion_tf.progress import stage
    from emotion_tf.training.evaluate import evaluate as evaluate_run
    from emotion_tf.training.history import write_confusion

    dataset = Dataset.open(data)
    dataset.verify()
    history = report_page.read_learning(run) if report else None  # before anything is written
    evaluation = evaluate_run(run, dataset, split, smoke, scheduler)
    numbers = evaluation.metrics
    context = {"command": command, "data": remote.url_of(data), "seed": run.config.train.seed}
    is_own_data = dataset.spec.data_sha256 == run.spec.data_sha256
    out = run.path if is_own_data else other_results(run.path, data)
    for folder in () if is_own_data else (out.parent, out):
        check_no_link(folder)
    out.mkdir(parents=True, exist_ok=True)
    predictions = evaluation.outputs.predicted, evaluation.probabilities
    rows = read_rows(evaluation.rows)
    with stage("writing the predictions"):
        results.write_predictions(out / f"predictions_{split}.csv", rows, run.labels, *predictions)
    part = f", smoke run: {numbers['smoke']}" if smoke else ""
    title = f"{run.path.name}: {split}, weighted F1 {numbers['weighted_f1']:.3f}{part}"
    picture = out / f"confusion_{split}.png"
    figures.plot_confusion(picture, numbers["confusion"], run.labels, title)
    if is_own_data:
        write_confusion(run, split, picture)
    # last: a run is evaluated on the splits that its metrics.json has
    results.write_metrics(out / "metrics.json", split, {**numbers, **context})
    best_accuracy = {} if smoke else dataset.best_accuracy(split)  # that of the whole split
    title = f"{with_urls(str(run.path))} on {split} of {context['data']} (seed {context['seed']}{part})"
    results.print_table(title, numbers, best_accuracy)
    if not is_own_data:
        say(f"Results on another data set than that of the run: {out}")
    return report_page.write(run, dataset, split, evaluation, history, command, out) if report else None
