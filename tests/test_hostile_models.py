"""SavedModels and `.keras` files of a stranger: none runs, none is called good, each is refused in one line."""

import ast
import io
import json
import os
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

from emotion_tf import trust
from emotion_tf.errors import UserError
from emotion_tf.models.graph_safety import check_folder, check_graph
from emotion_tf.models.keras_file import check_keras_file
from emotion_tf.runs.export import CHECKSUMS
from emotion_tf.runs.facts import FILE, ModelFacts, write_exported
from emotion_tf.runs.run import Run


class Module(tf.Module):
    """A harmless graph with a function, a variable and so a saver."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([1.0], name="weight")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="utterance")])
    def serve(self, utterance):
        length = tf.cast(tf.shape(utterance)[0], tf.float32)
        return {"probabilities": tf.fill([2, 2], length) * self.weight}


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harmless") / "1"
    module = Module()
    tf.saved_model.save(module, str(folder), signatures={"serve_full": module.serve})
    shutil.rmtree(folder / "assets", ignore_errors=True)
    return folder


@pytest.fixture
def export(harmless, tmp_path):
    """Function from a change of the proto to the folder of an export with it, whose checksums are right."""

    def make(change=lambda meta, canary: None, then=lambda folder, canary: None):
        folder, canary = shutil.copytree(harmless, tmp_path / "1"), tmp_path / "canary"
        proto = SavedModelProto.FromString((folder / "saved_model.pb").read_bytes())
        change(proto.meta_graphs[0], canary)
        (folder / "saved_model.pb").write_bytes(proto.SerializeToString())
        (folder / FILE).parent.mkdir()
        write_exported(folder, ModelFacts("x", ("a", "b"), 32, 1, 0, False), weights_bytes=4)
        then(folder, canary)
        sums = [
            f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
            for path in folder.rglob("*")
            if path.is_file()
        ]
        (folder / CHECKSUMS).write_text("".join(sums))
        return folder

    return make


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


def handle_of_another_object(meta, canary):
    value = node(body(meta), "Const", dtype=tf.resource.as_datatype_enum).attr["value"].tensor
    value.dtype = tf.resource.as_datatype_enum
    value.resource_handle_val.add(name="other", container="localhost")


def container(meta, canary):
    next(n for n in meta.graph_def.node if n.op == "VarHandleOp").attr["container"].s = b"/tmp"


def placeholder_attribute(meta, canary):
    next(n for n in body(meta) if n.op == "Cast").attr["DstT"].placeholder = "T"


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
    saved_when_it_is_restored,
    *(handle_of_another_object, container, placeholder_attribute, device_of_another_machine, optimizer_of_a_call),
    *(class_of_an_object, tag),
]
FOLDERS = [
    *(second_meta_graph, unknown_field, deep_nesting, link_outside, pipe),
    lambda folder, canary: (folder / "saved_model.pbtxt").write_text(""),
    lambda folder, canary: (folder / "saved_model.cpb").write_text(""),
]


def test_the_harmless_graph_is_accepted(harmless):
    assert list(check_folder(harmless).signature_def)


def test_a_graph_that_is_not_judged_writes_its_file(export, tmp_path):
    """What the others are refused for."""
    folder = export(initialiser)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("trusted", [(), ("--trust",)])
@pytest.mark.parametrize("change", GRAPHS, ids=lambda change: change.__name__)
def test_a_hostile_export_is_refused(change, trusted, export, fault, tmp_path):
    folder = export(change)
    for words in (("predict", folder, "--text", "Hi"), ("export", folder, "--verify")):
        message = fault(*words, *trusted)
        assert "The graph was not opened: " in message and len(message) < 800, message
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("change", FOLDERS)
def test_a_folder_that_two_readers_could_read_in_two_ways_is_refused(change, export, fault):
    message = fault("export", export(then=change), "--verify")
    assert "The graph was not opened: " in message and len(message) < 800, message


def test_a_handle_of_an_encoder_is_judged(export, tmp_path):
    from emotion_tf.models.hub_encoder import HubEncoder
    from emotion_tf.models.hub_handles import load_vocabulary

    folder = export(initialiser)
    for opens in (HubEncoder, load_vocabulary):
        with pytest.raises(UserError, match="The graph was not opened: it has the op 'WriteFile'"):
            opens(str(folder))
    assert not (tmp_path / "canary").exists()


# Files of Keras


def layer(class_name, module="keras.layers", **config):
    return {"class_name": class_name, "module": module, "config": {"name": "evil", **config}, "registered_name": None}


def model_with(item):
    """The configuration of a model with this layer."""
    inputs = layer("InputLayer", batch_shape=[None, 2], dtype="float32", name="input")
    return layer("Sequential", "keras", layers=[inputs, item])


LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wAAAA==", "defaults": None, "closure": None}}
CONFIGS = {
    "Lambda": layer("Lambda", function=LAMBDA),
    "lambda as an activation": layer("Dense", units=2, activation=LAMBDA),
    "pickle": layer("TorchModuleWrapper", module={"class_name": "__bytes__", "config": {"value": "gASVAAAA"}}),
    "SavedModel": layer("TFSMLayer", filepath="/tmp/canary", call_endpoint="serve"),
    "custom object": {**layer("Evil", "evil_package"), "registered_name": "evil_package>Evil"},
    "class of Python": layer("Popen", "subprocess", args="touch canary"),
    "function of Python": layer("Dense", units=2, activation={**layer("function", "os"), "config": "system"}),
    "vocabulary from a file": layer("TextVectorization", vocabulary="/etc/passwd"),
    "download": layer("Dense", units=2, activation={**layer("function", "keras.utils"), "config": "get_file"}),
    "internal function": layer("Dense", units=2, activation=layer("get_file", "keras.src.utils.file_utils")),
    "registered under our name": {**layer("Evil", "emotion_tf.files"), "registered_name": "emotion_tf>Evil"},
    "registered name of a built-in": {**layer("Dense", units=2), "registered_name": "evil_package>Dense"},
    "type": {
        "class_name": "__typespec__",
        "spec_name": "Evil",
        "module": "evil",
        "registered_name": None,
        "config": [],
    },
    "another module": layer("load_data", "keras.datasets.mnist"),
}


@pytest.fixture
def run(untrained, tmp_path):
    """A run whose `model.keras` a test replaces."""
    return Run(shutil.copytree(untrained, tmp_path / "run"))


def edit(path, **members):
    """Replaces or adds members of a zip file; None removes one."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (contents | members).items():
            if content is not None:
                archive.writestr(name, content)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_class_that_is_no_layer_of_ours_is_refused(name, run, fault):
    edit(run.model_path, **{"config.json": json.dumps(model_with(CONFIGS[name]))})
    message = fault("predict", run.path, "--text", "Hi")
    assert "Its configuration has " in message and len(message) < 500, message


