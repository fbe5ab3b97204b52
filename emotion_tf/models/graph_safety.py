"""Checks the graph of a SavedModel before TensorFlow reads it.

A graph is a program: ops read and write files, open connections, run Python. This module parses `saved_model.pb` and
accepts only what our exports and encoders consist of: the ops of `graph_ops.txt`, in the graph and in every function
body, whoever calls it. Initialisers, signatures and restore functions are made of the same nodes.

It is no sandbox: kernels have memory errors, and a loop need not end. See `emotion_tf.trust` and
`emotion_tf.serving.confined`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError, EncodeError
from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

from emotion_tf.errors import UserError
from emotion_tf.folders import check_entries

GRAPH_FILE = "saved_model.pb"
OPS = Path(__file__).with_name("graph_ops.txt")
MAX_BYTES = 1 << 28
"""Largest `saved_model.pb`. Weights are not in it."""
SAVING, RESTORING = frozenset({"SaveV2", "MergeV2Checkpoints", "ShardedFilename"}), frozenset({"RestoreV2"})
"""Ops that write and read checkpoints: only in the function that the saver calls for it."""
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_COLLECTIONS = {"saved_model_main_op", "legacy_init_op"}
_REGISTERED_CLASSES = {"", "tf.StaticHashTable", "tf.TrackableConstant"}
_RESOURCES = {tf.resource.as_datatype_enum, tf.variant.as_datatype_enum}
_DEVICE = re.compile(r"(/job:localhost|/replica:0|/task:0)*(/device:(CPU|GPU):(\d+|\*))?", re.IGNORECASE)
_NAMES = ("container", "shared_name", "debug_name")
FUNCTION_ATTRIBUTES = frozenset(
    {"_construction_context", "_input_shapes", "_tf_data_function", "backward_function_name", "forward_function_name"}
    | {"_XlaMustCompile", "_noinline"}  # of Keras' convolutions in groups, such as ConvNeXt's
)
"""Attributes of functions. By `api_implements`, TensorFlow's optimizer would call another function than the graph."""
ARGUMENT_ATTRIBUTES = frozenset(
    {"_class", "_has_manual_control_dependencies", "_output_shapes", "_user_specified_name"}
)
_SWAPS = re.compile(r"api_.*|(forward|backward)_function_name")
_S3 = b"^s3://.*"  # the pattern with which TensorFlow's own saver recognises the names of remote files


class _Refusal(Exception):
    """The graph has something that no graph of ours has. The message says what, and where."""


@cache
def allowed_ops() -> frozenset[str]:
    """Returns the ops that a graph may have."""
    lines = OPS.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def check_folder(folder: Path, source: Path | str = "") -> MetaGraphDef:
    """Checks the SavedModel in a folder and returns its only meta graph.

    Args:
        folder: the SavedModel.
        source: where it comes from, for the message. Default: the folder.

    Raises:
        UserError: see `check_graph`; or a file of the folder, or an asset, lies outside of it.
    """
    check_entries(folder, source or folder)
    try:
        others = sorted(path.name for path in folder.glob("saved_model.*") if path.name != GRAPH_FILE)
        if others:
            raise _Refusal(f"there is a second graph, {others[0]!r}, beside {GRAPH_FILE}")
        size = (folder / GRAPH_FILE).stat().st_size
        if size > MAX_BYTES or not (folder / GRAPH_FILE).is_file():
            raise _Refusal(f"{GRAPH_FILE} is no file of at most {MAX_BYTES:,} bytes")
        content = (folder / GRAPH_FILE).read_bytes()
    except _Refusal as refusal:
        raise _error(source or folder, refusal) from None
    except OSError as error:
        raise UserError(f"Cannot read {folder / GRAPH_FILE}: {error.strerror or error}.") from None
    return check_graph(content, source or folder)


