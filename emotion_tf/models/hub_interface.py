"""The call signature of a SavedModel's module: that of TF-Hub's BERT encoders, or of its image modules."""

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
    """Call signature of a BERT encoder.

    Attributes:
        inputs: `dict`, or `list` for [word ids, mask, type ids].
        modes: values of `training` that it was traced with; empty if it has no such argument.
        outputs: `dict`, or `tuple` for (pooled, sequence).
        hidden: width H of the outputs.
    """

    inputs: str
    modes: tuple[bool, ...]
    outputs: str
    hidden: int

    @property
    def spec(self) -> Any:
        """Spec of the inputs."""
        return _input_spec(self.inputs)


@dataclass(frozen=True)
class ImageInterface:
    """Call signature of an image module.

    Attributes:
        height, width: size of the images in pixels; None: any.
        modes: values of `training` that it was traced with; empty if it has no such argument.
        hidden: width D of the output.
    """

    height: int | None
    width: int | None
    modes: tuple[bool, ...]
    hidden: int

    @property
    def spec(self) -> tf.TensorSpec:
        """Spec of the input."""
        return tf.TensorSpec((None, self.height, self.width, 3), tf.float32)


def inspect_module(module: Any, handle: str) -> Interface:
    """Returns the call signature of a BERT encoder, read from its traces without running it.

    Raises:
        UserError: it is not a BERT encoder. The message shows its signatures or outputs.
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
    signatures = "; ".join(str(f.structured_input_signature) for f in getattr(call, "concrete_functions", [])[:2])
    raise UserError(
        f"Encoder {handle!r} is not a BERT encoder. Expected int32 inputs {', '.join(INPUT_NAMES)} of shape "
        f"(None, None). Found: {' '.join(signatures.split())[:600] or 'no signature'}"
    )


def inspect_image_module(module: Any, handle: str) -> ImageInterface:
    """Returns the call signature of an image module: TF-Hub's common one, float32 (N, H, W, 3) -> (N, D).

    Raises:
        UserError: it is not an image module.
    """
    call = module.__call__ if callable(module) else None
    traces = getattr(call, "concrete_functions", [])
    specs = [spec for trace in traces for spec in tf.nest.flatten(trace.structured_input_signature) if _is_image(spec)]
    for height, width in dict.fromkeys(tuple(spec.shape[1:3]) for spec in specs):
        spec = tf.TensorSpec((None, height, width, 3), tf.float32)
        of_mode = {mode: trace for mode in (False, True) if (trace := _trace(call, spec, training=mode))}
        trace = of_mode.get(False) or of_mode.get(True) or _trace(call, spec)
        output = trace.structured_outputs if trace else None
        if isinstance(output, (tf.Tensor, tf.TensorSpec)) and output.shape.rank == 2 and output.shape[1]:
            return ImageInterface(height, width, tuple(of_mode), int(output.shape[1]))
    signatures = "; ".join(f"{t.structured_input_signature} -> {t.structured_outputs}" for t in traces[:2])
    raise UserError(
        f"The face network {handle!r} is not a TF-Hub image module. Expected float32 (None, H, W, 3) -> (None, D). "
        f"Found: {' '.join(signatures.split())[:400] or 'no signature that can be called'}. Save a Keras model as "
        "a .keras file."
    )


def _is_image(spec: Any) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.dtype == tf.float32 and spec.shape.rank == 4 and spec.shape[3] == 3


def trace_module(module: Any, interface: Interface | ImageInterface) -> None:
    """Selects the traces for any batch size and length, before TensorFlow traces the module for each shape.

    Traces for a shape are optimised for it: they cost time, and their last bits differ from load to load.
    """
    for keywords in [{"training": mode} for mode in interface.modes] or [{}]:
        module.__call__.get_concrete_function(interface.spec, **keywords)


def _input_spec(kind: str) -> Any:
    spec = {name: tf.TensorSpec((None, None), tf.int32, name=name) for name in INPUT_NAMES}
    return spec if kind == "dict" else list(spec.values())


def _trace(call: Any, inputs: Any, **training: bool) -> Any:
    """Returns the trace for these arguments, or None if there is none."""
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
    shapes = tf.nest.map_structure(lambda x: getattr(x, "shape", x), outputs)
    raise UserError(
        f"Encoder {handle!r} is not a BERT encoder. Expected outputs pooled_output (B, H) and sequence_output "
        f"(B, L, H). Found: {' '.join(str(shapes).split())[:400]}"
    )
