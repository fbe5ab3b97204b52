"""`.keras` files of a stranger: neither their layers nor their encoders run, each is refused in one line."""

import io
import json
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hostile_graphs import node, text
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

import emotion_tf
from emotion_tf import trust
from emotion_tf.errors import UserError
from emotion_tf.models import hub_encoder
from emotion_tf.models.keras_file import check_keras_file, load_keras_file
from emotion_tf.runs.run import Run


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
    "network that is downloaded": layer("ConvNeXtTiny", "keras.src.applications.convnext"),
    "function beside a layer": {**layer("function", "keras.src.applications.convnext"), "config": "ConvNeXtTiny"},
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
    "our name of another class": {**layer("Hashing", num_bins=2), "registered_name": "emotion_tf>MaskedMean"},
    "our class of another module": {**layer("MaskedMean"), "registered_name": "emotion_tf>MaskedMean"},
    "our name as a class": layer("emotion_tf>MaskedMean"),
    "function of our name": {**layer("function", "os"), "config": "x", "registered_name": "emotion_tf>MaskedMean"},
    "older format": {key: value for key, value in layer("Dense", units=2).items() if key != "module"},
    "older format of our name": {"class_name": "Hashing", "registered_name": "emotion_tf>MaskedMean", "config": {}},
    "no registered name": {"class_name": "Dense", "module": "keras.layers", "config": {"units": 2}},
    "encoder without its module": {
        **layer("HubEncoder", "emotion_tf.models.hub_encoder", handle="/tmp/evil"),
        "registered_name": "emotion_tf>HubEncoder",
    },
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


def test_a_network_of_convnext_is_loaded(tmp_path):
    """Its layers are the only ones of Keras that belong to one network."""
    from keras.src.applications.convnext import LayerScale, StochasticDepth

    inputs = keras.Input((2, 2, 4))
    model = keras.Model(inputs, StochasticDepth(0.1)(LayerScale(0.5, 4)(inputs)))
    model.save(tmp_path / "model.keras")
    x = np.arange(16.0).reshape(1, 2, 2, 4)
    np.testing.assert_array_equal(load_keras_file(tmp_path / "model.keras")(x), 0.5 * x)


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
    assert emotion_tf.load(bert.path, trust=True).predict(["Hi"]).label
    with pytest.raises(UserError, match="trust=True in Python"):
        emotion_tf.load(bert.path)


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
    monkeypatch.setattr(hub_encoder, "_LOADED", {})
    opened = []
    monkeypatch.setattr(hub_encoder, "read_module_files", lambda folder: opened.append(str(folder)) or {})
    layer = next(item for item in _encoders(bert) if Path(item["config"]["handle"]).is_dir())
    clone = keras.saving.deserialize_keras_object(layer)
    assert opened == [] and clone._holder is None
    for module in ({}, {"module": None}):
        config = {key: value for key, value in layer["config"].items() if key != "module"} | module
        with pytest.raises(UserError, match="no description of the module"):
            keras.saving.deserialize_keras_object(layer | {"config": config})
    assert opened == []


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