def external_link(file):
    file["layers"] = h5py.ExternalLink("/etc/other.h5", "/")


def external_storage(file):
    path = next(iter(_datasets(file)))
    shape, dtype = file[path].shape, file[path].dtype
    del file[path]
    file.create_dataset(path, shape, dtype, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def _datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


@pytest.mark.parametrize("change", [external_link, external_storage])
def test_weights_that_lie_in_another_file_are_refused(change, run, fault):
    with zipfile.ZipFile(run.model_path) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        if change is external_link:
            del file["layers"]
        change(file)
    edit(run.model_path, **{"model.weights.h5": weights.getvalue()})
    assert f"Cannot load {run.model_path}" in fault("predict", run.path, "--text", "Hi")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../canary": b"x"}, "contains '../canary'"),
        ({"assets/../../canary": b"x"}, "contains 'assets/../../canary'"),
        ({"/tmp/canary": b"x"}, "contains '/tmp/canary'"),
        ({"model.weights.npz": b"x", "model.weights.h5": None}, "contains 'model.weights.npz'"),
        ({"config.json": b"[" * 100_000}, "damaged"),
        ({"config.json": b"x"}, "damaged"),
        ({"config.json": None}, "damaged"),
    ],
)
def test_members_that_keras_does_not_write(members, message, run, fault):
    edit(run.model_path, **members)
    assert message in fault("predict", run.path, "--text", "Hi")


