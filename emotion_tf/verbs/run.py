"""What is done with trained runs: `evaluate`, `compare`, `export`, `features`; `runs` and `options`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from emotion_tf import cli
from emotion_tf.errors import UserError
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.run_list import other_results


@needs_tensorflow
def evaluate(run: Positional[Path], data: Path | None = None, split: str = "test", report: bool = False) -> None:
    """Accuracy, F1, confusion matrix and predictions of a run, beside the majority floor.

    Args:
        run: a folder in saved_models/.
        data: another data set than the run's; the results go into RUN/elsewhere/NAME/, and `compare --data` reads them.
        split: train, dev or test.
        report: write report.html and MODEL_CARD.md, too.
    """
    from emotion_tf.training.run_folder import RunFolder
    from emotion_tf.verbs.report import calibrate_if_new

    folder = RunFolder(run)
    if report:
        calibrate_if_new(folder)
    command = shlex.join(["main.py", *sys.argv[1:]])
    page = evaluate_split(folder, data or Path(folder.config.data), split, command, report)
    if page:
        print(f"Report: {page}")


def evaluate_split(run: Any, data: Path, split: str, command: str, report: bool = False) -> Path | None:
    """Evaluates a `RunFolder` on a split of a data set; writes and prints what came out; returns its report's path.

    What is of another data set than the run's goes into a folder of its own.
    """
    from emotion_tf.data import records, verify
    from emotion_tf.evaluation import report as results
    from emotion_tf.training.evaluate import evaluate as evaluate_run
    from emotion_tf.verbs import report as report_page

    info = records.read_info(data)
    verify.verify_shards(data, info)
    found = evaluate_run(run, data, info, split)
    numbers = found.numbers
    context = {"command": command, "data": str(data), "seed": run.config.train.seed}
    own = records.data_spec(info).data_sha256 == run.spec.data_sha256
    out = run.path if own else other_results(run.path, data)
    out.mkdir(parents=True, exist_ok=True)
    results.write_metrics(out / "metrics.json", split, {**numbers, **context})
    results.write_predictions(out / f"predictions_{split}.csv", found.rows, run.labels, found.probabilities)
    title = f"{run.path.name}: {split}, weighted F1 {numbers['weighted_f1']:.3f}"
    results.plot_confusion(out / f"confusion_{split}.png", numbers["confusion"], run.labels, title)
    results.print_table(
        f"{run.path} on {split} of {data} (seed {context['seed']})",
        numbers,
        info.get("demo", {}).get("best_accuracy", {}).get(split),
    )
    if not own:
        print(f"Not the run's own data set: its results there are in {out}")
    return report_page.write(run, data, info, split, found, command, out) if report else None


@needs_tensorflow
def export(run: Positional[Path], version: int | None = None, keep: int = 0, verify: bool = False) -> None:
    """Export a run or an ensemble as a SavedModel for TF Serving: serving/<next version>/ in its folder.

    Args:
        run: a folder in saved_models/; with --verify an export, RUN/serving/<version>.
        version: its number; by default the next free one.
        keep: how many versions stay, the newest and this one; 0: all.
        verify: export nothing: check that an export still keeps to the contract (docs/serving.md).
    """
    from emotion_tf.serving.export import export as export_run
    from emotion_tf.serving.verify import verify as verify_export
    from emotion_tf.training.ensemble import open_folder

    if verify:
        if version is not None or keep:
            raise UserError("--verify checks an export that is there. Expected no --version and no --keep beside it.")
        print(f"{run}: {verify_export(run)}")
    else:
        print(f"Exported: {export_run(open_folder(run), version, keep)}")


@needs_tensorflow
def features(
    run: Positional[Path],
    data: Positional[Path],
    out: Path,
    tower: str = "fusion",
    layer: str = "",
    split: str = "test",
    overwrite: bool = False,
) -> None:
    """Write the features of a tower or of any of its layers, with the ids of their utterances, as .npz.

    Args:
        run: a folder in saved_models/.
        data: a folder in tfrecords/.
        out: the file, NAME.npz.
        tower: text, face, or fusion (the layers that join them).
        layer: a layer of the tower, LAYER/INNER inside a network; empty: the tower's output. A wrong one lists all.
        split: train, dev or test.
        overwrite: replace the file that is there.
    """
    from emotion_tf.data import records, verify
    from emotion_tf.serving.features import write_features
    from emotion_tf.training.evaluate import check_data
    from emotion_tf.training.run_folder import RunFolder

    if out.suffix != ".npz":
        raise UserError(f"Invalid `--out`. Expected a name that ends in .npz. Received: {out}.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new name; --overwrite replaces it.")
    folder, info = RunFolder(run), records.read_info(data)
    verify.verify_shards(data, info)
    check_data(folder, data, records.data_spec(info))
    shape = write_features(folder, data, info, split, tower, layer, out)
    print(f"Features {' x '.join(map(str, shape))} of {split}: {out}")


def compare(
    runs: Positional[tuple[Path, ...]], split: str = "test", data: Path | None = None, out: Path | None = None
) -> None:
    """Set runs side by side: what differs in them, metrics with intervals, and which differences are chance.

    Args:
        runs: two or more folders in saved_models/, evaluated on the same utterances.
        split: train, dev or test.
        data: another data set than the runs', on which they were evaluated with --data.
        out: HTML page to write as well.
    """
    from emotion_tf.evaluation import compare as comparison

    found = [comparison.read_run(path, split, data) for path in runs]
    pairs = comparison.compare(found)
    title = f"{len(found)} runs on {split}{f' of {data}' if data else ''}, {len(found[0].table)} utterances"
    shown = comparison.tables(found, pairs)
    print(title)
    comparison.print_tables(shown)
    if out is not None:
        made = ("Made by", comparison.MADE_COLUMNS, comparison.made_rows(found))
        comparison.write_page(out, [*shown, made], title)
        print(f"Page: {out}")


def runs() -> None:
    """List the runs in saved_models/ with their scores."""
    from emotion_tf.run_list import print_runs

    print_runs(cli.RUNS)


def options(markdown: bool = False) -> None:
    """Every option of the configuration with its default, and the names that it takes.

    Args:
        markdown: as the page docs/options.md.
    """
    from emotion_tf import option_list

    print(option_list.markdown(), end="") if markdown else option_list.print_options()
