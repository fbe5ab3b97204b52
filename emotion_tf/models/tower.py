"""A tower: the model of one modality, from raw inputs to an embedding and the presence of the modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from emotion_tf.models.activations import find_layer, layers_by_name
from emotion_tf.models.parameter_groups import PretrainedLayer

Tensors = dict[str, Any]


@keras.saving.register_keras_serializable("emotion_tf")
class Tower(keras.Model):
    """Trunks, whose outputs can be cached while they are frozen, and a head with everything else.

    Inputs: dict of the raw inputs of `schema` that the trunks and the head read.
    Outputs: dict of `embedding` (B, D); `present` bool (B,), before modality dropout; and, for fusions that attend to
    steps, `sequence_0` (B, L, D'), `mask_0` bool (B, L), and so on.

    Args:
        trunks: name -> functional model from raw inputs to one tensor, (B, D) or (B, L, D). A frozen network in
            it is in inference mode.
        head: functional model from the outputs of the trunks, by name, and raw inputs to the outputs of the tower.
        steps: raw input (B, L) whose nonzero entries are the real steps of a trunk's output (B, L, D).
        pretrained: layers that start from published weights or from another run. Saved models, which are for inference,
            do not have them.
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
        """Applies the trunks, except those whose outputs are in `features`, and the head; returns the outputs."""
        values = dict(features or {})
        for name, trunk in self.trunks.items():
            if name not in values:
                values[name] = trunk({key: inputs[key] for key in trunk.input})
        return self.head({name: values[name] if name in values else inputs[name] for name in self.head.input})

    @property
    def layers_by_name(self) -> dict[str, keras.layers.Layer]:
        """Layers of the trunks and the head."""
        return layers_by_name(*self.trunks.values(), self.head)

    def layers_of(self, kind: type[keras.layers.Layer]) -> list[Any]:
        """Returns the layers of one class, of the trunks and the head."""
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
    """The steps from which an embedding is pooled: `values` (B, L, D) and `mask` bool (B, L)."""

    values: keras.KerasTensor
    mask: keras.KerasTensor


class TowerOutputs(NamedTuple):
    """Inputs of a fusion from one tower: `embedding` (B, D), and `sequences` if the fusion reads them."""

    embedding: keras.KerasTensor
    sequences: list[StepSequence]


def fusion_inputs(modality: str, outputs: Tensors) -> Tensors:
    """Returns the outputs of a tower that a fusion reads: NAME_embedding, NAME_sequence_0, NAME_mask_0 ..."""
    return {f"{modality}_{key}": value for key, value in outputs.items() if key != "present"}


def tower_outputs(modality: str, inputs: Tensors) -> TowerOutputs:
    """Returns the inputs of a fusion that come from one tower."""
    count = sum(name.startswith(f"{modality}_sequence_") for name in inputs)
    return TowerOutputs(
        inputs[f"{modality}_embedding"],
        [StepSequence(inputs[f"{modality}_sequence_{i}"], inputs[f"{modality}_mask_{i}"]) for i in range(count)],
    )
