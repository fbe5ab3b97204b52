"""What a search leaves in tuning/results/NAME/: trials.csv, best.json, summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from emotion_tf import config as configuration
from emotion_tf import files
from emotion_tf.config import Config
from emotion_tf.program import program
from tuning.plan import Plan
from tuning.space import Parameter, declare, draw, label, value_of


def best_trial(oracle: Any) -> Any:
    """The finished trial with the highest objective, of equal ones the earliest; None when all broke."""
    done = [trial for trial in oracle.ended if trial.status == "COMPLETED"]
    return max(done, key=lambda trial: trial.score, default=None)


def values_of(trial: Any, searched: Sequence[Parameter], base: Config) -> dict[str, Any]:
    """What acted in a trial, as it was trained: option -> value as on the command line."""
    return {option: label(value) for option, value in declare(trial.hyperparameters, searched, base).items()}


def rows(oracle: Any, searched: Sequence[Parameter], base: Config) -> pd.DataFrame:
    """A line for each trial that ended, in that order; a hyperparameter that did not act in it is empty."""
    lines = [_row(trial, oracle.reports[trial.trial_id], searched, base) for trial in oracle.ended]
    return pd.DataFrame(lines, dtype=object)  # or whole numbers beside empty cells would get decimals


def _row(trial: Any, report: dict[str, Any], searched: Sequence[Parameter], base: Config) -> dict[str, Any]:
    values, rounds = values_of(trial, searched, base), trial.hyperparameters.values
    return {
        "trial": trial.trial_id,
        "status": "broken" if report["error"] else "finished",
        "dev_weighted_f1": report["score"],
        **{f"fold{i}": score for i, score in enumerate(report["folds"])},
        "epochs": report["epochs"],
        **({"until_epoch": rounds["tuner/epochs"]} if "tuner/epochs" in rounds else {}),
        "seconds": round(report["seconds"], 1),
        "worker": report["worker"],
        **{one.option: values.get(one.option) for one in searched},
        "error": report["error"],
    }


def write(folder: Path, oracle: Any, searched: Sequence[Parameter], base: Config) -> None:
    """Writes trials.csv and best.json as they stand."""
    with files.new_file(folder / "trials.csv") as temporary:
        rows(oracle, searched, base).to_csv(temporary, index=False)
    best = best_trial(oracle)
    if best is not None:
        config = draw(best.hyperparameters, searched, base)
        files.write_text(folder / "best.json", configuration.to_json(config))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json, with which a search is finished."""
    files.write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def summary(oracle: Any, searched: Sequence[Parameter], plan: Plan, floor: dict[str, Any]) -> dict[str, Any]:
    """The best trial beside the floor, and what a reader needs to judge it."""
    best = best_trial(oracle)
    report = oracle.reports[best.trial_id]
    return {
        "objective": objective(plan),
        "best": {
            "trial": best.trial_id,
            "dev_weighted_f1": best.score,
            "folds": report["folds"],
            "hyperparameters": values_of(best, searched, plan.config),
        },
        "majority_floor": floor,
        "trials": len(oracle.ended),
        "broken": sum(1 for one in oracle.reports.values() if one["error"]),
        "algorithm": plan.algorithm,
        "seconds_of_trials": round(sum(one["seconds"] for one in oracle.reports.values()), 1),
        "command": plan.command,
        "data": plan.config.data,
        "data_sha256": plan.data_sha256,
        "seed": plan.config.train.seed,
    }


def objective(plan: Plan) -> str:
    """What is compared."""
    if plan.folds:
        return f"weighted F1 at the best epoch, mean over {plan.folds} folds of train and dev"
    return "weighted F1 on dev at the best epoch"


def print_summary(
    folder: Path, found: dict[str, Any], oracle: Any, searched: Sequence[Parameter], base: Config
) -> None:
    """Prints the best trial beside the configuration that was started from, with its score where a trial is it."""
    console = Console(width=None if Console().is_terminal else 120)
    best, floor = found["best"], found["majority_floor"]
    title = f"{folder}: {found['trials']} trials, {found['broken']} broken (seed {found['seed']})"
    table = Table("", "best trial", "started from", title=title, title_justify="left")
    done = [one for one in oracle.ended if one.status == "COMPLETED" and found["algorithm"] != "hyperband"]
    began = next((one.score for one in done if draw(one.hyperparameters, searched, base) == base), None)
    table.add_row(found["objective"], f"{best['dev_weighted_f1']:.4f}", "" if began is None else f"{began:.4f}")
    if best["folds"]:
        table.add_row("the folds", " ".join(f"{score:.4f}" for score in best["folds"]), "")
    if "trained_again" in found:
        table.add_row("trained again from scratch", f"{found['trained_again']:.4f}", "")
    table.add_row(f"always {floor['label']}", f"{floor['weighted_f1']:.4f}", "")
    for one in searched:
        if one.option in best["hyperparameters"]:
            theirs = label(value_of(base, one.option))
            table.add_row(one.option, _short(best["hyperparameters"][one.option]), _short(theirs))
    console.print(table)
    print("The best of many looks better than it is: it was chosen by what it is judged by. Judge it on test:")
    print(f"  {program()} train --config {folder / 'best.json'}")
    print(f"Results: {folder}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
