"""Exports in other programs: C++, which loads them as TensorFlow Serving does, and Python without this project."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from cpp_server import build_program, keras_outputs, largest_differences, run_requests
from untrusted_inputs import requests

from emotion_tf.serving.predict import RunPredictor

pytestmark = pytest.mark.slow

CLIENT = """
import sys, numpy as np, tensorflow as tf, tensorflow_text
inputs = np.load(sys.argv[2], allow_pickle=False)
signatures = tf.saved_model.load(sys.argv[1]).signatures
texts = [bytes(t).rstrip(b"\\0") for t in inputs["texts"]]
faces, ends = inputs["faces"].tobytes(), inputs["ends"]
crops = [faces[a:b] for a, b in zip([0, *ends[:-1]], ends)]
out = signatures["serving_default"](utterance=tf.constant(texts), face_jpeg=tf.constant(crops))
assert "emotion_tf" not in sys.modules
np.savez(sys.argv[3], probabilities=out["probabilities"], label=out["label"].numpy().astype("U"))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build_program(tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="module")
def predictor(bert_run):
    return RunPredictor(bert_run)


def test_every_signature_gives_the_outputs_of_keras(program, exported_bert, predictor, tmp_path):
    """In C++."""
    numbers, attributions, _ = largest_differences(program, exported_bert, predictor, tmp_path, 32)
    assert numbers <= 1e-5 and attributions <= 1e-4


def test_an_export_with_bert_in_another_process_equals_predict(exported_bert, bert_run, predictor, rows, tmp_path):
    assert (exported_bert / "assets" / "vocab.txt").read_bytes() == (bert_run.path / "vocab.txt").read_bytes()
    texts, faces = rows
    crops = [face or b"" for face in faces]
    np.savez(
        tmp_path / "in.npz",
        texts=np.array([t.encode() for t in texts]),
        faces=np.frombuffer(b"".join(crops), np.uint8),
        ends=np.cumsum([len(c) for c in crops]),
    )
    (tmp_path / "client.py").write_text(CLIENT)
    words = [sys.executable, "client.py", str(exported_bert), "in.npz", "out.npz"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    expected = predictor.predict(texts, faces)
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, atol=1e-5)
        assert list(outputs["label"]) == expected.label
    assert len(np.unique(expected.probabilities.round(6), axis=0)) == 10


def test_a_plain_saved_model_cannot_be_run(program, untrained, tmp_path):
    """The program finds what a server cannot load: the same function, saved without ExportArchive."""
    from emotion_tf.runs.run import Run

    predictor, module = RunPredictor(Run(untrained)), tf.Module()
    module.parts, module.model = [member.preprocess for member in predictor.graph.members], predictor.model
    serve, signature = predictor.graph.signatures["serving_default"]
    module.serve = tf.function(serve, input_signature=signature, autograph=False)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.serve})
    inputs = {name: value[:1] for name, value in requests(32)["serving_default"].items()}
    loaded = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    expected = keras_outputs(predictor, "serving_default", inputs)["probabilities"]
    np.testing.assert_allclose(loaded(**tensors)["probabilities"], expected, atol=1e-6)  # Python loads it
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_requests(program, tmp_path / "1", [("serving_default", inputs)], tmp_path)
    assert "Could not find variable" in error.value.stderr
