"""The model card: MODEL_CARD.md in a run's folder and beside its export (Mitchell 2019, "Model Cards for Model
Reporting")."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emotion_tf import files, weights
from emotion_tf.evaluation import before_use, calibration, pages
from emotion_tf.evaluation.votes import METHODS
from emotion_tf.folders import ENSEMBLE

NAME = "MODEL_CARD.md"
SPLITS = ("test", "dev")


def text(run: Path) -> str:
    """The card, from what lies in the folder of a run or an ensemble: what it is and, once evaluated, its numbers."""
    if (run / ENSEMBLE).is_file():
        return _of_ensemble(run)
    about, config, metrics = (_read(run / name) for name in ("run.json", "config.json", "metrics.json"))
    towers = config.get("towers", [])
    return pages.render(
        "model_card.md",
        name=run.name,
        about=about,
        config=config,
        branches={tower: config[tower]["branches"] for tower in towers},
        licences=_licences(config, towers),
        splits=_splits(metrics),
        calibrated=(run / calibration.FILE).exists(),
        before_use=before_use,
    )


def _licences(config: dict[str, Any], towers: list[str]) -> list[str]:
    """What of the model was trained by others, and on which terms they gave it away."""
    text, face = config.get("text", {}), config.get("face", {})
    found = []
    if "text" in towers and "bert" in text["branches"]:
        found.append(("The encoder", text["encoder"]))
    if "text" in towers and text.get("embeddings"):
        found.append(("The word embeddings", text["embeddings"]))
    if "face" in towers:
        for name in face["branches"]:
            if name in ("fer", "encoder"):
                found.append(("A face network", "fer" if name == "fer" else face["encoder"]))
            elif name != "cnn" and face["weights"] == "imagenet":
                found.append((f"The face network {name}", "its ImageNet weights in keras.applications"))
    return [f"{what} began as {name}: {_terms(name)}." for what, name in found]


def _terms(name: str) -> str:
    row = weights.TABLE.get(name)
    return f"{row.source}; {row.licence}" if row else "on the terms of who published it"


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
