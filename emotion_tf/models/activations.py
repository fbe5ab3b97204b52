"""What a layer inside a model returns, and what the model returns when the layer returns something else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from emotion_tf.errors import UserError, nearest


@contextlib.contextmanager
def intercept(layer: keras.layers.Layer, function: Callable[..., Any]) -> Iterator[None]:
    """Inside the block the layer returns `function(call, *inputs)`, wherever in a model it lies.

    A functional model cannot be cut open at a layer inside a network inside a tower; but each layer can be asked to let
    a caller read, or replace, what it returns. `call` is the layer's own.
    """
    call, outer = layer.call, vars(layer).get("call")
    # past Keras' own `__setattr__`, which would look for state in it
    vars(layer)["call"] = lambda *args, **options: function(call, *args, **options)
    try:
        yield
    finally:
        if outer is None:
            del vars(layer)["call"]
        else:
            vars(layer)["call"] = outer


def record(
    layer: keras.layers.Layer, outputs: list[Any], watch: Callable[[Any], None] | None = None
) -> contextlib.AbstractContextManager[None]:
    """Inside the block, what the layer returns is appended to `outputs`, call by call, and shown to `watch`."""

    def function(call: Any, *args: Any, **options: Any) -> Any:
        outputs.append(call(*args, **options))
        if watch is not None:
            watch(outputs[-1])
        return outputs[-1]

    return intercept(layer, function)


def replay(layer: keras.layers.Layer, outputs: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
    """Inside the block the layer does not run: it returns these values, call by call."""
    remaining = iter(outputs)
    return intercept(layer, lambda call, *args, **options: next(remaining))


@contextlib.contextmanager
def replay_all(layers: Sequence[keras.layers.Layer], outputs: Sequence[Any]) -> Iterator[None]:
    """As `replay` for several layers; each output is that of the layer in its place, in the order of the calls."""
    of_layer: dict[keras.layers.Layer, list[Any]] = {}
    for layer, output in zip(layers, outputs, strict=True):
        of_layer.setdefault(layer, []).append(output)
    with contextlib.ExitStack() as stack:
        for layer, calls in of_layer.items():
            stack.enter_context(replay(layer, calls))
        yield


def layers_by_name(*models: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of functional models by name, without their inputs."""
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
        raise UserError(f"Invalid `--layer`. {outer} has no parts. Expected {outer!r}. Received: {path!r}.")
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
    """Returns a function from the inputs of a model to what one of its layers returns (in its first call).

    Args:
        model: runs whole; in a `tf.function` only what leads to the layer is computed.
        layers: the layers that can be named.
        path: LAYER; LAYER/INNER for a layer inside a network that is a layer itself, or for one of a layer's several
            outputs (bert/pooled_output).

    Raises:
        UserError: there is no such layer, or it has several outputs and none is named.
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
        first = outputs[0]
        if names:
            return first[inner] if isinstance(first, dict) else first[names.index(inner)]
        return first[0] if isinstance(first, (list, tuple)) and len(first) == 1 else first

    return function
