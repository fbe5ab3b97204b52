"""Model cards (Mitchell 2019, "Model Cards for Model Reporting"): MODEL_CARD.md of a run, an ensemble or an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emotion_tf import files, weights
from emotion_tf.evaluation import before_use, calibration, pages
from emotion_tf.evaluation.votes import METHODS
from emotion_tf.folders import ENSEMBLE
from emotion_tf.modalities import FACE, TEXT

NAME = "MODEL_CARD.md"
SPLITS = ("test", "dev")


def text(run: Path, name: str = "") -> str:
    """Returns the card of a run or an ensemble, with its results if it was evaluated; `name`: if not the folder's."""
    name = name or run.name
    if (run / ENSEMBLE).is_file():
        return _ensemble_card(run, name)
    about, config, metrics = (_read(run / name) for name in ("run.json", "config.json", "metrics.json"))
    towers = config.get("towers", [])
    return pages.render(
        "model_card.md",
        name=name,
        about=about,
        config=config,
        branches={tower: config[tower]["branches"] for tower in towers},
        licences=_licences(config, towers),
        splits=_splits(metrics),
        calibrated=(run / calibration.FILE).exists(),
        before_use=before_use,
    )


def _licences(config: dict[str, Any], towers: list[str]) -> list[str]:
    """Returns a sentence on the source and licence of each pretrained part of the model."""
    text, face = config.get(TEXT, {}), config.get(FACE, {})
    parts = []
    if TEXT in towers and "bert" in text["branches"]:
        parts.append(("The encoder", text["encoder"]))
    if TEXT in towers and text.get("embeddings"):
        parts.append(("The word embeddings", text["embeddings"]))
    if FACE in towers:
        for name in face["branches"]:
            if name in ("fer", "encoder"):
                parts.append(("A face network", "fer" if name == "fer" else face["encoder"]))
            elif name != "cnn" and face["weights"] == "imagenet":
                parts.append((f"The face network {name}", "the ImageNet weights of keras.applications"))
    return [f"{part} is initialised from {name}: {_terms(name)}." for part, name in parts]


def _terms(name: str) -> str:
    row = weights.TABLE.get(name)
    return f"{row.source}; {row.licence}" if row else "licence of its publisher"


def _ensemble_card(path: Path, name: str) -> str:
    about, metrics = _read(path / ENSEMBLE), _read(path / "metrics.json")
    return pages.render(
        "ensemble_card.md",
        name=name,
        about=about,
        method=METHODS[about["vote"]["method"]],
        splits=_splits(metrics),
        before_use=before_use,
    )


def _splits(metrics: dict[str, Any]) -> dict[str, Any]:
    return {split: metrics[split] for split in SPLITS if split in metrics}


def write(run: Path) -> Path:
    """Writes the card into the run's folder, and returns its path."""
    files.write_text(run / NAME, text(run))
    return run / NAME


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
