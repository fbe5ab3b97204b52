"""The child process in which the graph of somebody else runs: its answers and its limits."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.serving import confined


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
    model = confined.ConfinedModel(saved)
    assert set(model.signatures) == {"answer", "take", "loop"} and model.weights_size == 4
    text = np.array([b"a\0b", "é".encode()], object)
    outputs = model.run("answer", {"utterance": text})
    assert outputs["label"].tolist() == text.tolist() and (outputs["probabilities"] == 2.0).all()
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
    monkeypatch.setenv("EMOTION_TF_TRUST", "1")
    assert not {"SECRET_TOKEN", "EMOTION_TF_TRUST"} & confined._environment().keys()