def check_graph(content: bytes, source: Path | str) -> MetaGraphDef:
    """Checks the content of a `saved_model.pb` and returns its only meta graph.

    Args:
        content: bytes of the file.
        source: where it comes from, for the message.

    Raises:
        UserError: it is no SavedModel with one meta graph; or it has an op outside of `graph_ops.txt`, an attribute
            that names a file, an address, a device of another machine or another graph, or that swaps functions, a
            save or restore op outside of the saver, or an asset outside of its folder.
    """
    try:
        meta = _parse(content)
        functions = _function_names(meta)
        for function in meta.graph_def.library.function:
            _check_function(function)
        for owner, node in nodes(meta):
            _check_node(owner, node, functions)
        _check_saver(meta, functions)
        _check_assets(meta)
        _check_objects(meta)
    except _Refusal as refusal:
        raise _error(source, refusal) from None
    return meta


def _error(source: Path | str, refusal: _Refusal) -> UserError:
    return UserError(
        f"{source}: The graph was not opened: {str(refusal)[:300]}. Expected only ops and attributes of "
        f"this program's own exports and encoders ({OPS.name}). Do not use this file, or get it from its author again."
    )


def _parse(content: bytes) -> MetaGraphDef:
    if len(content) > MAX_BYTES:
        raise _Refusal(f"it has {len(content):,} bytes, more than {MAX_BYTES:,}")
    proto = SavedModelProto()
    try:
        proto.ParseFromString(content)
        size = proto.ByteSize()
        proto.DiscardUnknownFields()
    except (DecodeError, EncodeError, RecursionError):
        raise _Refusal(f"{GRAPH_FILE} is damaged, or nested too deeply") from None
    if proto.ByteSize() != size:
        raise _Refusal("it has fields that TensorFlow does not know")
    if len(proto.meta_graphs) != 1:
        raise _Refusal(f"it has {len(proto.meta_graphs)} meta graphs, not one")
    meta = proto.meta_graphs[0]
    if list(meta.meta_info_def.tags) != ["serve"] or not meta.HasField("object_graph_def"):
        raise _Refusal(f"it is no TensorFlow 2 SavedModel with the tag serve (tags: {list(meta.meta_info_def.tags)})")
    for name, collection in meta.collection_def.items():
        if name not in _COLLECTIONS or collection.WhichOneof("kind") != "node_list":
            raise _Refusal(f"it has the collection {name!r}")
    return meta


def nodes(meta: MetaGraphDef) -> Iterator[tuple[str, Any]]:
    """Yields all nodes, each with the name of its function; "" for the main graph."""
    yield from (("", node) for node in meta.graph_def.node)
    for function in meta.graph_def.library.function:
        yield from ((function.signature.name, node) for node in function.node_def)


def _function_names(meta: MetaGraphDef) -> frozenset[str]:
    """Returns the names of the graph's functions. A function with the name of an op could stand for that op."""
    library = meta.graph_def.library
    names = Counter(function.signature.name for function in library.function)
    for name, count in names.items():
        if count > 1 or name in allowed_ops() or hasattr(tf.raw_ops, name):
            raise _Refusal(f"the function {name!r} has the name of an op or of another function")
    for name in _gradients(library):
        if name not in names:
            raise _Refusal(f"it declares a gradient with {name!r}, which is no function of the graph")
    return frozenset(names)


def _gradients(library: Any) -> Iterator[str]:
    """Yields the functions that have gradients or are gradients."""
    for gradient in library.gradient:
        yield from (gradient.function_name, gradient.gradient_func)
    yield from (gradient.gradient_func for gradient in library.registered_gradients)


def _check_function(function: Any) -> None:
    """Checks the attributes of a function and of its arguments."""
    attributes = [(FUNCTION_ATTRIBUTES, function.attr)]
    attributes += [(ARGUMENT_ATTRIBUTES, argument.attr) for argument in function.arg_attr.values()]
    for allowed, values in attributes:
        for name, value in values.items():
            is_plain = value.WhichOneof("value") in ("s", "b", "list", None) and not value.list.func
            if name not in allowed or not is_plain:
                raise _Refusal(f"function {function.signature.name!r} has the attribute {name!r}")


