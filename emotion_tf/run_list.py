"""The runs of `saved_models/`, read without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_runs(folder: Path) -> None:
    """Prints each run with its state, data, towers and weighted F1 on dev and test."""
    runs = sorted(path.parent for path in folder.glob("*/run.json"))
    if not runs:
        print(f"No run in {folder}/. Train one with: python main.py train")
        return
    table = Table("run", "state", "data", "towers", "branches", "seed", "dev weighted F1", "test weighted F1")
    for run in runs:
        config, metrics = _read(run / "config.json"), _read(run / "metrics.json")
        state = "finished" if (run / "model.keras").exists() else "unfinished"
        table.add_row(
            run.name,
            state,
            config.get("data", "?"),
            config.get("towers", "?"),
            _branches(config),
            str(config.get("train", {}).get("seed", "?")),
            *(_score(metrics, split) for split in ("dev", "test")),
        )
    Console(width=None if Console().is_terminal else 160).print(table)


def _branches(config: dict[str, Any]) -> str:
    used = [tower for tower in ("text", "face") if config.get("towers") in (tower, "both")]
    return " + ".join("/".join(config.get(tower, {}).get("branches", [])) for tower in used)


def _score(metrics: dict[str, Any], split: str) -> str:
    return f"{metrics[split]['weighted_f1']:.4f}" if split in metrics else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
