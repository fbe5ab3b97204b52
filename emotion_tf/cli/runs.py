"""`runs`: lists the runs and ensembles in saved_models/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from emotion_tf import folders
from emotion_tf.consoles import table_console
from emotion_tf.folders import ENSEMBLE
from emotion_tf.program import program
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
    for run in runs:
        metrics = _read(run / "metrics.json")
        about = _ensemble(run) if (run / ENSEMBLE).exists() else _run(run)
        table.add_row(run.name, *about, *(_score(metrics, split) for split in ("dev", "test")))
    table_console(160).print(table)


def _run(run: Path) -> list[str]:
    config = _read(run / "config.json")
    return [
        "finished" if (run / "model.keras").exists() else "unfinished",
        config.get("data", "?"),
        " ".join(config.get("towers", "?")),
        _branches(config),
        str(config.get("train", {}).get("seed", "?")),
    ]


def _ensemble(run: Path) -> list[str]:
    about = _read(run / ENSEMBLE)
    members = about.get("members", [])
    return [
        "finished",
        about.get("data", "?"),
        "ensemble",
        f"{about.get('vote', {}).get('method', '?')} vote of {', '.join(member['name'] for member in members)}",
        " ".join(dict.fromkeys(str(member["seed"]) for member in members)),
    ]


def _branches(config: dict[str, Any]) -> str:
    return " + ".join("/".join(config.get(tower, {}).get("branches", [])) for tower in config.get("towers", []))


def _score(metrics: dict[str, Any], split: str) -> str:
    return f"{metrics[split]['weighted_f1']:.4f}" if split in metrics else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
