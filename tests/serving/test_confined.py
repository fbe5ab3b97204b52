"""The child process in which the graph of somebody else runs: its answers and its limits."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from emotion_tf import processes
from emotion_tf.errors import UserError
from emotion_tf.runs.export import SavedModel, weights_size
from emotion_tf.serving import confined, messages


class Module(tf.Module):
    """Harmless ops that answer, that take all memory, that never end."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([2.0], name="weight")

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="utterance")])
    def answer(self, utterance):
        rows = tf.data.Dataset.from_tensors(1.0).map(lambda x: x * 1.0).take(1)  # as exports decode pictures
        return {"label": utterance, "probabilities": tf.fill([2, 2], rows.get_single_element()) * self.weight}

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32, name="size")])
    def take(self, size):
        return {"sum": tf.reduce_sum(tf.fill([size, 1024, 1024], 1.0) * self.weight)}

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32, name="start")])
    def loop(self, start):
        return {"end": tf.while_loop(lambda i: i >= 0, lambda i: [tf.maximum(i, 0)], [start])[0]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "1"
    module = Module()
    signatures = {"answer": module.answer, "take": module.take, "loop": module.loop}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def test_it_answers_within_limits(saved, monkeypatch):
    with contextlib.ExitStack() as files:
        for _ in range(100):  # the limit depends on the files of the child alone
            files.enter_context(open(os.devnull))
        model = confined.ConfinedModel(saved)
    assert set(model.signatures) == {"answer", "take", "loop"} and model.weights_size == 4
    text = np.array([b"a\0b", "é".encode()], object)
    outputs = model.run("answer", {"utterance": text})
    assert outputs["label"].tolist() == text.tolist() and (outputs["probabilities"] == 2.0).all()
    with pytest.raises(UserError, match="No signature 'other'"):
        model.run("other", {})
    with pytest.raises(UserError, match="'answer' has no input 'other'"):
        model.run("answer", {"other": text})
    with pytest.raises(UserError, match="take fails: .*OOM|The process of this export ended"):
        model.run("take", {"size": np.int32(8192)})  # 32 GB
    status = Path(f"/proc/{model._process.pid}")
    if model._process.poll() is None:
        limits = (status / "limits").read_text()
        assert "Max file size             0" in limits
        assert int(limits.split("Max open files")[1].split()[0]) < 64
        assert os.listdir((status / "cwd").readlink()) == []
    monkeypatch.setattr(confined, "ANSWER_SECONDS", 0.5)
    for _ in range(2):  # it does not come back
        with pytest.raises(UserError, match=r"The process of this export ended.*add --trust"):
            model.run("loop", {"start": np.int32(1)})
    folder = model._folder.name
    model.close()
    assert model._process.poll() is not None and not os.path.exists(folder)


def test_a_model_that_cannot_be_loaded(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved, tmp_path / "1")
    (folder / "variables" / "variables.index").write_bytes(b"x")
    monkeypatch.setattr(confined, "START_SECONDS", 60.0)
    with pytest.raises(UserError, match=f"{folder}: Cannot read .*variables"):
        confined.ConfinedModel(folder)


def test_the_environment_has_no_secrets(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    secrets = {"SECRET_TOKEN", "EMOTION_TF_TRUST", "TF_VAR_db_password", "TF_TOKEN_host", "PYTHON_KEYRING_BACKEND"}
    for name in secrets:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    assert not secrets & confined._environment().keys()
    assert confined._environment()["TF_NUM_INTRAOP_THREADS"] == "1"


def test_an_index_that_claims_a_large_shape_raises_no_limit(saved, tmp_path, monkeypatch):
    import resource

    folder, limits = shutil.copytree(saved, tmp_path / "1"), []
    name, part = "weight/.ATTRIBUTES/VARIABLE_VALUE", "1000000000000 0,1"  # one value of a slice
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables" / "variables"), tensor_names=[name], shape_and_slices=[part], tensors=[[2.0]]
    )
    assert weights_size(folder) == 4 * 10**12
    monkeypatch.setattr(confined, "limit_memory", lambda more: limits.append(more) or True)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: None)
    confined._limit(folder)
    assert confined.MEMORY <= limits[0] < confined.MEMORY + 10_000


def test_a_system_that_cannot_limit_memory(saved, monkeypatch):
    monkeypatch.setattr(processes, "Path", lambda name: Path("/no/such/file"))
    with pytest.raises(UserError, match=r"cannot limit the memory.*Expected Linux.*add --trust"):
        confined._limit(saved)


def test_a_signature_that_names_no_tensor_of_the_graph(saved):
    """The child answers with the error: a process that ends would be mistaken for one that exceeds its limits."""
    model = SavedModel(saved)
    model.signatures["answer"].outputs["label"].name = "other:0"
    request = PredictRequest()
    request.model_spec.signature_name = "answer"
    request.inputs["utterance"].CopyFrom(tf.make_tensor_proto([b"x"]))
    assert confined._answer(model, request).startswith(b"Eanswer fails: ")


def test_a_tensor_of_few_bytes_claims_no_large_shape():
    proto = tf.make_tensor_proto(np.float32(1.0))
    assert messages.read_tensor(proto) == 1.0
    for value in (np.ones((3, 2), bool), np.array([b"", b"a\0"], object), np.zeros((0, 5), np.int64)):
        assert messages.read_tensor(tf.make_tensor_proto(value)).tolist() == value.tolist()
    for shape in ([60_000, 60_000], [2**32, 2**32], [-1]):
        proto.tensor_shape.CopyFrom(tf.TensorShape([]).as_proto())
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        with pytest.raises(ValueError, match="shape"):
            messages.read_tensor(proto)
