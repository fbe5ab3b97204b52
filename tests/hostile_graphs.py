"""Harmful changes of a harmless SavedModel: of its graph, and of the files beside it."""

import os

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto


class Module(tf.Module):
    """A harmless graph with a function, a variable and so a saver."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([1.0], name="weight")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="utterance")])
    def serve(self, utterance):
        length = tf.cast(tf.shape(utterance)[0], tf.float32)
        return {"probabilities": tf.fill([2, 2], length) * self.weight}


def node(nodes, op, *inputs, name="evil", **attributes):
    made = nodes.add(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        if isinstance(value, bytes):
            made.attr[key].s = value
        elif isinstance(value, list):
            made.attr[key].list.s.extend(value)
        elif isinstance(value, np.ndarray):
            made.attr[key].tensor.CopyFrom(tf.make_tensor_proto(value))
        else:
            made.attr[key].type = value
    return made


def text(nodes, name, value):
    return node(
        nodes, "Const", name=name, value=np.array(str(value).encode(), object), dtype=tf.string.as_datatype_enum
    )


def body(meta, name="serve"):
    """The nodes of the function that answers requests."""
    return next(f for f in meta.graph_def.library.function if name in f.signature.name).node_def


def write_file(meta, canary):
    nodes = body(meta)
    text(nodes, "path", canary)
    node(nodes, "WriteFile", "path:output:0", "utterance")


def read_file(meta, canary):
    nodes = meta.graph_def.node
    text(nodes, "path", "/etc/hostname")
    node(nodes, "ReadFile", "path")
    meta.signature_def["serve_full"].outputs["probabilities"].name = "evil:0"


def print_to_file(meta, canary):
    nodes = body(meta)
    text(nodes, "message", "x")
    node(nodes, "PrintV2", "message:output:0", output_stream=f"file://{canary}".encode(), end=b"")


def debug_address(meta, canary):
    node(meta.graph_def.node, "DebugIdentityV2", "serve_full_utterance", debug_urls=[f"file://{canary}".encode()])


def listed_op_with_an_address(meta, canary):
    nodes = body(meta)
    node(nodes, "StringJoin", "utterance", "utterance", separator=f"file://{canary}".encode())


def nested_function(meta, canary):
    inner = meta.graph_def.library.function.add()
    inner.signature.name = "__inference_inner_1"
    text(inner.node_def, "path", canary)
    node(inner.node_def, "WriteFile", "path:output:0", "path:output:0")
    node(body(meta), "StatefulPartitionedCall").attr["f"].func.name = inner.signature.name


def function_of_a_branch(meta, canary):
    """A function-valued attribute may name an op."""
    branch = node(body(meta), "StatelessIf")
    branch.attr["then_branch"].func.name = branch.attr["else_branch"].func.name = "WriteFile"


def function_named_as_an_op(meta, canary):
    inner = meta.graph_def.library.function.add()
    inner.signature.name = "WriteFile"
    write_file(meta, canary)


def initialiser(meta, canary):
    text(meta.graph_def.node, "path", canary)
    node(meta.graph_def.node, "WriteFile", "path", "path")
    meta.collection_def["saved_model_main_op"].node_list.value[:] = ["evil"]
    del meta.signature_def["__saved_model_init_op"]


def initialiser_of_a_collection(meta, canary):
    meta.collection_def["queue_runners"].bytes_list.value.append(b"x")


def dataset_from_graph(meta, canary):
    text(meta.graph_def.node, "graph", "x")
    node(meta.graph_def.node, "DatasetFromGraph", "graph")


def compiled_module(meta, canary):
    node(body(meta), "XlaCallModule", module=b"x")


def python_function(meta, canary):
    node(body(meta), "EagerPyFunc", token=b"pyfunc_0")


def library_of_a_person(meta, canary):
    node(body(meta), "TFText>Unknown")


def asset_outside(meta, canary):
    asset = meta.asset_file_def.add(filename="../../../../../../etc/passwd")
    asset.tensor_info.name = "asset:0"
    text(meta.graph_def.node, "asset", "")


def saved_by_a_request(meta, canary):
    """The text of a request would be the name of the checkpoint that the saver writes."""
    signature = meta.signature_def["serve_full"]
    signature.inputs["utterance"].name = meta.saver_def.filename_tensor_name
    signature.outputs["probabilities"].name = meta.saver_def.save_tensor_name


def saved_by_the_initialiser(meta, canary):
    meta.collection_def["saved_model_main_op"].node_list.value[:] = [meta.saver_def.save_tensor_name.split(":")[0]]


def saved_by_a_function(meta, canary):
    nodes = body(meta)
    text(nodes, "path", canary)
    names = next(f.signature.name for f in meta.graph_def.library.function if "traced_save" in f.signature.name)
    node(nodes, "StatefulPartitionedCall", "path:output:0").attr["f"].func.name = names


def saved_outside_of_the_saver(meta, canary):
    nodes = body(meta)
    text(nodes, "path", canary)
    node(nodes, "SaveV2", "path:output:0", "path:output:0", "path:output:0", "path:output:0")


def restored_from_elsewhere(meta, canary):
    nodes = body(meta, "traced_restore")
    text(nodes, "path", "/etc/passwd")
    next(n for n in nodes if n.op == "RestoreV2").input[0] = "path:output:0"


def saved_when_it_is_restored(meta, canary):
    """The loader runs the restore function."""
    nodes = body(meta, "traced_restore")
    node(nodes, "SaveV2", "file_prefix", "file_prefix", "file_prefix", "file_prefix")


def swapped_for_the_saver(meta, canary):
    """TensorFlow's optimizer calls another function with the same `api_implements`, here the saver's."""
    for function, device in zip(meta.graph_def.library.function[:2], (b"CPU", b"GPU"), strict=True):
        function.attr["api_implements"].s, function.attr["api_preferred_device"].s = b"x", device


def swapped_by_a_call(meta, canary):
    called = next(n for n in meta.graph_def.node if "f" in n.attr).attr["f"].func
    called.attr["forward_function_name"].s = b"x"


def attribute_of_an_argument(meta, canary):
    meta.graph_def.library.function[0].arg_attr[0].attr["_composite_device"].s = b"CPU:0"


def saved_by_a_gradient(meta, canary):
    names = next(f.signature.name for f in meta.graph_def.library.function if "traced_save" in f.signature.name)
    meta.graph_def.library.registered_gradients.add(gradient_func=names, registered_op_type="CustomGradient-1")


def handle_of_another_object(meta, canary):
    value = node(body(meta), "Const", dtype=tf.resource.as_datatype_enum).attr["value"].tensor
    value.dtype = tf.resource.as_datatype_enum
    value.resource_handle_val.add(name="other", container="localhost")


def container(meta, canary):
    next(n for n in meta.graph_def.node if n.op == "VarHandleOp").attr["container"].s = b"/tmp"


def placeholder_attribute(meta, canary):
    nodes = (n for function in meta.graph_def.library.function for n in function.node_def)
    next(n for n in nodes if n.op == "Cast").attr["DstT"].placeholder = "T"


def device_of_another_machine(meta, canary):
    meta.graph_def.node[0].device = "/job:worker/task:1/device:CPU:0"


def optimizer_of_a_call(meta, canary):
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.custom_optimizers.add(name="x")
    next(n for n in meta.graph_def.node if "config_proto" in n.attr).attr["config_proto"].s = config.SerializeToString()


def class_of_an_object(meta, canary):
    meta.object_graph_def.nodes[0].registered_name = "tf.Other"


def tag(meta, canary):
    meta.meta_info_def.tags[:] = ["serve", "gpu"]


def second_meta_graph(folder, canary):
    proto = SavedModelProto.FromString((folder / "saved_model.pb").read_bytes())
    proto.meta_graphs.add().CopyFrom(proto.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())


def unknown_field(folder, canary):
    content = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(content + bytes([0xFA, 0x7F, 1, 0]))  # field 2047


def deep_nesting(folder, canary):
    """A function attribute inside a function attribute and so on, beyond what the parser accepts."""
    inner = b""
    for _ in range(200):  # AttrValue.func (10) -> NameAttrList.attr (2) -> value (2)
        for field in (2, 2, 10):
            inner = bytes([field << 3 | 2]) + _varint(len(inner)) + inner
    graph = inner
    for field in (
        2,
        5,
        1,
        2,
        2,
    ):  # NodeDef.attr, GraphDef.node, MetaGraphDef.graph_def, ...
        graph = bytes([field << 3 | 2]) + _varint(len(graph)) + graph
    (folder / "saved_model.pb").write_bytes(graph)


def _varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def link_outside(folder, canary):
    (folder / "assets").mkdir()
    (folder / "assets" / "vocab.txt").symlink_to("/etc/hostname")


def pipe(folder, canary):
    os.mkfifo(folder / "fingerprint")


GRAPHS = [
    *(write_file, read_file, print_to_file, debug_address, listed_op_with_an_address, nested_function),
    *(function_of_a_branch, function_named_as_an_op, initialiser, initialiser_of_a_collection, dataset_from_graph),
    *(compiled_module, python_function, library_of_a_person, asset_outside, saved_by_a_request),
    *(saved_by_the_initialiser, saved_by_a_function, saved_outside_of_the_saver, restored_from_elsewhere),
    *(saved_when_it_is_restored, swapped_for_the_saver, swapped_by_a_call, attribute_of_an_argument),
    saved_by_a_gradient,
    *(handle_of_another_object, container, placeholder_attribute, device_of_another_machine, optimizer_of_a_call),
    *(class_of_an_object, tag),
]
FOLDERS = [
    *(second_meta_graph, unknown_field, deep_nesting, link_outside, pipe),
    lambda folder, canary: (folder / "saved_model.pbtxt").write_text(""),
    lambda folder, canary: (folder / "saved_model.cpb").write_text(""),
]
