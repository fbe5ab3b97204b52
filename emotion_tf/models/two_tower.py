"""The whole model: towers -> fusion -> logits. A model of one modality is the same with a single tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from emotion_tf.config import Config
from emotion_tf.modalities import MODALITIES, presence_bit
from emotion_tf.models.fusion import build_fusion, reads_sequences
from emotion_tf.models.parameter_groups import PretrainedLayer
from emotion_tf.models.tower import Tower, fusion_inputs
from emotion_tf.models.towers import TOWERS, TowerArguments
from emotion_tf.run_info import DataSpec

Tensors = dict[str, Any]


@keras.saving.register_keras_serializable("emotion_tf")
class TwoTower(keras.Model):
    """Towers joined by a fusion.

    Inputs: dict of the raw inputs of `schema` that the towers read.
    Outputs: dict of `logits` float32 (B, C), and for each tower `NAME/embedding` (B, D) and `NAME/present` bool (B,),
    whether its inputs contain the modality.

    Args:
        towers: modality -> tower, in the order of `MODALITIES`.
        fusion: functional model from the `fusion_inputs` of all towers to logits.
        labels: class names in the order of the logits, stored in the model so that no other file can exchange them.
    """

    def __init__(
        self, towers: dict[str, Tower], fusion: keras.Model, labels: Sequence[str] = (), **options: Any
    ) -> None:
        # Layers
        self.towers, self.fusion, self.labels = dict(towers), fusion, tuple(labels)
        # Functional graph
        inputs = {name: _input_like(name, x) for tower in towers.values() for name, x in tower.input.items()}
        super().__init__(inputs=inputs, outputs=self.connect(inputs), **options)

    def connect(self, inputs: Tensors, features: Mapping[str, Tensors] | None = None) -> Tensors:
        """Applies the towers and the fusion.

        Args:
            inputs: raw inputs. Inputs that only trunks in `features` read may be missing.
            features: modality -> trunk -> its cached output; such a trunk does not run.

        Returns:
            The model's outputs.
        """
        outputs: dict[str, Tensors] = {}
        for modality, tower in self.towers.items():
            cached = (features or {}).get(modality)
            if cached:
                outputs[modality] = tower.connect(inputs, cached)
            else:
                outputs[modality] = tower({name: inputs[name] for name in tower.input})
        fused = {k: v for modality, tower in outputs.items() for k, v in fusion_inputs(modality, tower).items()}
        embeddings = {
            f"{modality}/{key}": tower[key] for modality, tower in outputs.items() for key in ("embedding", "present")
        }
        return {"logits": self.fusion(fused), **embeddings}

    @property
    def pretrained(self) -> Iterator[PretrainedLayer]:
        """The pretrained layers of all towers; see `Tower`."""
        return (layer for tower in self.towers.values() for layer in tower.pretrained)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "towers": {modality: serialize(tower) for modality, tower in self.towers.items()},
            "fusion": serialize(self.fusion),
            "labels": list(self.labels),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TwoTower:
        deserialize = keras.saving.deserialize_keras_object
        towers = {modality: deserialize(config["towers"][modality], custom_objects) for modality in config["towers"]}
        return cls(**{**config, "towers": towers, "fusion": deserialize(config["fusion"], custom_objects)})


def _input_like(name: str, tensor: keras.KerasTensor) -> keras.KerasTensor:
    return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)


def presence_pattern(outputs: Mapping[str, Any]) -> Any:
    """Returns which modalities each row has, int32 (B,): the index into `modalities.presence_patterns`.

    Args:
        outputs: of a `TwoTower`.
    """
    bits = [
        ops.cast(outputs[f"{modality}/present"], "int32") * presence_bit(modality)
        for modality in MODALITIES
        if f"{modality}/present" in outputs
    ]
    return sum(bits[1:], start=bits[0])


def build_model(
    config: Config,
    spec: DataSpec,
    embedding_shape: tuple[int, int],
    encoder: str | None = None,
    face_files: Mapping[str, str] | None = None,
    frequencies: Sequence[int] = (),
) -> TwoTower:
    """Builds the model of a configuration.

    Args:
        config: the run's configuration.
        spec: labels and sizes of the data set.
        embedding_shape: rows and width of the word embedding.
        encoder: path of the TF-Hub SavedModel of the bert branch.
        face_files: paths of the networks of the face branches fer and encoder.
        frequencies: number of occurrences of each word in the training split.

    Raises:
        UserError: a branch does not fit its weights or the data.
    """
    sequences = len(config.towers) > 1 and reads_sequences(config.fusion.kind)
    arguments = TowerArguments(config, spec, embedding_shape, encoder, face_files, sequences, frequencies)
    towers = {modality: TOWERS[modality](arguments) for modality in config.towers}
    return TwoTower(towers, build_fusion(towers, config.fusion, len(spec.labels)), spec.labels, name="two_tower")
