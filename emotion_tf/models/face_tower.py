"""The face tower: concatenated branches that read each crop, then a pooling over the crops of the utterance."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import FaceConfig
from emotion_tf.modalities import FACE
from emotion_tf.models.backbones import build_network
from emotion_tf.models.cnn import build_cnn
from emotion_tf.models.face_layers import FaceCount
from emotion_tf.models.head import build_head, feature_input
from emotion_tf.models.layers import FoldFrames, HasMoreThan, UnfoldFrames
from emotion_tf.models.parameter_groups import PretrainedLayer, initialized_layers
from emotion_tf.models.pooling import TRAINED_POOLINGS, pool
from emotion_tf.models.tower import Tower
from emotion_tf.models.word_branches import BranchOutputs

Tensors = dict[str, keras.KerasTensor]


def build_face_tower(
    config: FaceConfig,
    face_size: int,
    modality_dropout: float = 0.0,
    files: Mapping[str, str] | None = None,
    sequences: bool = False,
) -> Tower:
    """Builds the tower from faces uint8 (B, T, H, W, 3) and face_mask bool (B, T).

    Each branch is a trunk. Its output is the mean or maximum over the crops, or the vectors of the crops if their
    pooling is trained or the fusion reads them. A face is present if a crop is.

    Args:
        config: the tower's configuration.
        face_size: side of the crops in pixels.
        modality_dropout: share of the rows whose face is dropped in training.
        files: paths of the networks of the branches fer and encoder.
        sequences: whether the fusion reads the sequence of the crops.

    Raises:
        UserError: the weights of a network are not available, or the crops or the given layers do not fit it.
    """
    to_sequence = sequences or config.frames in TRAINED_POOLINGS
    trunks: dict[str, keras.Model] = {}
    networks: list[PretrainedLayer] = []
    for branch in config.branches:
        inputs = _inputs(face_size)
        fold = FoldFrames(name=f"{branch}_frames")
        fold.faces = FaceCount()
        frames = fold([inputs["faces"], inputs["face_mask"]])
        if branch == "cnn":
            vectors = build_cnn(frames, config, face_size, fold.faces)
        else:
            path = (files or {}).get(branch)
            vectors, network = build_network(branch, frames, config, face_size, path, fold.faces)
            if config.train_backbone and (config.init or config.is_published(branch)):
                networks.append(PretrainedLayer(network, config.unfreeze_from))
        output = UnfoldFrames(name=f"{branch}_crops")([vectors, inputs["face_mask"]])
        if not to_sequence:
            output = pool(output, inputs["face_mask"], config.frames, f"{branch}_crops")
        trunks[branch] = keras.Model(inputs, output, name=f"{branch}_trunk")
    head = _head(trunks, config, modality_dropout, to_sequence, sequences)
    tower = Tower(trunks, head, "face_mask", name="face_tower")
    if config.init:
        networks = list(initialized_layers(tower.layers_by_name.values(), networks))
    tower.pretrained = tuple(networks) if config.train_tower else ()
    if not config.train_tower:
        tower.trainable = False  # True would also train frozen layers inside
    return tower


def _inputs(face_size: int) -> Tensors:
    return {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in schema.face_inputs(face_size)}


def _head(
    trunks: dict[str, keras.Model], config: FaceConfig, modality_dropout: float, to_sequence: bool, sequences: bool
) -> keras.Model:
    features = {name: feature_input(name, trunk) for name, trunk in trunks.items()}
    mask = keras.Input((None,), dtype="bool", name="face_mask")
    present = HasMoreThan(0, name="face_present")(mask)
    branches = [BranchOutputs(feature, feature, mask) for feature in features.values()]
    if to_sequence:
        parts = list(features.values())
        crops = layers.Concatenate(name="face_crops")(parts) if len(parts) > 1 else parts[0]
        branches = [BranchOutputs(pool(crops, mask, config.frames, FACE), crops, mask)]
    inputs = {**features, "face_mask": mask}
    return build_head(FACE, inputs, branches, present, config.dropout, modality_dropout, sequences)
