"""The towers: one row each, from the name of a modality to the function that builds its tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from emotion_tf.config import Config
from emotion_tf.modalities import FACE, TEXT
from emotion_tf.models.face_tower import build_face_tower
from emotion_tf.models.text_tower import build_text_tower
from emotion_tf.models.tower import Tower
from emotion_tf.run_info import DataSpec


class TowerArguments(NamedTuple):
    """Everything that a tower may be built from.

    Attributes:
        config: configuration of the run.
        spec: labels and sizes of the data set.
        embedding_shape: rows and width of the word embedding.
        encoder: path of the TF-Hub SavedModel of the bert branch.
        face_files: paths of the networks of the face branches fer and encoder.
        sequences: whether the fusion reads the towers' sequences.
        frequencies: number of occurrences of each word in the training split.
    """

    config: Config
    spec: DataSpec
    embedding_shape: tuple[int, int]
    encoder: str | None
    face_files: Mapping[str, str] | None
    sequences: bool
    frequencies: Sequence[int]


def _build_text(arguments: TowerArguments) -> Tower:
    config = arguments.config
    return build_text_tower(
        config.text,
        arguments.encoder,
        arguments.embedding_shape,
        config.fusion.modality_dropout,
        arguments.sequences,
        arguments.frequencies,
    )


def _build_face(arguments: TowerArguments) -> Tower:
    config, face_size = arguments.config, arguments.spec.face_size
    return build_face_tower(
        config.face, face_size, config.fusion.modality_dropout, arguments.face_files, arguments.sequences
    )


TOWERS: dict[str, Callable[[TowerArguments], Tower]] = {TEXT: _build_text, FACE: _build_face}
