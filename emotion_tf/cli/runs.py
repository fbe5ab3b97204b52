"""`runs`: lists the runs and ensembles in saved_models/."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from emotion_tf import folders
from emotion_tf.config import read_config
from emotion_tf.consoles import table_console
from emotion_tf.errors import UserError
from emotion_tf.evaluation.results import read_metrics
from emotion_tf.evaluation.vote import read_ensemble_info
from emotion_tf.folders import ENSEMBLE
from emotion_tf.program import program
from emotion_tf.run_info import read_run_info
from emotion_tf.terminal import say


def runs() -> None:
    """List the runs and ensembles in saved_models/ with their weighted F1."""
    print_runs(folders.RUNS)


def print_runs(folder: Path) -> None:
    """Prints each run and ensemble with its state, data, towers and weighted F1 on dev and test."""
    folders.restore_replaced(folder)
    runs = sorted(run for name in ("run.json", ENSEMBLE) for run in folders.subfolders_with(name, folder))
    if not runs:
        say(f"No run in {folder}/. Train one with: {program()} train")
        return
    table = Table("run", "state", "data", "towers", "branches", "seed", "dev weighted F1", "test weighted F1")
    problems = []
    for run in runs:
        try:
            table.add_row(run.name, *_cells(run))
        except UserError as error:
            table.add_row(run.name, "not readable")
            problems.append(str(error))
    table_console(160).print(table)
    for problem in problems:
        say(f"not readable: {problem}")


def _cells(run: Path) -> list[str]:
    """Returns the cells of a run or an ensemble. Raises UserError if one of its documents is invalid."""
    cells = _ensemble(run) if (run / ENSEMBLE).exists() else _run(run)
    metrics = read_metrics(run) if (run / "metrics.json").exists() else {}
    return cells + [f"{metrics[split]['weighted_f1']:.4f}" if split in metrics else "" for split in ("dev", "test")]


def _run(run: Path) -> list[str]:
    read_run_info(run)
    config = read_config(run / "config.json")
    return [
        "finished" if (run / "model.keras").exists() else "unfinished",
        config.data,
        " ".join(config.towers),
        " + ".join("/".join(getattr(config, tower).branches) for tower in config.towers),
        str(config.train.seed),
    ]


def _ensemble(run: Path) -> list[str]:
    info = read_ensemble_info(run)
    return [
        "finished",
        info.data,
        "ensemble",
        f"{info.vote.method} vote of {', '.join(member.name for member in info.members)}",
        " ".join(dict.fromkeys(str(member.seed) for member in info.members)),
    ]
