"""The results of a search in tuning/results/NAME/: trials.csv, best.json and summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from emotion_tf import config as configuration
from emotion_tf import files
from emotion_tf.config import Config
from emotion_tf.consoles import table_console
from emotion_tf.evaluation.csv_tables import to_csv
from emotion_tf.program import program
from emotion_tf.terminal import say
from emotion_tf.wording import plural
from tuning.plan import Plan
from tuning.space import Parameter, declare, draw, label, value_of


def best_trial(oracle: Any) -> Any:
    """Returns the finished trial with the highest objective, the earliest of equal ones; None if all broke."""
    finished = [trial for trial in oracle.ended_trials if trial.status == "COMPLETED"]
    return max(finished, key=lambda trial: trial.score, default=None)


def trial_values(trial: Any, searched: Sequence[Parameter], base: Config) -> dict[str, Any]:
    """Returns the active hyperparameters of a trial: option -> value as on the command line."""
    return {option: label(value) for option, value in declare(trial.hyperparameters, searched, base).items()}


def trial_table(oracle: Any, searched: Sequence[Parameter], base: Config) -> pd.DataFrame:
    """Returns a row for each ended trial, in order. The cells of inactive hyperparameters are empty."""
    rows = [_row(trial, oracle.reports[trial.trial_id], searched, base) for trial in oracle.ended_trials]
    return pd.DataFrame(rows, dtype=object)  # integers beside empty cells would become floats


def _row(trial: Any, report: dict[str, Any], searched: Sequence[Parameter], base: Config) -> dict[str, Any]:
    values, parameters = trial_values(trial, searched, base), trial.hyperparameters.values
    return {
        "trial": trial.trial_id,
        "status": "broken" if report["error"] else "finished",
        "dev_weighted_f1": report["score"],
        **{f"fold{i}": score for i, score in enumerate(report["folds"])},
        "epochs": report["epochs"],
        **({"until_epoch": parameters["tuner/epochs"]} if "tuner/epochs" in parameters else {}),
        "seconds": round(report["seconds"], 1),
        "worker": report["worker"],
        **{parameter.option: values.get(parameter.option) for parameter in searched},
        "error": report["error"],
    }


def write_trials(folder: Path, oracle: Any, searched: Sequence[Parameter], base: Config) -> None:
    """Writes trials.csv and best.json with the trials so far."""
    with files.new_file(folder / "trials.csv") as temporary:
        to_csv(trial_table(oracle, searched, base), temporary)
    best = best_trial(oracle)
    if best is not None:
        config = draw(best.hyperparameters, searched, base)
        files.write_text(folder / "best.json", configuration.to_json(config))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json, which marks a search as finished."""
    files.write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def summarise(oracle: Any, searched: Sequence[Parameter], plan: Plan, floor: dict[str, Any]) -> dict[str, Any]:
    """Returns the best trial, the majority floor, and the settings of the search."""
    best = best_trial(oracle)
    report = oracle.reports[best.trial_id]
    return {
        "objective": describe_objective(plan),
        "best": {
            "trial": best.trial_id,
            "dev_weighted_f1": best.score,
            "folds": report["folds"],
            "hyperparameters": trial_values(best, searched, plan.config),
        },
        "majority_floor": floor,
        "trials": len(oracle.ended_trials),
        "broken": sum(1 for report in oracle.reports.values() if report["error"]),
        "algorithm": plan.algorithm,
        "seconds_of_trials": round(sum(report["seconds"] for report in oracle.reports.values()), 1),
        "command": plan.command,
        "data": plan.config.data,
        "data_sha256": plan.data_sha256,
        "seed": plan.config.train.seed,
        "smoke": plan.smoke,
    }


def describe_objective(plan: Plan) -> str:
    """Returns the objective in words."""
    if plan.folds:
        return f"weighted F1 at the best epoch, mean over {plan.folds} folds of train and dev"
    return "weighted F1 on dev at the best epoch"


def print_summary(
    folder: Path, summary: dict[str, Any], oracle: Any, searched: Sequence[Parameter], base: Config
) -> None:
    """Prints the best trial beside the base configuration, whose score is known if it was a trial."""
    console = table_console(120)
    best, floor = summary["best"], summary["majority_floor"]
    title = f"{folder}: {plural(summary['trials'], 'trial')}, {summary['broken']} broken (seed {summary['seed']})"
    title += ", smoke search" * summary["smoke"]
    table = Table("", "best trial", "base configuration", title=title, title_justify="left")
    finished = [trial for trial in oracle.ended_trials if trial.status == "COMPLETED"]
    is_comparable = summary["algorithm"] != "hyperband"  # whose trials have different lengths
    base_trial = next((t for t in finished if is_comparable and draw(t.hyperparameters, searched, base) == base), None)
    base_score = "" if base_trial is None else f"{base_trial.score:.4f}"
    table.add_row(summary["objective"], f"{best['dev_weighted_f1']:.4f}", base_score)
    if best["folds"]:
        table.add_row("of each fold", " ".join(f"{score:.4f}" for score in best["folds"]), "")
    if "trained_again" in summary:
        table.add_row("trained again from scratch", f"{summary['trained_again']:.4f}", "")
    table.add_row(f"always {floor['label']}", f"{floor['weighted_f1']:.4f}", "")
    for option in (parameter.option for parameter in searched):
        if option in best["hyperparameters"]:
            table.add_row(option, _short(best["hyperparameters"][option]), _short(label(value_of(base, option))))
    console.print(table)
    if summary["smoke"]:
        say("Trials of --smoke say nothing about the configurations. best.json has a whole training again:")
    else:
        say("The score is optimistic, since it selected the trial and its epoch. Evaluate the configuration on test:")
    say(f"  {program()} train --config {folder / 'best.json'}")
    say(f"Results: {folder}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
