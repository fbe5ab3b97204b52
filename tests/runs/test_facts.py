"""The folders of exports: facts that a stranger wrote, entries that are no files, names that are no versions."""

import json
import os
import shutil

import pytest
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.models.graph_safety import SavedModelProto
from emotion_tf.runs.export import Export, SavedModel, versions, weights_size
from emotion_tf.runs.export_files import write_checksums
from emotion_tf.runs.facts import FILE, ModelFacts, read_exported, read_facts, write_exported


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "1" / FILE).parent.mkdir(parents=True)
    write_exported(tmp_path / "1", ModelFacts("x", ("a", "b"), 32, 1, 0, False))
    return tmp_path / "1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"face_size": 1_000_000}, "`face_size`. Expected a number of at most 1024"),
        ({"face_size": "32"}, "`face_size`. Expected an integer"),
        ({"face_size": True}, "`face_size`. Expected an integer"),
        ({"context": 10**12}, "`context`. Expected a number of at most 10000"),
        ({"max_faces": -1}, "`max_faces`. Expected a number of at least 1"),
        ({"labels": []}, "`labels`. Expected 2 or more items"),
        ({"labels": "ab"}, "`labels`. Expected a list"),
        ({"labels": ["a", 1]}, r"`labels\[1\]`. Expected a text"),
        ({"name": None}, "`name`. Expected a text"),
        ({"crops": [1]}, "`crops`. Expected an object"),
        ({"weights_bytes": float("inf")}, "`weights_bytes`. Expected an integer"),
        ({"more": 1}, "Unknown key `more`"),
    ],
    ids=str,
)
def test_facts_that_no_export_has(values, message, folder):
    facts = json.loads((folder / FILE).read_text())
    assert read_exported(folder).labels == ("a", "b")
    (folder / FILE).write_text(json.dumps(facts | values))
    with pytest.raises(UserError, match=f"{FILE.name}: .*{message}"):
        read_exported(folder)


def test_no_facts_and_deeply_nested_facts(folder):
    (folder / FILE).write_text("[" * 100_000)
    with pytest.raises(UserError, match="model.json: Expected JSON .*recursion limit"):
        read_exported(folder)
    (folder / FILE).unlink()
    with pytest.raises(UserError, match="No export at"):
        read_exported(folder)


class Module(tf.Module):
    """A graph with a weight."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([1.0, 2.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")], autograph=False)
    def scale(self, x):
        return {"double": self.weight[1] * x, "same": self.weight[0] * x}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An export of a small graph."""
    path, module = tmp_path_factory.mktemp("saved") / "1", Module()
    tf.saved_model.save(module, str(path), signatures={"serve_full": module.scale})
    (path / FILE).parent.mkdir()
    write_exported(path, ModelFacts("x", ("a", "b"), 32, 1, 0, False))
    write_checksums(path)
    return path


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "1")


def test_labels_in_another_order_and_exchanged_outputs_are_refused_also_with_new_sums(copied):
    assert Export.open(copied).facts.labels == read_facts(copied).labels == ("a", "b")
    facts, graph = json.loads((copied / FILE).read_text()), (copied / "saved_model.pb").read_bytes()

    def refused():
        write_checksums(copied)
        for read in (Export.open, read_facts):
            with pytest.raises(UserError, match="model.json: Its labels or its graph have changed"):
                read(copied)

    (copied / FILE).write_text(json.dumps({**facts, "labels": ["b", "a"]}))
    refused()
    (copied / FILE).write_text(json.dumps(facts))
    proto = SavedModelProto.FromString(graph)
    outputs = proto.meta_graphs[0].signature_def["serve_full"].outputs
    double, same = (outputs[name].SerializeToString() for name in ("double", "same"))
    outputs["double"].ParseFromString(same)
    outputs["same"].ParseFromString(double)
    (copied / "saved_model.pb").write_bytes(proto.SerializeToString())
    refused()


@pytest.mark.parametrize("read", [Export.open, read_facts])
@pytest.mark.parametrize(("key", "value"), [("face_size", 64), ("context", 3), ("name", "y")])
def test_other_facts_are_refused_by_their_sums(key, value, read, copied):
    facts = json.loads((copied / FILE).read_text())
    (copied / FILE).write_text(json.dumps({**facts, key: value}))
    with pytest.raises(UserError, match="model.json has changed. Expected SHA-256"):
        read(copied)


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 9], ids=str)
def test_an_index_of_the_weights_that_is_gone_or_damaged(content, copied):
    index = copied / "variables" / "variables.index"
    index.unlink()
    if content is not None:
        index.write_bytes(content)
    write_checksums(copied)
    Export.open(copied)
    with pytest.raises(UserError, match="A server could not load"):
        SavedModel(copied)
    with pytest.raises(UserError, match="Cannot read .*variables"):
        weights_size(copied)


def test_a_signature_that_is_gone_and_an_input_without_its_name(copied):
    proto = SavedModelProto.FromString((copied / "saved_model.pb").read_bytes())
    inputs = proto.meta_graphs[0].signature_def["serve_full"].inputs
    inputs["y"].CopyFrom(inputs["x"])
    del inputs["x"]
    (copied / "saved_model.pb").write_bytes(proto.SerializeToString())
    model = SavedModel(copied)
    with pytest.raises(UserError, match="'serve_full' has no input 'x'"):
        model.run("serve_full", {"x": [1.0]})
    with pytest.raises(UserError, match="No signature 'explain'"):
        model.run("explain", {})
    model.close()


def test_a_pipe_in_place_of_the_facts_is_not_opened(folder):
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)
    for read in (read_exported, Export.open):
        with pytest.raises(UserError, match="is no file and no folder"):
            read(folder)


def test_a_link_to_itself(folder):
    (folder / "assets").symlink_to("assets")
    with pytest.raises(UserError, match="is no file and no folder"):
        Export.open(folder)


@pytest.mark.parametrize("name", ["9 ", " 9", "01", "+9", "-1", "\u00b2", "\u0669", "9" * 30, "new"])
def test_a_name_that_servers_may_take_for_a_version(name, untrained, tmp_path, fault, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    for file in untrained.iterdir():
        (run / file.name).symlink_to(file)
    for version in ("1", name):
        (run / "serving" / version).mkdir(parents=True)
    (run / "serving" / ".hidden").mkdir()
    for verb in ("serve", "export"):
        assert "is no version number" in fault(verb, run)
    (run / "serving" / name).rmdir()
    assert versions(run / "serving") == [1]


def test_a_version_that_no_server_reads(untrained, fault):
    assert "Expected a number from 1 to 999,999,999,999,999,999" in fault("export", untrained, "--version", 10**18)
