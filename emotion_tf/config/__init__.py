"""The configuration: frozen dataclasses, from which the options of `train` and the keys of `config.json` derive.

Each section has its module, with the names that its options take and their descriptions. `CHOICES` collects them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from emotion_tf.config import crops, face, fusion, text, train
from emotion_tf.config.config import Config
from emotion_tf.config.crops import CropConfig
from emotion_tf.config.face import FaceConfig
from emotion_tf.config.fusion import FusionConfig
from emotion_tf.config.presets import PRESETS, SMOKE_ROWS, is_smoke, preset, smoke
from emotion_tf.config.text import TextConfig
from emotion_tf.config.train import TrainConfig
from emotion_tf.modalities import MODALITIES

__all__ = [
    "CHOICES",
    "PRESETS",
    "SMOKE_ROWS",
    "Config",
    "CropConfig",
    "FaceConfig",
    "FusionConfig",
    "TextConfig",
    "TrainConfig",
    "is_smoke",
    "preset",
    "read_config",
    "smoke",
    "to_json",
]

CHOICES: Mapping[str, Mapping[str, str]] = {
    "towers": {name: row.about for name, row in MODALITIES.items()},
    "text.branches": text.BRANCHES,
    "text.pooling": text.POOLINGS,
    "face.branches": face.BRANCHES,
    "face.weights": face.WEIGHTS,
    "face.pooling": face.POOLINGS,
    "face.encoder_range": face.RANGES,
    "face.frames": face.FRAMES,
    "fusion.kind": fusion.KINDS,
    **{f"train.{name}": table for name, table in train.NAMES.items()},
    "faces.detector": crops.DETECTORS,
    "faces.policy": crops.POLICIES,
}
"""Options that take names: option -> name -> description."""


def to_json(config: Config) -> str:
    """Returns the text of `config.json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def read_config(path: Path) -> Config:
    """Reads a `config.json`. Raises UserError for a missing file, an unknown key or an invalid value."""
    from emotion_tf import documents  # pydantic takes 0.15 s, which `--help` does not need

    return documents.read(
        path,
        Config,
        "Expected the config.json of a run in saved_models/.",
        missing=f"No configuration at {path}. Expected the config.json of a run in saved_models/.",
        defaults=True,
    )
