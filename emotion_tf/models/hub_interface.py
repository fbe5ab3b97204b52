"""How the module of a SavedModel wants to be called: as TF-Hub's BERT encoders, or as its image modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from emotion_tf.errors import UserError

INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")
OUTPUT_NAMES = ("pooled_output", "sequence_output")


@dataclass(frozen=True)
class Interface:
    """How a module wants to be called.

    Attributes:
        inputs: `dict`, or `list` for [word ids, mask, type ids].
        modes: values of `training` it was traced with; empty when it has no such argument.
        outputs: `dict`, or `tuple` for (pooled, sequence).
        hidden: width H of the outputs.
    """

    inputs: str
    modes: tuple[bool, ...]
    outputs: str
    hidden: int

    @property
    def spec(self) -> Any:
        """What it is called with."""
        return _input_spec(self.inputs)


@dataclass(frozen=True)
class ImageInterface:
    """How a module of pictures wants to be called.

    Attributes:
        height, width: of the pictures in pixels; None: any.
        modes: as above.
        hidden: width D of the output.
    """

    height: int | None
    width: int | None
    modes: tuple[bool, ...]
    hidden: int

    @property
    def spec(self) -> tf.TensorSpec:
        """What it is called with."""
        return tf.TensorSpec((None, self.height, self.width, 3), tf.float32)


def inspect_module(module: Any, handle: str) -> Interface:
    """Finds out how `module` wants to be called, from its traces, without running it.

    Raises:
        UserError: it cannot be called as a BERT encoder; the message has the signatures or outputs that were found.
    """
    if not callable(module):
        raise UserError(f"Encoder {handle!r} is not a BERT encoder: its SavedModel cannot be called (no __call__).")
    call = module.__call__
    for kind in ("dict", "list"):
        inputs = _input_spec(kind)
        traces = {mode: trace for mode in (False, True) if (trace := _trace(call, inputs, training=mode))}
        trace = traces.get(False) or traces.get(True) or _trace(call, inputs)
        if trace:
            outputs, hidden = _inspect_outputs(trace.structured_outputs, handle)
            return Interface(kind, tuple(traces), outputs, hidden)
    found = "; ".join(str(f.structured_input_signature) for f in getattr(call, "concrete_functions", [])[:2])
    raise UserError(
        f"Encoder {handle!r} is not a BERT encoder. Expected int32 inputs {', '.join(INPUT_NAMES)} of shape "
        f"(None, None). Found: {' '.join(found.split())[:600] or 'no signature'}"
    )


def inspect_image_module(module: Any, handle: str) -> ImageInterface:
    """The same for a module of pictures: TF-Hub's common image signature, float32 (N, H, W, 3) -> (N, D).

    Raises:
        UserError: it cannot be called so.
    """
    call = module.__call__ if callable(module) else None
    traces = getattr(call, "concrete_functions", [])
    given = [spec for trace in traces for spec in tf.nest.flatten(trace.structured_input_signature)]
    specs = [spec for spec in given if _is_picture(spec)]
    for height, width in dict.fromkeys(tuple(spec.shape[1:3]) for spec in specs):
        spec = tf.TensorSpec((None, height, width, 3), tf.float32)
        found = {mode: trace for mode in (False, True) if (trace := _trace(call, spec, training=mode))}
        trace = found.get(False) or found.get(True) or _trace(call, spec)
        output = trace.structured_outputs if trace else None
        if isinstance(output, (tf.Tensor, tf.TensorSpec)) and output.shape.rank == 2 and output.shape[1]:
            return ImageInterface(height, width, tuple(found), int(output.shape[1]))
    signatures = "; ".join(f"{t.structured_input_signature} -> {t.structured_outputs}" for t in traces[:2])
    raise UserError(
        f"The face network {handle!r} is no TF-Hub image module. Expected float32 (None, H, W, 3) -> (None, D). Found: "
        f"{' '.join(signatures.split())[:400] or 'no signature that can be called'}. A Keras model is better given as "
        "a .keras file."
    )


def _is_picture(spec: Any) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.dtype == tf.float32 and spec.shape.rank == 4 and spec.shape[3] == 3


def trace_module(module: Any, interface: Interface | ImageInterface) -> None:
    """Fixes the traces for any batch and length, before TensorFlow makes one per shape.

    Those would be optimised for their shape: slower to get, and different in the last bit from one load to the next.
    """
    for keywords in [{"training": mode} for mode in interface.modes] or [{}]:
        module.__call__.get_concrete_function(interface.spec, **keywords)


def _input_spec(kind: str) -> Any:
    spec = {name: tf.TensorSpec((None, None), tf.int32, name=name) for name in INPUT_NAMES}
    return spec if kind == "dict" else list(spec.values())


def _trace(call: Any, inputs: Any, **training: bool) -> Any:
    """The trace for these arguments, or None when the module has none."""
    try:
        return call.get_concrete_function(inputs, **training)
    except (ValueError, TypeError):
        return None


def _inspect_outputs(outputs: Any, handle: str) -> tuple[str, int]:
    if isinstance(outputs, Mapping) and set(OUTPUT_NAMES) <= set(outputs):
        kind, pair = "dict", [outputs[name] for name in OUTPUT_NAMES]
    else:
        kind, pair = "tuple", outputs
    if (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(isinstance(x, (tf.Tensor, tf.TensorSpec)) for x in pair)
    ):
        pooled, sequence = pair
        if (pooled.shape.rank, sequence.shape.rank) == (2, 3) and pooled.shape[-1] == sequence.shape[-1] is not None:
            return kind, int(pooled.shape[-1])
    found = tf.nest.map_structure(lambda x: getattr(x, "shape", x), outputs)
    raise UserError(
        f"Encoder {handle!r} is not a BERT encoder. Expected outputs pooled_output (B, H) and sequence_output "
        f"(B, L, H). Found: {' '.join(str(found).split())[:400]}"
    )
