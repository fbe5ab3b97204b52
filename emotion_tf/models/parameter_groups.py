"""Pretrained layers: which of their variables train, and at which multiple of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import keras

from emotion_tf.errors import UserError
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.word_branches import WordReplacement


@dataclass(frozen=True)
class PretrainedLayer:
    """A layer that starts from published weights or from another run; it trains more slowly and can be frozen.

    Attributes:
        layer: the layer.
        unfreeze_from: of a network, the first of its layers that trains; empty: all of them train.
        layer_decay: each layer of an encoder trains at this multiple of the rate of the layer above it (Howard 2018,
            "Universal Language Model Fine-tuning", section 3.2; Clark 2020, "ELECTRA", appendix A).

    Raises:
        UserError: `layer_decay` is not 1 and the names of the encoder's variables do not denote its layers.
    """

    layer: keras.layers.Layer
    unfreeze_from: str = ""
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.layer_decay != 1:
            unknown = [variable.path for variable, part in self.layer.parts if not part]
            if unknown:
                raise UserError(
                    f"--text.layer-decay: the names of the variables of {self.layer.handle} do not denote its layers. "
                    f"Expected names such as layer_0/... or embeddings/... Received: {', '.join(unknown[:3])} ..."
                )

    def set_trainable(self, trainable: bool) -> None:
        """Makes the layer trainable from `unfreeze_from` on, or freezes it."""
        set_trainable(self.layer, trainable, self.unfreeze_from)

    def learning_rates(self, rate: float) -> Iterator[tuple[keras.Variable, float]]:
        """Yields the layer's trainable variables, each with its multiple of the learning rate.

        With a layer decay, the top layer has `rate`, each layer below has `layer_decay` times the rate of the layer
        above, and the embeddings have the lowest rate.
        """
        if not isinstance(self.layer, HubEncoder):
            yield from ((variable, rate) for variable in self.layer.trainable_variables)
            return
        count = 1 + max((int(part) for _, part in self.layer.parts if part.isdigit()), default=-1)
        depth = {"embeddings": count, "pooler": 0, "": 0} | {str(i): count - 1 - i for i in range(count)}
        for variable, part in self.layer.parts:
            yield variable, rate * self.layer_decay ** depth[part]


def set_trainable(layer: keras.layers.Layer, trainable: bool, unfreeze_from: str = "") -> None:
    """Makes a layer trainable, of a network only the layers from `unfreeze_from` on (empty: all), or freezes it.

    A frozen batch norm does not update its statistics.
    """
    layer.trainable = trainable
    if trainable and unfreeze_from:
        names = [inner.name for inner in layer.layers]
        for inner in layer.layers[: names.index(unfreeze_from)]:
            inner.trainable = False


def initialized_layers(
    layers: Iterable[keras.layers.Layer], networks: Iterable[PretrainedLayer]
) -> tuple[PretrainedLayer, ...]:
    """Returns every trainable layer as pretrained (those in `networks` as given), for a tower of another run.

    The replacement of words is frozen with their embedding.
    """
    of_layer = {id(network.layer): network for network in networks}
    return tuple(
        of_layer.get(id(layer), PretrainedLayer(layer))
        for layer in layers
        if layer.trainable_weights or isinstance(layer, WordReplacement)
    )
