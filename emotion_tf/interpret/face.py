"""What the pixels of the face crops do for a class."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.interpret.batch import FACE, TEXT, Batch, Scorer
from emotion_tf.interpret.gradients import Line, class_activation_map, resize_maps
from emotion_tf.interpret.integrated_gradients import MAX_STEPS, Path, integrate
from emotion_tf.interpret.kinds import Completeness, FaceMap
from emotion_tf.models.activations import layers_by_name
from emotion_tf.models.layers import FoldFrames
from emotion_tf.models.pooling import AttentionWeights
from emotion_tf.models.tower import Tower

PATH_ROWS = 32
FINE = 8
BLUR = 8
"""A baseline is blurred by the crop's side divided by this, in pixels: no expression is left, the light is."""


def crops_of(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """All real crops of a batch, uint8 (M, H, W, 3), and the utterance of each, int (M,)."""
    mask = np.asarray(batch.inputs["face_mask"])
    return np.asarray(batch.inputs["faces"])[mask], np.nonzero(mask)[0]


def blurred(crops: np.ndarray) -> np.ndarray:
    """Crops uint8 (M, H, W, 3) without what a face shows, float32: the baseline (Fong 2017, "Interpretable Explanations
    of Black Boxes by Meaningful Perturbation", section 4.1; Sturmfels 2020 compares baselines)."""
    sigma = crops.shape[1] / BLUR
    made = [cv2.GaussianBlur(one.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for one in crops]
    return np.stack(made) if made else crops.astype(np.float32)


def maps(batch: Batch, max_steps: int = MAX_STEPS) -> list[list[FaceMap]]:
    """The maps of each utterance, the headline first; of one without a crop none.

    Args:
        batch: the utterances; its watched layers are those of Grad-CAM.
        max_steps: of integrated gradients.
    """
    made: list[list[FaceMap]] = [[] for _ in batch.utterances]
    if FACE not in batch.towers or not any(one.faces for one in batch.utterances):
        return made
    cams = [cam(batch, name) for name in batch.features for cam in (hires_cam, grad_cam)]
    found = [*cams, pixel_gradients(batch, max_steps), *attention_maps(batch)]
    return [[each[n] for each in found] if one.faces else [] for n, one in enumerate(batch.utterances)]


def layers_to_watch(scorer: Scorer, layer: str = "") -> list[str]:
    """The layers of a run's face tower for Grad-CAM: `layer`, or the last map of each branch.

    Raises:
        UserError: the run has no face tower, or no such layer in it, or the layer gives no map.
    """
    if FACE not in scorer.modalities:
        if layer:
            raise UserError(
                f"Invalid `--layer`. Expected none: {scorer.run.path} has no face tower. Received: {layer!r}."
            )
        return []
    tower = scorer.model.towers[FACE]
    if not layer:
        return cam_layers(tower)
    if not _has_map(tower.find_layer(layer)):
        raise UserError(
            f"Invalid `--layer`. Expected a layer of the face tower that gives a map of each crop, as "
            f"{', '.join(cam_layers(tower)) or 'none of this tower does'}. Received: {layer!r}."
        )
    return [layer]


def cam_layers(tower: Tower) -> list[str]:
    """Returns the layer of each branch for Grad-CAM: of a network the last map that is no pooling; of the small cnn the
    last activation whose map is fine enough to tell a mouth from a nose. A SavedModel has no layers to name."""
    found = []
    for trunk in tower.trunks.values():
        networks = [layer for layer in trunk.layers if isinstance(layer, keras.Model)]
        for network in networks:
            maps = [name for name, layer in layers_by_name(network).items() if _has_map(layer)]
            maps = [name for name in maps if "ooling" not in type(layers_by_name(network)[name]).__name__]
            found += [f"{network.name}/{maps[-1]}"] if maps else []
        if not networks:
            activations = [layer for layer in trunk.layers if isinstance(layer, keras.layers.Activation)]
            fine = [layer for layer in activations if layer.output.shape[1] >= FINE] or activations[:1]
            found += [layer.name for layer in fine[-1:]]
    return found


def _has_map(layer: keras.layers.Layer) -> bool:
    shape: tuple[int | None, ...] = getattr(getattr(layer, "output", None), "shape", ())
    return len(shape) == 4 and not isinstance(layer, keras.layers.InputLayer) and shape[1:3] != (1, 1)


def grad_cam(batch: Batch, name: str) -> list[FaceMap]:
    """Grad-CAM (Selvaraju 2017, equations 1 and 2) at a watched layer of the face tower."""
    return _of_each(batch, f"grad_cam {name}", f"Grad-CAM at {name}", class_activation_map(*batch.features[name]))


def hires_cam(batch: Batch, name: str) -> list[FaceMap]:
    """HiResCAM (Draelos 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations", equation 5) at the same.

    Grad-CAM takes the mean of the gradient over the positions. That loses the place where what lies above the layer
    does not do so too, as the small cnn, which keeps a grid of 2 x 2. Where it does, both are the same.
    """
    return _of_each(
        batch, f"hires_cam {name}", f"HiResCAM at {name}", class_activation_map(*batch.features[name], pool=False)
    )


def distinct(maps: Sequence[FaceMap]) -> list[FaceMap]:
    """Without each HiResCAM that is, but for its scale, the same map as the Grad-CAM beside it."""
    scaled = {one.key: one.values / max(float(one.values.max()), 1e-12) for one in maps}
    twin = {key: key.replace("hires_cam", "grad_cam") for key in scaled if key.startswith("hires_cam")}
    same = {key for key, other in twin.items() if np.allclose(scaled[key], scaled[other], atol=0.01)}
    return [one for one in maps if one.key not in same]


def pixel_gradients(batch: Batch, max_steps: int = MAX_STEPS) -> list[FaceMap]:
    """Integrated gradients at the pixels, from blurred crops: sums over the colours."""
    crops, owner = crops_of(batch)
    values, baseline = crops.astype(np.float32), blurred(crops)
    lines = [Line(layer, values, baseline) for layer in batch.towers[FACE].layers_of(FoldFrames)]  # one per branch
    found = integrate(Path(batch, lines, [owner] * len(lines), (TEXT,), PATH_ROWS), max_steps)
    pixels = np.sum(found.values, axis=0).sum(axis=-1)
    made = _of_each(batch, "gradients", "integrated gradients at the pixels, from a blurred face", pixels, True)
    told = [
        Completeness(float(t), float(d), int(s), bool(c))
        for t, d, s, c in zip(found.total, found.delta, found.steps, found.complete, strict=True)
    ]
    return [FaceMap(m.key, m.title, m.values, True, c) for m, c in zip(made, told, strict=True)]


def attention_maps(batch: Batch) -> list[list[FaceMap]]:
    """The weights that a network's attention pooling gave the positions of each crop, one list a layer."""
    found = []
    for name, layer in batch.layers.items():
        if not isinstance(layer, AttentionWeights):
            continue
        weights = np.asarray(tf.cast(batch.activations[name][0], tf.float32))
        side = round((weights.size / max(len(weights), 1)) ** 0.5)
        of_crops = name not in ("bert_attention", "face_attention")
        if of_crops and weights.size == len(weights) * side**2 > len(weights):
            cam = weights.reshape(-1, side, side)
            found.append(_of_each(batch, f"attention {name}", f"weights of the attention pooling {name}", cam))
    return found


def crop_weights(batch: Batch) -> list[np.ndarray | None]:
    """The weights of attention over an utterance's crops, of each utterance (T,); None where the tower has none."""
    if "face_attention" not in batch.layers:
        return [None for _ in batch.utterances]
    weights = np.asarray(tf.cast(batch.activations["face_attention"][0], tf.float32))
    mask = np.asarray(batch.inputs["face_mask"])
    return [weights[n][mask[n]] for n in range(len(mask))]


def _of_each(batch: Batch, key: str, title: str, values: np.ndarray | tf.Tensor, signed: bool = False) -> list[FaceMap]:
    """Splits the maps (M, h, w) of all crops by utterance, and resizes them to the size of the crops."""
    _, owner = crops_of(batch)
    resized = np.asarray(resize_maps(values[: len(owner)], batch.scorer.run.spec.face_size))
    return [FaceMap(key, title, resized[owner == n], signed) for n in range(len(batch.utterances))]