def test_a_bomb_a_link_and_a_duplicate(run):
    contents = run.model_path.read_bytes()
    with zipfile.ZipFile(run.model_path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("assets/x", "w") as file:
        for _ in range(120):
            file.write(bytes(1 << 20))
    with pytest.raises(UserError, match="too large for the file"):
        check_keras_file(run.model_path)
    run.model_path.write_bytes(contents)
    with zipfile.ZipFile(run.model_path, "a") as archive:
        link = zipfile.ZipInfo("assets/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="contains 'assets/link'"):
        check_keras_file(run.model_path)
    run.model_path.write_bytes(contents)
    with zipfile.ZipFile(run.model_path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    with pytest.raises(UserError, match=r"contains 'config\.json'"):
        check_keras_file(run.model_path)


@pytest.mark.parametrize("name", ["hf://person/model.keras", "folder.keras", "model.h5"])
def test_other_things_than_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "folder.keras" / "config.json").write_text("{}")
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    with pytest.raises(UserError, match=r"is no \.keras file"):
        check_keras_file(Path(name))


# Encoders inside of files of Keras


@pytest.fixture
def bert(untrained_bert, tmp_path):
    return Run(shutil.copytree(untrained_bert.path, tmp_path / "bert"))


def edit_encoder(run, change, canary):
    """Changes the graph of a run's encoder, and its checksum in the configuration. Returns the new checksum."""
    with zipfile.ZipFile(run.model_path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("saved_model.pb"))
        before, config = archive.read(name), archive.read("config.json").decode()
    proto = SavedModelProto.FromString(before)
    change(proto.meta_graphs[0], canary)
    after = proto.SerializeToString()
    digest = sha256(after).hexdigest()
    edit(run.model_path, **{name: after, "config.json": config.replace(sha256(before).hexdigest(), digest)})
    return digest


def write_file_of_an_encoder(meta, canary):
    nodes = next(f for f in meta.graph_def.library.function if "traced" not in f.signature.name).node_def
    text(nodes, "path", canary)
    node(nodes, "WriteFile", "path:output:0", "path:output:0")


def version_of_an_encoder(meta, canary):
    meta.meta_info_def.tensorflow_version = "2.0.0"


def test_an_encoder_that_was_edited_is_refused(bert, fault, tmp_path):
    digest = edit_encoder(bert, write_file_of_an_encoder, tmp_path / "canary")
    trust.remember(digest, "a test: even a trusted graph has only ops of the list")
    for words in ((), ("--trust",)):
        message = fault("predict", bert.path, "--text", "Hi", *words)
        assert "The graph was not opened: it has the op 'WriteFile'" in message
    assert not (tmp_path / "canary").exists()


def test_an_encoder_of_somebody_else_needs_trust(bert, fault, succeed, tmp_path):
    edit_encoder(bert, version_of_an_encoder, tmp_path)
    message = fault("predict", bert.path, "--text", "Hi")
    assert "Its encoder graph was not made here by you" in message and "add --trust" in message
    assert "neutral" in succeed("predict", bert.path, "--text", "Hi", "--trust")
    assert "add --trust" in fault("predict", bert.path, "--text", "Hi")  # trusted once, not for ever


def test_a_graph_whose_checksum_the_configuration_does_not_have(bert, tmp_path):
    edit_encoder(bert, version_of_an_encoder, tmp_path)
    with zipfile.ZipFile(bert.model_path) as archive:
        config = json.loads(archive.read("config.json"))
    replaced = json.dumps(config).replace('"sha256": "', '"sha256": "0')
    edit(bert.model_path, **{"config.json": replaced})
    with trust.everything(), pytest.raises(UserError, match="Cannot load"):
        _ = bert.model


def test_a_folder_that_a_configuration_names_is_not_opened(bert, tiny_bert, monkeypatch):
    """Neither the folder of the handle, nor what its checksum is there, counts."""
    from emotion_tf.models import hub_encoder

    monkeypatch.setattr(hub_encoder, "_LOADED", {})
    opened = []
    monkeypatch.setattr(hub_encoder, "read_module_files", lambda folder: opened.append(str(folder)) or {})
    layer = next(item for item in _encoders(bert) if Path(item["config"]["handle"]).is_dir())
    clone = keras.saving.deserialize_keras_object(layer)
    assert opened == [] and clone._holder is None


def _encoders(run):
    with zipfile.ZipFile(run.model_path) as archive:
        rest = [json.loads(archive.read("config.json"))]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            if item.get("class_name") == "HubEncoder":
                yield {key: value for key, value in item.items() if key != "build_config"}
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)


# What is trusted, and who loads

LOADERS = {
    "saved_model.load": {"graph_loader"},
    "saving.load_model": {"backbones", "keras_file"},  # the first loads a file of a wheel whose SHA-256 it knows
}
NOWHERE = (
    *("hub.load", "hub.KerasLayer", "import_graph_def", "import_meta_graph", "load_op_library", "load_library"),
    *("TFSMLayer", "models.load_model", "model_from_json", "enable_unsafe_deserialization"),
    *("pickle.load", "torch.load"),
)


def test_no_other_module_loads_a_graph_or_a_model():
    callers = {name: set() for name in (*LOADERS, *NOWHERE)}
    root = Path(__file__).resolve().parent.parent
    for path in [*(root / "emotion_tf").rglob("*.py"), *(root / "tuning").rglob("*.py")]:
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(item, ast.Call):
                called = ast.unparse(item.func)
                for name in callers:
                    if f".{called}".endswith(f".{name}"):
                        callers[name].add(path.stem)
                for keyword in item.keywords:
                    assert keyword.arg != "safe_mode", path
                    assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False", path
    assert {name: modules for name, modules in callers.items() if modules} == LOADERS


def test_what_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path))
    digest = sha256(b"x").hexdigest()
    with pytest.raises(UserError, match=r"add --trust"):
        trust.check(digest, "graph", "here")
    with trust.everything():
        trust.check(digest, "graph", "here")
    assert not trust.is_trusted(digest)
    trust.remember(digest, "a test\udcff")
    assert trust.is_trusted(digest) and os.listdir(tmp_path / "trusted") == [digest]
    with pytest.raises(ValueError, match="Invalid SHA-256"):
        trust.is_trusted("../../etc/passwd")


def test_a_folder_of_trust_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path / "file"))
    trust.remember("0" * 64, "a test")
    assert not trust.is_trusted("0" * 64)


def test_a_large_graph_is_not_read(harmless, monkeypatch, tmp_path):
    from emotion_tf.models import graph_safety

    monkeypatch.setattr(graph_safety, "MAX_BYTES", 100)
    for judge in (lambda: check_folder(harmless), lambda: check_graph(bytes(101), "x")):
        with pytest.raises(UserError, match="100"):
            judge()