def _check_node(owner: str, node: Any, functions: frozenset[str]) -> None:
    where = f"node {node.name!r} of {f'function {owner!r}' if owner else 'the graph'}"
    if node.op not in functions and node.op not in allowed_ops():
        raise _Refusal(f"it has the op {node.op!r} ({where})")
    if node.device and not _DEVICE.fullmatch(node.device):
        raise _Refusal(f"{where} runs on {node.device!r}")
    for name, value in node.attr.items():
        if name != "_output_shapes":
            _check_attribute(f"attribute {name} of {where}", name, value, functions)


def _check_attribute(where: str, name: str, value: Any, functions: frozenset[str]) -> None:
    if _SWAPS.fullmatch(name):
        raise _Refusal(f"{where} may replace a function by another")
    kind = value.WhichOneof("value")
    if kind in ("type", "shape", "i", "b", "f", None):
        return
    if kind == "placeholder":  # its value would come from a caller
        raise _Refusal(f"{where} is a placeholder")
    is_list = kind == "list"
    for function in value.list.func if is_list else [value.func] * (kind == "func"):
        if function.name not in functions:
            raise _Refusal(f"{where} is {function.name!r}, which is no function of the graph")
        for inner, attribute in function.attr.items():
            _check_attribute(f"{inner} in {where}", inner, attribute, functions)
    for tensor in value.list.tensor if is_list else [value.tensor] * (kind == "tensor"):
        if tensor.dtype in _RESOURCES or tensor.resource_handle_val or tensor.variant_val:
            raise _Refusal(f"{where} is a handle of another object")
    for text in value.list.s if is_list else [value.s] * (kind == "s"):
        _check_text(where, name, text)


def _check_text(where: str, name: str, text: bytes) -> None:
    """Checks a string attribute. No attribute of our graphs names a file or an address; configurations are empty."""
    if name == "config_proto":
        _check_session(where, text)
        return
    is_path = name in _NAMES and (text.startswith(b"/") or b".." in text or (name == "container" and text))
    if is_path or (b"://" in text and (name, text) != ("pattern", _S3)):
        raise _Refusal(f"{where} is {text[:80]!r}")


def _check_session(where: str, text: bytes) -> None:
    """Checks the session configuration of a call: devices and threads alone."""
    config = ConfigProto()
    try:
        config.ParseFromString(text)
    except DecodeError:
        raise _Refusal(f"{where} is no configuration") from None
    rewriter = config.graph_options.rewrite_options
    if rewriter.custom_optimizers or config.HasField("cluster_def") or config.HasField("rpc_options"):
        raise _Refusal(f"{where} has optimizers or servers")


def _check_saver(meta: MetaGraphDef, functions: frozenset[str]) -> None:
    """Checks that files are read and written by the saver alone, whose file name the loader gives.

    The saver is one call of a function for saving and one for restoring. Nothing else may use them or their file name.
    """
    saver = meta.saver_def
    calls = {saver.save_tensor_name.rpartition(":")[0]: SAVING, saver.restore_op_name: RESTORING}
    calls.pop("", None)
    filename = saver.filename_tensor_name.rpartition(":")[0]
    main = {node.name: node for node in meta.graph_def.node}
    if len(main) < len(meta.graph_def.node):
        raise _Refusal("two nodes have the same name")
    bodies = {}
    for name, ops in calls.items():
        node = main.get(name)
        if node is None or node.op not in CALLS or list(node.input[:1]) != [filename]:
            raise _Refusal(f"the saver's node {name!r} is no call of a function with the saver's file name")
        bodies[node.attr["f"].func.name] = ops
    if filename and (filename not in main or main[filename].op != "Placeholder"):
        raise _Refusal(f"the file name of the saver, {filename!r}, is no placeholder")
    for name in _used_in_main(meta, calls):
        if name in calls or name == filename != "":
            raise _Refusal(f"the saver's node {name!r} is used elsewhere in the graph")
    references = Counter(_references(meta, functions))
    for name in sorted(bodies):
        if references[name] != 1:
            raise _Refusal(f"the saver's function {name!r} is used elsewhere in the graph")
    for owner, node in nodes(meta):
        if node.op in SAVING | RESTORING and node.op not in bodies.get(owner, ()):
            raise _Refusal(f"it has the op {node.op!r} outside of the saver (node {node.name!r})")
    _check_file_names(meta, bodies)


