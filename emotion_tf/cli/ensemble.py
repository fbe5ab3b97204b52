"""`ensemble`: combines several runs by a vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from emotion_tf import files, folders, interrupts
from emotion_tf.command_line import Flag, RunPaths, opens_models
from emotion_tf.config import rules
from emotion_tf.errors import UserError
from emotion_tf.program import command, program
from emotion_tf.progress import stage
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say
from emotion_tf.wording import plural

if TYPE_CHECKING:
    import pandas as pd

    from emotion_tf.evaluation.compare import RunResults
    from emotion_tf.evaluation.votes import FittedVote
    from emotion_tf.runs.run import Run


@opens_models
@needs_tensorflow
def ensemble(
    runs: RunPaths,
    name: Annotated[str, rules.value("NAME")],
    method: Annotated[str, rules.names(("soft", "weighted", "stacking"))] = "",
    weights_from: Annotated[tuple[Path, ...], rules.value("FILE ...")] = (),
    overwrite: Flag = False,
) -> None:
    """Combine runs by a vote. Each method is fitted on the predictions on dev (or out-of-fold); one is kept.

    Args:
        runs: Two or more runs (names in saved_models/, or folders), evaluated on dev of the same data set.
        name: Name of the ensemble, a folder in saved_models/.
        method: Method: soft (mean of probabilities), weighted (convex weights), both with a temperature, or stacking
            (logistic regression on log-probabilities); by default, the best weighted F1 in cross-validation.
        weights_from: Out-of-fold predictions to fit on instead of dev: the oof.csv of each run, in the same order.
        overwrite: Replace an ensemble of the same name.
    """
    from emotion_tf.evaluation.votes import METHODS
    from emotion_tf.runs import ensemble as folder

    if method:
        rules.one_of("method", method, METHODS)
    members, out = folder.check_members(runs), _out(name, overwrite)
    with interrupts.tell_progress(out, str):
        _combine(runs, members, out, method, weights_from, overwrite)


def _combine(
    runs: Sequence[Path],
    members: Sequence[Run],
    out: Path,
    method: str,
    weights_from: Sequence[Path],
    overwrite: bool,
) -> None:
    """Fits the votes, evaluates them, and writes the ensemble."""
    from emotion_tf.evaluation import ensemble as results
    from emotion_tf.evaluation.compare import read_run, with_intervals
    from emotion_tf.evaluation.votes import METHODS, best_method, fit_all
    from emotion_tf.runs import ensemble as folder

    labels, name = members[0].labels, out.name
    dev = [read_run(path, "dev") for path in runs]
    tables = _out_of_fold(weights_from, len(runs)) or {run.name: run.table for run in dev}
    predictions = results.stack_predictions(tables, labels)
    say(
        f"Fitting {', '.join(METHODS)} on {_where(weights_from)}, {plural(len(predictions.label), 'utterance')}",
        flush=True,
    )
    with stage("fitting the votes"):
        fitted = fit_all(predictions)
    selected = method or best_method(fitted)
    scores = results.member_scores(predictions, tables.values(), labels)
    _print_methods(fitted, dict(zip([run.name for run in dev], scores, strict=True)), selected, bool(method))

    # test is read after everything is fitted and selected
    splits = {"dev": dev, **_read_test(runs)}
    with stage("evaluating the votes"):
        voted = {
            split: results.apply_votes(fitted, there, labels, name, cross_validated=split == "dev" and not weights_from)
            for split, there in splits.items()
        }
    about = {
        "data": dev[0].metrics.get("data", members[0].config.data),
        "command": command(),
        "fitted_on": {"predictions": _where(weights_from), "utterances": len(predictions.label)},
        "selected_by": "--method" if method else "weighted F1 in cross-validation",
        "cross_validated": {
            m: {"weighted_f1": f.weighted_f1, "log_loss": f.log_loss, "expected_calibration_error": f.calibration_error}
            for m, f in fitted.items()
        },
    }
    results_of_vote = {split: with_intervals(methods[selected]) for split, methods in voted.items()}
    folder.write_ensemble(out, members, fitted[selected].vote, results_of_vote, about, overwrite)
    _print_results(splits, voted, selected)
    say(f"Ensemble: {out}")


def _where(weights_from: Sequence[Path]) -> str:
    return " ".join(map(str, weights_from)) or "dev"


def _out(name: str, overwrite: bool) -> Path:
    """Returns the folder of the ensemble. Raises UserError if it exists and may not be replaced."""
    folders.check_name(name)
    out = folders.RUNS / name
    rules.Output.FOLDER.check("--name", out)
    files.check_replaceable(out, folders.ENSEMBLE_KIND)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new --name; --overwrite replaces it.")
    return out


def _out_of_fold(paths: Sequence[Path], members: int) -> dict[str, pd.DataFrame]:
    from emotion_tf.evaluation.ensemble import read_out_of_fold

    if paths and not len(paths) == len(set(paths)) == members:
        raise UserError(
            f"Invalid `--weights-from`. Expected a file for each of the {members} runs, in their order. "
            f"Received: {' '.join(map(str, paths))}."
        )
    return {str(path): read_out_of_fold(path) for path in paths}


def _read_test(runs: Sequence[Path]) -> dict[str, list[RunResults]]:
    from emotion_tf.evaluation.compare import read_run

    missing = [path for path in runs if not (path / "predictions_test.csv").is_file()]
    if missing:
        say(f"No results on test: {missing[0]} was not evaluated. Run: {program()} evaluate {missing[0]} --split test")
        return {}
    return {"test": [read_run(path, "test") for path in runs]}


def _print_methods(
    fitted: Mapping[str, FittedVote], members: Mapping[str, tuple[float, float, float]], selected: str, by_user: bool
) -> None:
    from emotion_tf.evaluation.compare import print_tables
    from emotion_tf.evaluation.ensemble import METHOD_COLUMNS, method_rows

    title = "Methods in cross-validation by dialogue"
    print_tables([(title, METHOD_COLUMNS, method_rows(fitted, members, selected))])
    say(f"* selected by {'--method' if by_user else 'the best weighted F1 in cross-validation'}")
    better = max(members, key=lambda name: members[name][0])
    if members[better][0] >= fitted[selected].weighted_f1:
        say(f"{better} alone is as good: the vote gains nothing.")


def _print_results(
    splits: Mapping[str, Sequence[RunResults]], voted: Mapping[str, Mapping[str, RunResults]], selected: str
) -> None:
    from emotion_tf.evaluation import compare as comparison

    split = "test" if "test" in splits else "dev"
    everyone = [*splits[split], *voted[split].values()]
    say(f"On {split}, {plural(len(everyone[0].table), 'utterance')}")
    pairs = comparison.compare(everyone, voted[split][selected].name)
    runs_table, _, pairs_table = comparison.tables(everyone, pairs)
    comparison.print_tables([runs_table, pairs_table])
