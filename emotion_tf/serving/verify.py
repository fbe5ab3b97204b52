"""Checks the export contract (docs/serving.md): for `export` before it ends, and for `export --verify`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.errors import UserError
from emotion_tf.models.graph_safety import GRAPH_FILE, SavedModelProto, nodes
from emotion_tf.runs import facts
from emotion_tf.runs.export import Export, SavedModel
from emotion_tf.schema import Feature
from emotion_tf.serving import warmup
from emotion_tf.serving.confined import ConfinedModel, open_model
from emotion_tf.serving.release import RELEASE

OPS = Path(__file__).with_name("server_ops.txt")
SIGNATURES = {
    "serving_default": (schema.SERVING_INPUTS, schema.SERVING_OUTPUTS),
    "serve_full": (schema.SERVING_FULL_INPUTS, schema.SERVING_OUTPUTS),
    "serve_bytes": (schema.SERVING_BYTES_INPUTS, schema.SERVING_OUTPUTS),
    "serve_tensors": (None, schema.SERVING_OUTPUTS),
    "explain": (schema.SERVING_FULL_INPUTS, (*schema.SERVING_OUTPUTS, *schema.EXPLAIN_OUTPUTS)),
}
"""Inputs and outputs of each signature. The inputs of `serve_tensors` depend on the model."""
TOLERANCE, ATTRIBUTION_TOLERANCE = 1e-5, 1e-4
"""Largest absolute difference from the Keras model's outputs."""
MAX_SIZE_RATIO = 1.05


def verify(path: Path) -> str:
    """Checks an export. Returns a summary of one line, which says what was checked.

    Raises:
        UserError: a file differs from what was written; the graph has something that may do harm; an op is not in
            `server_ops.txt`; a signature is missing or differs; weights are stored twice; a server's loader cannot load
            it; its outputs for the warm-up requests differ from the Keras model's.
    """
    export = Export.open(path)
    ops = check_ops(path)
    model = open_model(export)
    try:
        share = check_size(path, model.weights_size)
        check_signatures(model)
        worst = check_outputs(model)
    finally:
        model.close()
    origin = "made or trusted by you" if export.is_trusted else "not made here by you: run in a process with limits"
    return (
        f"{len(SIGNATURES)} signatures, {len(export.facts.labels)} labels, {ops} kinds of op, none with files or "
        f"connections, {share:.3f} of the size of its weights, answers within {worst:.1e} of those in its warm-up file "
        f"(Keras' when it was exported); {origin}"
    )


@cache
def allowed_ops() -> frozenset[str]:
    """Returns the ops that the server release named in `server_ops.txt` can run."""
    lines = OPS.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def check_ops(path: Path) -> int:
    """Returns the number of kinds of op in an export. Raises UserError if a server lacks one of them."""
    meta = SavedModelProto.FromString((path / GRAPH_FILE).read_bytes()).meta_graphs[0]
    functions = {function.signature.name for function in meta.graph_def.library.function}
    names = {node.op: node.name for _, node in nodes(meta) if node.op not in functions}
    unknown = sorted(set(names) - allowed_ops())
    if unknown:
        raise UserError(
            f"{path}: The graph has the op {unknown[0]} (node {names[unknown[0]]}), which TensorFlow Serving "
            f"{RELEASE} does not have, or not without Python. Expected only ops of {OPS.name}. Received: "
            f"{', '.join(unknown)}."
        )
    return len(names)


def check_size(path: Path, size: int) -> float:
    """Returns the size of an export relative to its weights. Raises UserError if they are stored more than once.

    Args:
        path: the export.
        size: bytes of the variables in it.
    """
    expected = facts.read_exported(path).weights_bytes
    if not expected:
        raise UserError(f"{path / facts.FILE}: Invalid `weights_bytes`. Expected a number above 0. Received: 0.")
    if size > MAX_SIZE_RATIO * expected:
        raise UserError(
            f"{path}: The weights are stored more than once. Expected about {expected:,} bytes. Received: {size:,}."
        )
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / expected


def check_signatures(saved: SavedModel | ConfinedModel) -> None:
    """Raises UserError if a signature, an input or an output is missing, or has another dtype or rank."""
    for name, (inputs, outputs) in SIGNATURES.items():
        if name not in saved.signatures:
            received_names = ", ".join(sorted(saved.signatures)) or "none"
            raise UserError(
                f"{saved.path}: No signature {name}. Expected {', '.join(SIGNATURES)}. Received: {received_names}."
            )
        definition = saved.signatures[name]
        for side, features, tensors in (("input", inputs, definition.inputs), ("output", outputs, definition.outputs)):
            if features is None:
                continue
            expected = {feature.name: _dtype_and_rank(feature) for feature in features}
            received = {
                key: (tf.as_dtype(value.dtype).name, len(value.tensor_shape.dim)) for key, value in tensors.items()
            }
            if expected != received:
                raise UserError(
                    f"{saved.path}: Signature {name}: Expected the {side}s {_listed(expected)}. "
                    f"Received: {_listed(received)}."
                )


def _dtype_and_rank(feature: Feature) -> tuple[str, int]:
    return tf.as_dtype(feature.dtype).name, 1 + len(feature.shape)


def _listed(features: dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({dtype}, rank {rank})" for name, (dtype, rank) in sorted(features.items())) or "none"


def check_outputs(saved: SavedModel | ConfinedModel) -> float:
    """Returns the largest difference from the Keras model on the warm-up requests. Raises UserError above tolerance."""
    worst = 0.0
    for signature, inputs, expected in warmup.read_requests(saved.path / warmup.FILE):
        try:
            outputs = saved.run(signature, inputs)
        except (tf.errors.OpError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{saved.path}: {signature!r} fails: {' '.join(str(error).split())[:300]}.") from None
        kinds = {name: (value.shape, value.dtype) for name, value in outputs.items()}
        if kinds != {name: (value.shape, value.dtype) for name, value in expected.items()}:
            raise UserError(
                f"{saved.path}: A warm-up request has other answers than {signature} gives: {str(kinds)[:300]}."
            )
        for name, value in expected.items():
            if value.dtype.kind != "f":
                difference = 0.0 if np.array_equal(outputs[name], value) else np.inf
            else:
                difference = float(np.abs(outputs[name] - value).max(initial=0.0))
            tolerance = ATTRIBUTION_TOLERANCE if "attributions" in name else TOLERANCE
            if not difference <= tolerance:
                raise UserError(
                    f"{saved.path}: The {name} of {signature} differ from the Keras model's. Expected a difference of "
                    f"at most {tolerance:.0e}. Received: {difference:.1e}. Export the run again on this machine."
                )
            worst = max(worst, difference)
    return worst
