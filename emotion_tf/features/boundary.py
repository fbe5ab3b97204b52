"""Divides a model into frozen trunks, whose outputs can be cached, and the rest.

A trunk whose output is the same in every epoch runs once over the data; its output becomes an input of the rest of the
model. The raw inputs that the rest of the tower reads (masks, ids) are cached, too, so that an epoch reads no record
for the tower. Pictures are not cached.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from emotion_tf import schema
from emotion_tf.models.backbones import FreezableNetwork
from emotion_tf.models.tower import Tower
from emotion_tf.models.two_tower import TwoTower


@dataclass(frozen=True)
class FrozenPart:
    """The cached part of one tower.

    Attributes:
        modality: modality of the tower.
        trunks: names of the cached trunks.
        model: model from raw inputs to the cached columns, a dict of tensors (B, ...) or (B, L, ...): `MODALITY_TRUNK`
            for the output of a trunk, and raw inputs under their own names.
        steps: column -> raw input whose nonzero entries are its real steps L; empty: no axis of steps.
    """

    modality: str
    trunks: tuple[str, ...]
    model: keras.Model
    steps: dict[str, str]


def frozen_parts(model: TwoTower, augmented: Collection[str] = ()) -> tuple[FrozenPart, ...]:
    """Returns, for each tower that has one, the part whose output is the same in every epoch.

    Args:
        model: the whole model, with the frozen layers of this phase of training frozen.
        augmented: raw inputs that change from epoch to epoch.
    """
    parts = []
    for modality, tower in model.towers.items():
        trunks = tuple(name for name, trunk in tower.trunks.items() if _is_fixed(trunk, augmented))
        if trunks:
            parts.append(_part(modality, tower, trunks))
    return tuple(parts)


def rest_inputs(model: TwoTower, parts: Collection[FrozenPart]) -> dict[str, keras.KerasTensor]:
    """Returns new inputs for the rest of the model: the cached columns, and the raw inputs that it still reads."""
    columns = {name: tensor for part in parts for name, tensor in part.model.output.items()}
    trunks = {part.modality: part.trunks for part in parts}
    names = {name for modality, tower in model.towers.items() for name in _rest_names(tower, trunks.get(modality, ()))}
    raw = {name: tensor for name, tensor in model.input.items() if name in names - set(columns)}
    return {
        name: keras.Input(x.shape[1:], dtype=_stored_dtype(x.dtype), name=name) for name, x in (columns | raw).items()
    }


def connect_rest(model: TwoTower, parts: Collection[FrozenPart], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Applies the rest of the model to `rest_inputs`; returns the outputs of the model."""
    features = {part.modality: {name: inputs[f"{part.modality}_{name}"] for name in part.trunks} for part in parts}
    return model.connect(dict(inputs), features)


def _is_fixed(trunk: keras.Model, augmented: Collection[str]) -> bool:
    # dropout is applied in a frozen layer, too, unless it is inside a network that is in inference mode
    layers = [layer for layer in trunk.layers if not isinstance(layer, FreezableNetwork) or layer.trainable]
    is_random = any(v.name == "seed_generator_state" for layer in layers for v in layer.variables)
    return (
        bool(trunk.weights) and not trunk.trainable_weights and not is_random and not set(trunk.input) & set(augmented)
    )


def _rest_names(tower: Tower, cached: Collection[str]) -> list[str]:
    """Returns the raw inputs that a tower reads if the `cached` trunks do not run."""
    running = [trunk for name, trunk in tower.trunks.items() if name not in cached]
    names = {name for part in (*running, tower.head) for name in part.input}
    return [name for name in tower.input if name in names]


def _part(modality: str, tower: Tower, trunks: tuple[str, ...]) -> FrozenPart:
    rest = _rest_names(tower, trunks)
    has_pictures = any(len(tower.input[name].shape) > 2 for name in rest)
    raw = () if has_pictures else tuple(rest)
    names = {name for trunk in trunks for name in tower.trunks[trunk].input} | set(raw)
    inputs = {
        name: keras.Input(x.shape[1:], dtype=x.dtype, name=name) for name, x in tower.input.items() if name in names
    }
    outputs = {
        f"{modality}_{name}": tower.trunks[name]({key: inputs[key] for key in tower.trunks[name].input})
        for name in trunks
    }
    steps = {name: tower.steps if len(x.shape) == 3 else "" for name, x in outputs.items()}
    word_pieces = [feature.name for feature in schema.TEXT_INPUTS]
    steps |= {name: "input_mask" if name in word_pieces else name for name in raw}
    model = keras.Model(inputs, outputs | {name: inputs[name] for name in raw}, name=f"cached_{modality}")
    return FrozenPart(modality, trunks, model, steps)


def _stored_dtype(dtype: str) -> str:
    return "float32" if dtype in ("bfloat16", "float16") else dtype  # NumPy has no bfloat16
