"""`ensemble`: several runs that vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from emotion_tf import files, folders
from emotion_tf.command_line import Flag
from emotion_tf.config import rules
from emotion_tf.errors import UserError
from emotion_tf.folders import ENSEMBLE
from emotion_tf.program import command, program
from emotion_tf.quiet import needs_tensorflow

if TYPE_CHECKING:
    import pandas as pd

    from emotion_tf.evaluation.compare import Compared
    from emotion_tf.evaluation.votes import Ballots, Fitted


@needs_tensorflow
def ensemble(
    runs: Positional[tuple[Path, ...]],
    name: str,
    method: str = "",
    weights_from: tuple[Path, ...] = (),
    overwrite: Flag = False,
) -> None:
    """Let runs vote: each method is fitted on dev (or out-of-fold) predictions and shown, one is kept for the export.

    Args:
        runs: two or more folders in saved_models/, evaluated on dev of the same data set.
        name: of the ensemble, a folder in saved_models/.
        method: soft (mean of probabilities), weighted (convex weights), stacking (logistic regression on
            log-probabilities); without it, the best by weighted F1 in cross-validation on what they are fitted on.
        weights_from: out-of-fold predictions to fit on in place of dev: the oof.csv of each run, in the same order.
        overwrite: replace the ensemble of that name.
    """
    from emotion_tf.evaluation import ensemble as results
    from emotion_tf.evaluation.compare import read_run, with_intervals
    from emotion_tf.evaluation.votes import METHODS, best, fit_all
    from emotion_tf.runs import ensemble as folder

    if method:
        rules.one_of("method", method, METHODS)
    members = folder.check_members(runs)
    labels, out = members[0].labels, _out(name, overwrite)
    dev = [read_run(path, "dev") for path in runs]
    given = _out_of_fold(weights_from, len(runs)) or {run.name: run.table for run in dev}
    ballots = results.to_ballots(given, labels)
    print(f"Fitting {', '.join(METHODS)} on {_where(weights_from)}, {len(ballots.label):,} utterances", flush=True)
    fitted = fit_all(ballots)
    chosen = method or best(fitted)
    _show_methods(fitted, ballots, [run.name for run in dev], chosen, bool(method))

    # all is fitted and chosen: only now is test read
    splits = {"dev": dev, **_read_test(runs)}
    voted = {
        split: results.apply(fitted, there, labels, name, cross_validated=split == "dev" and not weights_from)
        for split, there in splits.items()
    }
    about = {
        "data": dev[0].metrics.get("data", members[0].config.data),
        "command": command(),
        "fitted_on": {"predictions": _where(weights_from), "utterances": len(ballots.label)},
        "chosen_by": "--method" if method else "weighted F1 in cross-validation on what was fitted on",
        "cross_validated": {m: {"weighted_f1": f.weighted_f1, "log_loss": f.log_loss} for m, f in fitted.items()},
    }
    kept = {split: with_intervals(methods[chosen]) for split, methods in voted.items()}
    folder.write_ensemble(out, members, fitted[chosen].vote, kept, about, overwrite)
    _show_results(splits, voted, chosen)
    print(f"Ensemble: {out}")


def _where(weights_from: Sequence[Path]) -> str:
    return " ".join(map(str, weights_from)) or "dev"


def _out(name: str, overwrite: bool) -> Path:
    """Where the ensemble goes. Raises UserError when something is there that is not to be replaced."""
    folders.check_name(name)
    out = folders.RUNS / name
    files.check_replaceable(out, ENSEMBLE, "ensemble")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new --name; --overwrite replaces it.")
    return out


def _out_of_fold(paths: Sequence[Path], members: int) -> dict[str, pd.DataFrame]:
    from emotion_tf.evaluation.ensemble import read_table

    if paths and not len(paths) == len(set(paths)) == members:
        raise UserError(
            f"Invalid `--weights-from`. Expected a file for each of the {members} runs, in their order. "
            f"Received: {' '.join(map(str, paths))}."
        )
    return {str(path): read_table(path) for path in paths}


def _read_test(runs: Sequence[Path]) -> dict[str, list[Compared]]:
    from emotion_tf.evaluation.compare import read_run

    missing = [path for path in runs if not (path / "predictions_test.csv").is_file()]
    if missing:
        print(f"Not on test. For that: {program()} evaluate {missing[0]} --split test")
        return {}
    return {"test": [read_run(path, "test") for path in runs]}


def _show_methods(
    fitted: Mapping[str, Fitted], ballots: Ballots, names: Sequence[str], chosen: str, told: bool
) -> None:
    from emotion_tf.evaluation.compare import print_tables
    from emotion_tf.evaluation.ensemble import METHOD_COLUMNS, member_scores, method_rows

    members = member_scores(ballots, names)
    title = "There, the methods in cross-validation by dialogue"
    print_tables([(title, METHOD_COLUMNS, method_rows(fitted, members, chosen))])
    print(f"* kept: {'as --method says' if told else 'the best weighted F1 in cross-validation'}")
    better = max(members, key=lambda name: members[name][0])
    if members[better][0] >= fitted[chosen].weighted_f1:
        print(f"{better} alone is as good there: this vote gains nothing.")


def _show_results(
    splits: Mapping[str, Sequence[Compared]], voted: Mapping[str, Mapping[str, Compared]], chosen: str
) -> None:
    from emotion_tf.evaluation import compare as comparison

    split = "test" if "test" in splits else "dev"
    everyone = [*splits[split], *voted[split].values()]
    print(f"On {split}, {len(everyone[0].table):,} utterances")
    pairs = comparison.compare(everyone, voted[split][chosen].name)
    found = comparison.tables(everyone, pairs)
    comparison.print_tables([found[0], found[2]])
