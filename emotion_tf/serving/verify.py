"""The export contract (docs/serving.md), checked: `export` does it before it ends, `export --verify` later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

from emotion_tf import schema
from emotion_tf.errors import UserError
from emotion_tf.runs import facts
from emotion_tf.runs.export import Export, SavedModel
from emotion_tf.schema import Feature
from emotion_tf.serving import warmup

OPS = Path(__file__).with_name("server_ops.txt")
SIGNATURES = {
    "serving_default": (schema.SERVING_INPUTS, schema.SERVING_OUTPUTS),
    "serve_full": (schema.SERVING_FULL_INPUTS, schema.SERVING_OUTPUTS),
    "serve_bytes": (schema.SERVING_BYTES_INPUTS, schema.SERVING_OUTPUTS),
    "serve_tensors": (None, schema.SERVING_OUTPUTS),
    "explain": (schema.SERVING_FULL_INPUTS, (*schema.SERVING_OUTPUTS, *schema.EXPLAIN_OUTPUTS)),
}
"""Each with its inputs, where they do not depend on the model, and outputs."""
CLOSE, CLOSE_EXPLAINED = 1e-5, 1e-4
MOST_SIZE = 1.05


def verify(path: Path) -> str:
    """Checks an export; returns one line on what held.

    Raises:
        UserError: its files are not those that were written, an op is not in `server_ops.txt`, a signature is missing
            or differs, weights are stored twice, a server's loader cannot take it, or it does not answer its warm-up
            requests as Keras did.
    """
    export = Export.open(path)
    ops = check_ops(path)
    share = check_size(path)
    saved = export.load()
    try:
        check_signatures(saved)
        worst = check_answers(saved)
    finally:
        saved.close()
    return (
        f"{len(SIGNATURES)} signatures, {len(export.facts.labels)} labels, {ops} kinds of op, {share:.3f} of the size "
        f"of its weights, answers within {worst:.1e} of Keras"
    )


@cache
def allowed_ops() -> frozenset[str]:
    """Ops that the server release named in `server_ops.txt` can run."""
    lines = OPS.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def check_ops(path: Path) -> int:
    """How many kinds of op an export has. Raises UserError with the name of one that a server does not know."""
    proto = SavedModelProto()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    where: dict[str, str] = {}
    for name, op in _nodes(proto):
        where.setdefault(op, name)
    wrong = sorted(set(where) - allowed_ops())
    if wrong:
        raise UserError(
            f"{path}: The graph has the op {wrong[0]} (node {where[wrong[0]]}), which TensorFlow Serving 2.18 does "
            f"not have, or not without Python. Expected ops of {OPS.name} alone. All of this kind: {', '.join(wrong)}."
        )
    return len(where)


def _nodes(proto: SavedModelProto) -> Iterator[tuple[str, str]]:
    for graph in (meta.graph_def for meta in proto.meta_graphs):
        functions = {function.signature.name for function in graph.library.function}
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        yield from ((node.name, node.op) for node in nodes if node.op not in functions)


def check_size(path: Path) -> float:
    """Size of an export as a share of its weights'. Raises UserError when they are stored more than once."""
    stored = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    shapes = stored.get_variable_to_shape_map()
    types = stored.get_variable_to_dtype_map()
    held = sum(int(np.prod(shape)) * types[name].size for name, shape in shapes.items() if "VARIABLE_VALUE" in name)
    weights = json.loads((path / facts.FILE).read_text(encoding="utf-8"))["weights_bytes"]
    if held > MOST_SIZE * weights:
        raise UserError(
            f"{path}: The weights are stored more than once. Expected about {weights:,} bytes. Received: {held:,}."
        )
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) / weights


def check_signatures(saved: SavedModel) -> None:
    """Raises UserError when a signature, or one of its inputs or outputs, is missing, or has another type or rank."""
    for name, (inputs, outputs) in SIGNATURES.items():
        if name not in saved.signatures:
            there = ", ".join(sorted(saved.signatures)) or "none"
            raise UserError(f"{saved.path}: No signature {name}. Expected {', '.join(SIGNATURES)}. Received: {there}.")
        found = saved.signatures[name]
        for what, features, tensors in (("input", inputs, found.inputs), ("output", outputs, found.outputs)):
            if features is None:
                continue
            expected = {one.name: _described(one) for one in features}
            received = {
                key: (tf.as_dtype(value.dtype).name, len(value.tensor_shape.dim)) for key, value in tensors.items()
            }
            if expected != received:
                raise UserError(
                    f"{saved.path}: Signature {name}: Expected the {what}s {_told(expected)}. "
                    f"Received: {_told(received)}."
                )


def _described(feature: Feature) -> tuple[str, int]:
    return tf.as_dtype(feature.dtype).name, 1 + len(feature.shape)


def _told(features: dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({dtype}, rank {rank})" for name, (dtype, rank) in sorted(features.items())) or "none"


def check_answers(saved: SavedModel) -> float:
    """The largest difference from Keras' answers to the warm-up requests. Raises UserError when one is too large."""
    worst = 0.0
    for signature, inputs, expected in warmup.read(saved.path / warmup.FILE):
        try:
            found = saved.run(signature, inputs)
        except tf.errors.OpError as error:
            raise UserError(f"{saved.path}: {signature} fails: {' '.join(str(error).split())[:300]}.") from None
        for name, value in expected.items():
            if value.dtype.kind != "f":
                same = np.array_equal(found[name], value)
                difference = 0.0 if same else np.inf
            else:
                difference = float(np.abs(found[name] - value).max(initial=0.0))
            if not difference <= (CLOSE_EXPLAINED if "attributions" in name else CLOSE):
                raise UserError(
                    f"{saved.path}: {signature} does not give the {name} that the Keras model gives (difference "
                    f"{difference:.1e}). Export the run again on this kind of machine, or report it."
                )
            worst = max(worst, difference)
    return worst