def _used_in_main(meta: MetaGraphDef, saver_calls: Container[str]) -> Iterator[str]:
    """Yields the nodes of the main graph that others use: nodes, signatures, initialisers, assets."""
    for node in meta.graph_def.node:
        if node.name not in saver_calls:
            yield from (_node_of(name) for name in node.input)
    for signature in meta.signature_def.values():
        for tensors in (signature.inputs, signature.outputs):
            yield from (_node_of(name) for tensor in tensors.values() for name in _names_of(tensor))
    for collection in meta.collection_def.values():
        yield from (_node_of(name) for name in collection.node_list.value)
    yield from (_node_of(asset.tensor_info.name) for asset in meta.asset_file_def)


def _names_of(tensor: Any) -> Iterable[str]:
    """Returns the tensor names in a TensorInfo, which may stand for several tensors."""
    sparse = tensor.coo_sparse
    parts = [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    return [tensor.name, *parts, *(component.name for component in tensor.composite_tensor.components)]


def _node_of(tensor_name: str) -> str:
    return tensor_name.removeprefix("^").partition(":")[0]


def _references(meta: MetaGraphDef, functions: frozenset[str]) -> Iterator[str]:
    """Yields each use of a function, by a node, an attribute, a gradient or an object."""
    for _, node in nodes(meta):
        if node.op in functions:
            yield node.op
        for value in node.attr.values():
            yield from _functions_of(value)
    yield from _gradients(meta.graph_def.library)
    objects = meta.object_graph_def
    yield from objects.concrete_functions
    for item in objects.nodes:
        yield item.bare_concrete_function.concrete_function_name
        yield from item.function.concrete_functions
        yield item.captured_tensor.concrete_function


def _functions_of(value: Any) -> Iterator[str]:
    kind = value.WhichOneof("value")
    for function in value.list.func if kind == "list" else [value.func] * (kind == "func"):
        yield function.name
        for attribute in function.attr.values():
            yield from _functions_of(attribute)


def _check_file_names(meta: MetaGraphDef, bodies: Container[str]) -> None:
    """Checks that a restore function reads the file that the loader names."""
    for function in meta.graph_def.library.function:
        if function.signature.name in bodies:
            first = function.signature.input_arg[0].name if function.signature.input_arg else ""
            for node in function.node_def:
                if node.op == "RestoreV2" and list(node.input[:1]) != [first]:
                    raise _Refusal(f"node {node.name!r} restores from another file than the saver's")


def _check_assets(meta: MetaGraphDef) -> None:
    for asset in meta.asset_file_def:
        path = PurePosixPath(asset.filename)
        leaves = path.is_absolute() or ".." in path.parts or not path.name
        if leaves or any(text in asset.filename for text in ("\\", "://", "\0")):
            raise _Refusal(f"its asset {asset.filename!r} lies outside of the folder")


def _check_objects(meta: MetaGraphDef) -> None:
    for item in meta.object_graph_def.nodes:
        if item.registered_name not in _REGISTERED_CLASSES or item.registered_saver:
            raise _Refusal(f"it has an object of the class {item.registered_name or item.registered_saver!r}")
        if item.WhichOneof("kind") == "asset" and item.asset.asset_file_def_index >= len(meta.asset_file_def):
            raise _Refusal("it has an asset without a file")
