"""What a tower gives: its embedding, and for fusions that attend to them the sequences behind it."""

from __future__ import annotations

from typing import NamedTuple

import keras

from emotion_tf.models.layers import MaskWhere

Sequence = tuple[keras.KerasTensor, keras.KerasTensor]


class TowerOutputs(NamedTuple):
    """`embedding` (B, D), and of each branch a sequence (B, L, D') with its mask bool (B, L)."""

    embedding: keras.KerasTensor
    sequences: list[Sequence]


def tower(
    inputs: dict[str, keras.KerasTensor],
    embedding: keras.KerasTensor,
    present: keras.KerasTensor,
    sequences: list[Sequence],
    wanted: bool,
    name: str,
) -> keras.Model:
    """The model of a tower: inputs to its embedding, or when `wanted` to a dict of it and the sequences.

    Of a modality that is absent (`present` bool (B,)) every step is masked.
    """
    if not wanted:
        return keras.Model(inputs, embedding, name=name)
    outputs = {"embedding": embedding}
    for i, (sequence, mask) in enumerate(sequences):
        step = MaskWhere(name=f"{name.removesuffix('tower')}mask_{i}")([mask, present])
        outputs |= {f"sequence_{i}": sequence, f"mask_{i}": step}
    return keras.Model(inputs, outputs, name=name)


def tower_outputs(model: keras.Model, inputs: dict[str, keras.KerasTensor]) -> TowerOutputs:
    """Calls a tower on those of `inputs` that it reads."""
    outputs = model({name: inputs[name] for name in model.input})
    if not isinstance(outputs, dict):
        return TowerOutputs(outputs, [])
    count = (len(outputs) - 1) // 2
    return TowerOutputs(outputs["embedding"], [(outputs[f"sequence_{i}"], outputs[f"mask_{i}"]) for i in range(count)])
