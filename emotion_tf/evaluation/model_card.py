"""The model card: MODEL_CARD.md in a run's folder and beside its export (Mitchell 2019, "Model Cards for Model
Reporting")."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emotion_tf import files
from emotion_tf.evaluation import before_use, choice, pages
from emotion_tf.evaluation.votes import METHODS
from emotion_tf.run_list import ENSEMBLE

NAME = "MODEL_CARD.md"
SPLITS = ("test", "dev")


def text(run: Path) -> str:
    """The card, from what lies in the folder of a run or an ensemble: what it is and, once evaluated, its numbers."""
    if (run / ENSEMBLE).is_file():
        return _of_ensemble(run)
    about, config, metrics = (_read(run / name) for name in ("run.json", "config.json", "metrics.json"))
    towers = [tower for tower in ("text", "face") if config.get("towers") in (tower, "both")]
    return pages.render(
        "model_card.md",
        name=run.name,
        about=about,
        config=config,
        branches={tower: config[tower]["branches"] for tower in towers},
        splits=_splits(metrics),
        calibrated=(run / choice.NAME).exists(),
        before_use=before_use,
    )


def _of_ensemble(path: Path) -> str:
    about, metrics = _read(path / ENSEMBLE), _read(path / "metrics.json")
    return pages.render(
        "ensemble_card.md",
        name=path.name,
        about=about,
        method=METHODS[about["vote"]["method"]],
        splits=_splits(metrics),
        before_use=before_use,
    )


def _splits(metrics: dict[str, Any]) -> dict[str, Any]:
    return {split: metrics[split] for split in SPLITS if split in metrics}


def write(run: Path) -> Path:
    """Writes the card into the run's folder; returns its path."""
    files.write_text(run / NAME, text(run))
    return run / NAME


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
