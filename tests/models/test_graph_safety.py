"""SavedModels of a stranger: none runs, none is called good, each is refused in one line."""

import ast
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import tensorflow as tf
from hostile_graphs import FOLDERS, GRAPHS, Module, initialiser
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

from emotion_tf.errors import UserError
from emotion_tf.models import graph_safety
from emotion_tf.models.graph_safety import check_folder, check_graph
from emotion_tf.runs.export_files import CHECKSUMS
from emotion_tf.runs.facts import FILE, ModelFacts, write_exported


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


def test_a_large_graph_is_not_read(harmless, monkeypatch, tmp_path):
    monkeypatch.setattr(graph_safety, "MAX_BYTES", 100)
    for judge in (lambda: check_folder(harmless), lambda: check_graph(bytes(101), "x")):
        with pytest.raises(UserError, match="100"):
            judge()


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
    root = Path(__file__).resolve().parent.parent.parent
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
