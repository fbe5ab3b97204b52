"""How layers are reached inside a model: by name, in its towers and in the networks that are layers themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from emotion_tf.errors import UserError, nearest

TOWERS = {"text": "text_tower", "face": "face_tower", "fusion": ""}


def has_layer(model: keras.Model, name: str) -> bool:
    """Whether a model has a layer of that name."""
    return name in [layer.name for layer in model.layers]


def part_of_model(model: keras.Model, tower: str) -> keras.Model:
    """A tower, or for fusion the whole model. Raises UserError when there is no such tower."""
    if tower not in TOWERS:
        raise UserError(f"Invalid `--tower`. Expected one of: {', '.join(TOWERS)}. Received: {tower!r}.")
    return get_layer(model, TOWERS[tower], "tower") if TOWERS[tower] else model


def get_layer(model: keras.Model, name: str, what: str = "layer") -> keras.layers.Layer:
    """A layer by its name. Raises UserError with those that there are."""
    check_name(name, [layer.name for layer in model.layers], what)
    return model.get_layer(name)


def inner_layer(part: keras.Model, path: str) -> keras.layers.Layer:
    """A layer of a tower by LAYER, or LAYER/INNER for one inside a network that is a layer itself.

    Raises:
        UserError: there is no such layer.
    """
    outer, _, inner = path.partition("/")
    found = get_layer(part, outer)
    if not inner:
        return found
    if not isinstance(found, keras.Model):
        raise UserError(f"Invalid `--layer`. {outer} has no parts. Expected {outer!r}. Received: {path!r}.")
    return get_layer(found, inner)


def layer_model(model: keras.Model, tower: str, layer: str) -> keras.Model:
    """The part of a model that ends at a layer.

    Args:
        model: a run's model.
        tower: text, face, or fusion (the layers that join the towers).
        layer: a layer of it; LAYER/INNER for one inside a network that is a layer itself, or for one of a layer's
            several outputs (bert/pooled_output). Empty: the tower's output.

    Raises:
        UserError: no such tower or layer, or a layer of several outputs without the name of one.
    """
    part = part_of_model(model, tower)
    if not layer:
        # a fusion that attends to the towers' sequences is given them beside the embedding
        return keras.Model(part.input, part.output["embedding"]) if isinstance(part.output, dict) else part
    outer, _, inner = layer.partition("/")
    found = get_layer(part, outer)
    if inner and isinstance(found, keras.Model):
        inside = keras.Model(found.input, inner_layer(part, layer).output)
        # where the network is called in this model: its own input is another one
        return keras.Model(part.input, inside(*found._inbound_nodes[0].input_tensors))
    if getattr(found, "OUTPUTS", ()):
        outputs = dict(zip(found.OUTPUTS, found.output, strict=True))
        check_name(inner, list(outputs), f"output of {outer}")
        return keras.Model(part.input, outputs[inner])
    reached = inner_layer(part, layer)
    if isinstance(reached, keras.Model):
        # where the network is called in this model: its own output is that of its own input
        output = reached._inbound_nodes[0].output_tensors
        return keras.Model(part.input, output[0] if len(output) == 1 else output)
    return keras.Model(part.input, reached.output)


def check_name(name: str, valid: list[str], what: str) -> None:
    """Raises UserError with the valid names when `name` is none of them."""
    if name not in valid:
        raise UserError(f"No {what} {name!r}. Expected one of: {', '.join(valid)}.{nearest(name, valid)}")


@contextlib.contextmanager
def tapped(layer: keras.layers.Layer, through: Callable[..., Any]) -> Iterator[None]:
    """While it is open, the layer gives what `through(call, *inputs)` gives, wherever in a model it lies.

    A functional model cannot be cut open at a layer inside a network inside a tower; its layers can be asked to let
    somebody look at, or change, what they pass on. `call` is what the layer does by itself.
    """
    call = layer.call
    # past Keras' own `__setattr__`, which would look for state in it
    vars(layer)["call"] = lambda *args, **options: through(call, *args, **options)
    try:
        yield
    finally:
        del vars(layer)["call"]
