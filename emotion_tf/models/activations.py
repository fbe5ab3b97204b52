"""Reads and replaces the outputs of layers inside a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from emotion_tf.errors import UserError, nearest


@contextlib.contextmanager
def intercept(layer: keras.layers.Layer, function: Callable[..., Any]) -> Iterator[None]:
    """Makes a layer return `function(call, *inputs)` inside the block; `call` is the layer's own.

    A functional model cannot be cut at a layer inside a network inside a tower. Replacing `call` works for any layer.
    """
    call, outer = layer.call, vars(layer).get("call")
    # not by `setattr`: Keras would track the function as state of the layer
    vars(layer)["call"] = lambda *args, **options: function(call, *args, **options)
    try:
        yield
    finally:
        if outer is None:
            del vars(layer)["call"]
        else:
            vars(layer)["call"] = outer


def record(layer: keras.layers.Layer, outputs: list[Any]) -> contextlib.AbstractContextManager[None]:
    """Appends the outputs of a layer to `outputs` inside the block."""

    def function(call: Any, *args: Any, **options: Any) -> Any:
        outputs.append(call(*args, **options))
        return outputs[-1]

    return intercept(layer, function)


def replay(layer: keras.layers.Layer, outputs: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
    """Makes a layer return `outputs` inside the block, one at each call, without running."""
    remaining = iter(outputs)
    return intercept(layer, lambda call, *args, **options: next(remaining))


@contextlib.contextmanager
def replay_all(layers: Sequence[keras.layers.Layer], outputs: Sequence[Any]) -> Iterator[None]:
    """Replays several layers: `outputs[i]` is returned by `layers[i]`, in the order of the calls."""
    of_layer: dict[keras.layers.Layer, list[Any]] = {}
    for layer, output in zip(layers, outputs, strict=True):
        of_layer.setdefault(layer, []).append(output)
    with contextlib.ExitStack() as stack:
        for layer, calls in of_layer.items():
            stack.enter_context(replay(layer, calls))
        yield


def layers_by_name(*models: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns the layers of functional models by name, without input layers."""
    return {
        layer.name: layer
        for model in models
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }


def find_layer(layers: Mapping[str, keras.layers.Layer], path: str) -> keras.layers.Layer:
    """Returns the layer LAYER, or LAYER/INNER inside a network that is a layer itself.

    Raises:
        UserError: there is no such layer.
    """
    outer, _, inner = path.partition("/")
    check_name(outer, list(layers), "layer")
    layer = layers[outer]
    if not inner:
        return layer
    if not isinstance(layer, keras.Model):
        raise UserError(f"Invalid `--layer`. {outer} has no inner layers. Expected {outer!r}. Received: {path!r}.")
    inner_layers = layers_by_name(layer)
    check_name(inner, list(inner_layers), "layer")
    return inner_layers[inner]


def check_name(name: str, valid: list[str], what: str) -> None:
    """Raises UserError with the valid names if `name` is none of them."""
    if name not in valid:
        raise UserError(f"No {what} {name!r}. Expected one of: {', '.join(valid)}.{nearest(name, valid)}")


def activation(
    model: keras.Model, layers: Mapping[str, keras.layers.Layer], path: str
) -> Callable[[Mapping[str, Any]], Any]:
    """Returns the function from the inputs of a model to the output of one of its layers (at its first call).

    Args:
        model: the model. It runs as a whole; a `tf.function` computes only what the layer depends on.
        layers: name -> layer.
        path: LAYER; LAYER/INNER for a layer inside a network that is a layer itself, or for one of several outputs of a
            layer (bert/pooled_output).

    Raises:
        UserError: no such layer, or the layer has several outputs and `path` names none of them.
    """
    outer, _, inner = path.partition("/")
    check_name(outer, list(layers), "layer")
    names = getattr(layers[outer], "OUTPUTS", ())
    if names:
        check_name(inner, list(names), f"output of {outer}")
    layer = layers[outer] if names else find_layer(layers, path)

    def function(inputs: Mapping[str, Any]) -> Any:
        outputs: list[Any] = []
        with record(layer, outputs):
            model(inputs, training=False)
        output = outputs[0]
        if names:
            return output[inner] if isinstance(output, dict) else output[names.index(inner)]
        return output[0] if isinstance(output, (list, tuple)) and len(output) == 1 else output

    return function
