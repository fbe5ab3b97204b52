"""The whole model: text tower + face tower -> fusion -> logits. A single tower is the same code with one tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import keras
from keras import layers

from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.models.backbones import train_network
from emotion_tf.models.face_tower import build_face_tower
from emotion_tf.models.fusion import CROSS, fuse
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.text_tower import build_text_tower
from emotion_tf.models.tower import tower_outputs
from emotion_tf.schema import DataSpec


def build_model(
    config: Config,
    spec: DataSpec,
    words: int,
    encoder: str | None = None,
    face_files: Mapping[str, str] | None = None,
) -> keras.Model:
    """Builds the model that the configuration names.

    Args:
        config: the run's configuration.
        spec: labels and sizes of the data set.
        words: rows of the word embedding.
        encoder: path of the TF-Hub SavedModel of the bert branch.
        face_files: paths of the networks of the face tower's branches fer and encoder.

    Returns:
        Functional model from a dict of `schema`'s inputs to logits (B, C). Its towers are the layers `text_tower`
        and `face_tower`.
    """
    towers, drop = [], config.fusion.modality_dropout
    sequences = config.towers == "both" and config.fusion.kind == CROSS
    if config.uses_text:
        towers.append(build_text_tower(config.text, encoder, words, drop, sequences))
    if config.uses_face:
        towers.append(build_face_tower(config.face, spec.face_size, drop, face_files, sequences))
    inputs = {
        name: keras.Input(t.shape[1:], dtype=t.dtype, name=name) for tower in towers for name, t in tower.input.items()
    }
    outputs = []
    for tower in towers:
        if not (config.text if tower.name == "text_tower" else config.face).train_tower:
            tower.trainable = False  # never True: that would train what is frozen inside
        found = tower_outputs(tower, inputs)
        # by this name training finds what a loss on the tower alone needs
        named = layers.Identity(name=tower.name.replace("_tower", "_out"))(found.embedding)
        outputs.append(found._replace(embedding=named))
    return keras.Model(inputs, fuse(outputs, config.fusion, len(spec.labels)), name="two_tower")


def pretrained_layers(model: keras.Model, config: Config) -> Iterator[keras.layers.Layer]:
    """The trained layers that start from published weights or from another run's tower: they learn at a lower rate, or
    wait frozen. Word vectors from a file are none of them: they learn at the full rate."""
    for tower, init in (("text_tower", config.text.init), ("face_tower", config.face.init)):
        if tower not in [layer.name for layer in model.layers] or not model.get_layer(tower).trainable:
            continue
        for layer in model.get_layer(tower).layers:
            is_network = layer.name in config.face.networks and tower == "face_tower"
            trains = {
                "bert": config.text.train_encoder,
                "word_embedding": config.text.train_embeddings,
            }.get(layer.name, config.face.train_backbone or not is_network)
            published = layer.name == "bert" or (is_network and _is_published(layer.name, config))
            if layer.weights and trains and (published or init):
                yield layer


def _is_published(network: str, config: Config) -> bool:
    return network in ("fer", "encoder") or config.face.weights == "imagenet"


def set_trained(layer: keras.layers.Layer, trained: bool, config: Config) -> None:
    """Freezes a pretrained layer, or trains it as far as the configuration says."""
    if isinstance(layer, keras.Model):
        train_network(layer, trained, config.face.unfreeze_from)
    else:
        layer.trainable = trained


def learning_rates(layer: keras.layers.Layer, config: Config) -> Iterator[tuple[keras.Variable, float]]:
    """The trained variables of a pretrained layer, each with its share of the learning rate.

    With `--text.layer-decay` the layers of an encoder learn the slower the lower they lie: the highest at
    `--train.pretrained-rate`, each below at `layer_decay` times the rate of the one above it, the embeddings last
    (Howard 2018, "Universal Language Model Fine-tuning", section 3.2; Clark 2020, "ELECTRA", appendix A).

    Raises:
        UserError: the names of the encoder's variables do not tell its layers.
    """
    decay = config.text.layer_decay
    if not isinstance(layer, HubEncoder) or decay == 1:
        yield from ((variable, config.train.pretrained_rate) for variable in layer.trainable_variables)
        return
    unknown = [variable.path for variable, part in layer.parts if not part]
    if unknown:
        raise UserError(
            f"--text.layer-decay: the names of the variables of {config.text.encoder} do not tell its layers. Expected "
            f"names such as layer_0/... or embeddings/... Received: {', '.join(unknown[:3])} ..."
        )
    count = 1 + max((int(part) for _, part in layer.parts if part.isdigit()), default=-1)
    for variable, part in layer.parts:
        below = {"embeddings": count, "pooler": 0}.get(part)
        yield variable, config.train.pretrained_rate * decay ** (count - 1 - int(part) if below is None else below)
