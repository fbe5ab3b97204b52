"""`runs`: lists the runs and ensembles in saved_models/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from emotion_tf import folders, provenance
from emotion_tf.config import Config, is_smoke, read_config
from emotion_tf.consoles import table_console
from emotion_tf.errors import UserError
from emotion_tf.evaluation.results import Metrics, read_cross_validation, read_metrics
from emotion_tf.evaluation.vote import read_ensemble_info
from emotion_tf.folders import ENSEMBLE
from emotion_tf.program import program
from emotion_tf.run_info import RunInfo, read_run_info
from emotion_tf.terminal import say
from emotion_tf.wording import plural

CROSSVAL = "crossval.json"
SCORES = ("dev weighted F1", "test weighted F1")
COLUMNS = ("run", "state", "date", "minutes", "data", "towers", "branches", "fusion", "seed", *SCORES)


def runs() -> None:
    """List the runs, ensembles and cross-validations in saved_models/ with their weighted F1."""
    print_runs(folders.RUNS)


def print_runs(folder: Path) -> None:
    """Prints each run, ensemble and cross-validation with its state, data, model and weighted F1 on dev and test."""
    folders.restore_replaced(folder)
    names = ("run.json", ENSEMBLE, CROSSVAL)
    runs = sorted(run for name in names for run in folders.subfolders_with(name, folder))
    if not runs:
        say(f"No run in {folder}/. Train one with: {program()} train")
        return
    table = Table(*COLUMNS)
    problems = []
    for run in runs:
        try:
            cells = _cells(run)
            table.add_row(run.name, *(cells.get(column, "") for column in COLUMNS[1:]))
        except UserError as error:
            table.add_row(run.name, "not readable")
            problems.append(str(error))
    table_console(200).print(table)
    for problem in problems:
        say(f"not readable: {problem}")


def _cells(run: Path) -> dict[str, str]:
    """Returns column -> cell of a folder. Raises UserError if one of its documents is invalid."""
    if (run / CROSSVAL).exists():
        return _cross_validation(run)
    cells = _ensemble(run) if (run / ENSEMBLE).exists() else _run(run)
    metrics = read_metrics(run) if (run / "metrics.json").exists() else {}
    return cells | {f"{split} weighted F1": _score(metrics[split]) for split in ("dev", "test") if split in metrics}


def _score(metrics: Metrics) -> str:
    rows = f" ({plural(metrics['utterances'], 'row')})" if "smoke" in metrics else ""
    return f"{metrics['weighted_f1']:.4f}{rows}"


def _run(run: Path) -> dict[str, str]:
    info, config = read_run_info(run), read_config(run / "config.json")
    state = "finished" if (run / "model.keras").exists() else "unfinished"
    smoke = " (smoke)" if is_smoke(config) else ""
    return {"state": state + smoke, "date": info.date, "minutes": _minutes([info])} | _model(config)


def _cross_validation(run: Path) -> dict[str, str]:
    results = read_cross_validation(run).get("pooled", []) if (run / "metrics.json").exists() else []
    scores, config = [result["weighted_f1"] for result in results], read_config(run / "config.json")
    is_short = is_smoke(config)
    smoke = " (smoke)" * is_short
    rows = f", {plural(results[0]['utterances'], 'row')}" if is_short and results else ""
    return {
        "state": f"{'finished' if scores else 'unfinished'} cross-validation{smoke}",
        "date": _date(run / CROSSVAL),
        "minutes": _minutes([read_run_info(path.parent) for path in sorted(run.glob("*/run.json"))]),
        "dev weighted F1": f"{sum(scores) / len(scores):.4f} (out-of-fold{rows})" if scores else "",
    } | _model(config)


def _model(config: Config) -> dict[str, str]:
    return {
        "data": config.data,
        "towers": " ".join(config.towers),
        "branches": " + ".join("/".join(getattr(config, tower).branches) for tower in config.towers),
        "fusion": config.fusion.kind if len(config.towers) > 1 else "",
        "seed": str(config.train.seed),
    }


def _ensemble(run: Path) -> dict[str, str]:
    info = read_ensemble_info(run)
    return {
        "state": "finished",
        "date": _date(run / ENSEMBLE),
        "data": info.data,
        "towers": "ensemble",
        "branches": f"{info.vote.method} vote of {', '.join(member.name for member in info.members)}",
        "seed": " ".join(dict.fromkeys(str(member.seed) for member in info.members)),
    }


def _date(path: Path) -> str:
    """Returns the date of a file; its document has none."""
    return provenance.format_time(path.stat().st_mtime)


def _minutes(runs: Sequence[RunInfo]) -> str:
    """Returns the duration of the finished trainings of some runs; empty if there is none."""
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return f"{sum(seconds) / 60:.1f}" if seconds else ""
