"""Attributions of the pixels of face crops."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.interpret.batch import FACE, TEXT, Batch, Scorer
from emotion_tf.interpret.explanation import FaceMap
from emotion_tf.interpret.gradients import Line, class_activation_map, resize_maps
from emotion_tf.interpret.integrated_gradients import MAX_STEPS, Path, integrate
from emotion_tf.models.activations import layers_by_name
from emotion_tf.models.layers import FoldFrames
from emotion_tf.models.pooling import AttentionWeights
from emotion_tf.models.tower import Tower

PATH_ROWS = 32
FINE = 8
BLUR = 8
"""The baseline is a blurred crop, with a sigma of side / BLUR pixels: it keeps the light and loses the expression."""


def real_crops(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Returns the crops of a batch without padding, uint8 (M, H, W, 3), and the utterance of each, int (M,)."""
    mask = np.asarray(batch.inputs["face_mask"])
    return np.asarray(batch.inputs["faces"])[mask], np.nonzero(mask)[0]


def blur(crops: np.ndarray) -> np.ndarray:
    """Returns blurred crops, float32 (M, H, W, 3), as the baseline.

    Fong 2017, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", section 4.1; Sturmfels 2020
    compares baselines.
    """
    sigma = crops.shape[1] / BLUR
    blurred = [cv2.GaussianBlur(c.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for c in crops]
    return np.stack(blurred) if blurred else crops.astype(np.float32)


def face_maps(batch: Batch, max_steps: int = MAX_STEPS) -> list[list[FaceMap]]:
    """Returns the maps of each utterance, the headline first; none without a crop.

    Args:
        batch: the utterances; its watched layers are those of the class activation maps.
        max_steps: maximum number of steps of integrated gradients.
    """
    if FACE not in batch.towers or not any(utterance.faces for utterance in batch.utterances):
        return [[] for _ in batch.utterances]
    cams = [cam(batch, name) for name in batch.features for cam in (hires_cam, grad_cam)]
    methods = [*cams, pixel_gradients(batch, max_steps), *attention_maps(batch)]
    return [[maps[n] for maps in methods] if row.faces else [] for n, row in enumerate(batch.utterances)]


def select_cam_layers(scorer: Scorer, layer: str = "") -> list[str]:
    """Returns the layers of the face tower for class activation maps: `layer`, or the last map of each branch.

    Raises:
        UserError: the run has no face tower, the layer does not exist, or it returns no map.
    """
    if FACE not in scorer.modalities:
        if layer:
            raise UserError(
                f"Invalid `--layer`. Expected none: {scorer.run.path} has no face tower. Received: {layer!r}."
            )
        return []
    tower = scorer.model.towers[FACE]
    if not layer:
        return default_cam_layers(tower)
    if not _has_map(tower.find_layer(layer)):
        raise UserError(
            f"Invalid `--layer`. Expected a layer of the face tower that returns a map of each crop, such as "
            f"{', '.join(default_cam_layers(tower)) or 'none in this tower'}. Received: {layer!r}."
        )
    return [layer]


def default_cam_layers(tower: Tower) -> list[str]:
    """Returns a layer of each branch for class activation maps.

    In a pretrained network it is the last layer that returns a map, except pooling. In the small cnn it is the last
    activation whose map is fine enough to tell a mouth from a nose. A SavedModel has no accessible layers.
    """
    layers = []
    for trunk in tower.trunks.values():
        networks = [layer for layer in trunk.layers if isinstance(layer, keras.Model)]
        for network in networks:
            maps = [name for name, layer in layers_by_name(network).items() if _has_map(layer)]
            maps = [name for name in maps if "ooling" not in type(layers_by_name(network)[name]).__name__]
            layers += [f"{network.name}/{maps[-1]}"] if maps else []
        if not networks:
            activations = [layer for layer in trunk.layers if isinstance(layer, keras.layers.Activation)]
            fine = [layer for layer in activations if layer.output.shape[1] >= FINE] or activations[:1]
            layers += [layer.name for layer in fine[-1:]]
    return layers


def _has_map(layer: keras.layers.Layer) -> bool:
    shape: tuple[int | None, ...] = getattr(getattr(layer, "output", None), "shape", ())
    return len(shape) == 4 and not isinstance(layer, keras.layers.InputLayer) and shape[1:3] != (1, 1)


def grad_cam(batch: Batch, name: str) -> list[FaceMap]:
    """Returns Grad-CAM (Selvaraju 2017, equations 1 and 2) at a watched layer of the face tower."""
    return _by_utterance(batch, f"grad_cam {name}", f"Grad-CAM at {name}", class_activation_map(*batch.features[name]))


def hires_cam(batch: Batch, name: str) -> list[FaceMap]:
    """Returns HiResCAM (Draelos 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations", equation 5).

    Grad-CAM averages the gradient over the positions. This loses the location unless the layers above average too; the
    small cnn keeps a grid of 2 x 2 instead. With global average pooling both maps are equal.
    """
    return _by_utterance(
        batch, f"hires_cam {name}", f"HiResCAM at {name}", class_activation_map(*batch.features[name], pool=False)
    )


def drop_duplicates(maps: Sequence[FaceMap]) -> list[FaceMap]:
    """Drops each HiResCAM that equals the Grad-CAM at the same layer, up to scale."""
    scaled = {face_map.key: face_map.values / max(float(face_map.values.max()), 1e-12) for face_map in maps}
    twin = {key: key.replace("hires_cam", "grad_cam") for key in scaled if key.startswith("hires_cam")}
    equal = {key for key, other in twin.items() if np.allclose(scaled[key], scaled[other], atol=0.01)}
    return [face_map for face_map in maps if face_map.key not in equal]


def pixel_gradients(batch: Batch, max_steps: int = MAX_STEPS) -> list[FaceMap]:
    """Returns integrated gradients at the pixels from a blurred baseline, summed over the colours."""
    crops, owner = real_crops(batch)
    values, baseline = crops.astype(np.float32), blur(crops)
    lines = [Line(layer, values, baseline) for layer in batch.towers[FACE].layers_of(FoldFrames)]  # one per branch
    integral = integrate(Path(batch, lines, [owner] * len(lines), (TEXT,), PATH_ROWS), max_steps)
    pixels = np.sum(integral.values, axis=0).sum(axis=-1)
    maps = _by_utterance(batch, "gradients", "integrated gradients at the pixels, from a blurred face", pixels, True)
    return [FaceMap(m.key, m.title, m.values, True, integral.completeness(n)) for n, m in enumerate(maps)]


def attention_maps(batch: Batch) -> list[list[FaceMap]]:
    """Returns the weights of attention pooling over the positions of each crop, a list for each layer."""
    maps = []
    for name, layer in batch.layers.items():
        if not isinstance(layer, AttentionWeights):
            continue
        weights = np.asarray(tf.cast(batch.activations[name][0], tf.float32))
        side = round((weights.size / max(len(weights), 1)) ** 0.5)
        of_crops = name not in ("bert_attention", "face_attention")
        if of_crops and weights.size == len(weights) * side**2 > len(weights):
            cam = weights.reshape(-1, side, side)
            maps.append(_by_utterance(batch, f"attention {name}", f"weights of the attention pooling {name}", cam))
    return maps


def crop_weights(batch: Batch) -> list[np.ndarray | None]:
    """Returns the attention weights of the crops of each utterance, (T,); None if the tower has no such attention."""
    if "face_attention" not in batch.layers:
        return [None for _ in batch.utterances]
    weights = np.asarray(tf.cast(batch.activations["face_attention"][0], tf.float32))
    mask = np.asarray(batch.inputs["face_mask"])
    return [weights[n][mask[n]] for n in range(len(mask))]


def _by_utterance(
    batch: Batch, key: str, title: str, values: np.ndarray | tf.Tensor, signed: bool = False
) -> list[FaceMap]:
    """Splits the maps (M, h, w) of all crops by utterance, and resizes them to the size of the crops."""
    _, owner = real_crops(batch)
    resized = np.asarray(resize_maps(values[: len(owner)], batch.scorer.run.spec.face_size))
    return [FaceMap(key, title, resized[owner == n], signed) for n in range(len(batch.utterances))]
