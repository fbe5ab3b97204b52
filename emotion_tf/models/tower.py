"""A tower: one modality from its raw inputs to an embedding, and whether the modality is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from emotion_tf.models.activations import find_layer, layers_by_name
from emotion_tf.models.parameter_groups import PretrainedLayer

Tensors = dict[str, Any]


@keras.saving.register_keras_serializable("emotion_tf")
class Tower(keras.Model):
    """Trunks, whose output can be kept on disk while they are frozen, and a head with everything else.

    Inputs: dict of the raw inputs of `schema` that the trunks and the head read.
    Outputs: dict of `embedding` (B, D); `present` bool (B,), what the inputs say, before modality dropout; and for
    fusions that attend to steps `sequence_0` (B, L, D'), `mask_0` bool (B, L), and so on.

    Args:
        trunks: name -> functional model from raw inputs to one tensor: (B, D), or (B, L, D) with its steps. A trunk is
            deterministic unless a network has dropout inside.
        head: functional model from the trunks' tensors, by name, and raw inputs to the tower's outputs.
        steps: raw input whose entries that are not zero are the steps of a trunk's tensor (B, L, D).
        pretrained: layers that start from published weights or from another run. Only a new model has them: a saved
            one is for inference.
    """

    def __init__(
        self,
        trunks: dict[str, keras.Model],
        head: keras.Model,
        steps: str,
        pretrained: Sequence[PretrainedLayer] = (),
        **options: Any,
    ) -> None:
        # Layers
        self.trunks, self.head, self.steps = dict(trunks), head, steps
        self.pretrained = tuple(pretrained)
        # Functional graph
        inputs = {
            name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
            for part in (*trunks.values(), head)
            for name, tensor in part.input.items()
            if name not in trunks
        }
        super().__init__(inputs=inputs, outputs=self.connect(inputs), **options)

    def connect(self, inputs: Tensors, features: Tensors | None = None) -> Tensors:
        """Applies the trunks that `features` (trunk -> its output) lacks, and the head; returns the tower's outputs."""
        values = dict(features or {})
        for name, trunk in self.trunks.items():
            if name not in values:
                values[name] = trunk({key: inputs[key] for key in trunk.input})
        return self.head({name: values[name] if name in values else inputs[name] for name in self.head.input})

    @property
    def layers_by_name(self) -> dict[str, keras.layers.Layer]:
        """The layers of the trunks and of the head."""
        return layers_by_name(*self.trunks.values(), self.head)

    def layers_of(self, kind: type[keras.layers.Layer]) -> list[Any]:
        """The layers of the trunks and of the head that are of one class."""
        return [layer for layer in self.layers_by_name.values() if isinstance(layer, kind)]

    def find_layer(self, path: str) -> keras.layers.Layer:
        """Returns the layer LAYER, or LAYER/INNER inside a network that is a layer itself. Raises UserError."""
        return find_layer(self.layers_by_name, path)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trunks": {name: serialize(trunk) for name, trunk in self.trunks.items()},
            "head": serialize(self.head),
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Tower:
        deserialize = keras.saving.deserialize_keras_object
        trunks = {name: deserialize(trunk, custom_objects) for name, trunk in config["trunks"].items()}
        return cls(**{**config, "trunks": trunks, "head": deserialize(config["head"], custom_objects)})


class StepSequence(NamedTuple):
    """The steps behind an embedding: `values` (B, L, D) and `mask` bool (B, L)."""

    values: keras.KerasTensor
    mask: keras.KerasTensor


class TowerOutputs(NamedTuple):
    """What a fusion reads of a tower: `embedding` (B, D), and the sequences behind it where it wants them."""

    embedding: keras.KerasTensor
    sequences: list[StepSequence]


def fusion_inputs(modality: str, outputs: Tensors) -> Tensors:
    """Returns those of a tower's outputs that a fusion reads, as NAME_embedding, NAME_sequence_0, NAME_mask_0 ..."""
    return {f"{modality}_{key}": value for key, value in outputs.items() if key != "present"}


def tower_outputs(modality: str, inputs: Tensors) -> TowerOutputs:
    """Returns one tower's part of the inputs of a fusion."""
    count = sum(name.startswith(f"{modality}_sequence_") for name in inputs)
    return TowerOutputs(
        inputs[f"{modality}_embedding"],
        [StepSequence(inputs[f"{modality}_sequence_{i}"], inputs[f"{modality}_mask_{i}"]) for i in range(count)],
    )
