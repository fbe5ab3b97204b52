"""Warm-up files and answers of a stranger: each is refused in one line, before it takes memory."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from emotion_tf.errors import UserError
from emotion_tf.runs.facts import ModelFacts
from emotion_tf.serving import warmup
from emotion_tf.serving.predict import ExportPredictor
from emotion_tf.serving.verify import check_outputs

ONE = {"probabilities": np.ones((1, 2), np.float32)}


def record(content, length=None):
    return struct.pack("<QI", len(content) if length is None else length, 0) + content + bytes(4)


def expanding_tensor():
    log = PredictionLog()
    proto = log.predict_log.request.inputs["faces"]
    proto.CopyFrom(tf.make_tensor_proto(np.float32(1.0)))
    for size in (60_000, 60_000):
        proto.tensor_shape.dim.add(size=size)
    return record(log.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        record(b"x", length=20_000_000_000_000),  # TensorFlow's reader crashes
        record(b"x", length=2**64 - 1),
        record(b"x") + b"cut",
        record(b"no message"),
        expanding_tensor(),
    ],
    ids=["long", "longest", "cut", "no message", "expanding tensor"],
)
def test_a_hostile_file_is_refused(content, tmp_path):
    (tmp_path / "requests").write_bytes(content)
    with pytest.raises(UserError, match="Cannot read the warm-up requests"):
        warmup.read_requests(tmp_path / "requests")


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(warmup, "MAX_BYTES", 10)
    (tmp_path / "requests").write_bytes(bytes(11))
    with pytest.raises(UserError, match="more than 10 bytes"):
        warmup.read_requests(tmp_path / "requests")


class Answers:
    """A model that always gives the same outputs."""

    def __init__(self, path, outputs):
        self.path, self.outputs = path, outputs

    def run(self, signature, inputs):
        return self.outputs


@pytest.mark.parametrize("outputs", [{}, {"probabilities": np.array([[b"a", b"b"]], object)}, {**ONE, "more": ONE}])
def test_other_outputs_than_the_stored_ones(outputs, tmp_path):
    """Text in place of numbers, an output too few or too many."""
    (tmp_path / "assets.extra").mkdir()
    inputs = {"utterance": np.array([b"Hi"], object)}
    warmup.write_requests(tmp_path / warmup.FILE, "x", [("serve_full", inputs, ONE)])
    assert check_outputs(Answers(tmp_path, ONE)) == 0
    stored = {name: value for name, value in outputs.items() if isinstance(value, np.ndarray)}
    with pytest.raises(UserError, match="other answers"):
        check_outputs(Answers(tmp_path, {**stored, "more": ONE["probabilities"]} if "more" in outputs else stored))


PRESENCE = {"text_present": np.ones(1, bool), "face_present": np.zeros(1, bool)}
PROBABILITIES = np.array([[0.75, 0.25]], np.float32)
PREDICTION = {
    **PRESENCE,
    "probabilities": PROBABILITIES,
    "logits": np.log(PROBABILITIES),
    "label": np.array([b"a"], object),
}


@pytest.mark.parametrize(
    "changes",
    [
        {"probabilities": np.array([[b"a", b"b"]], object)},
        {"probabilities": np.ones((1, 3), np.float32)},
        {"face_present": np.zeros(1, np.float32)},
        {"face_present": None},
        {"logits": None},
        {"logits": np.ones((1, 3), np.float32)},
    ],
    ids=["texts", "another number of labels", "another dtype", "missing", "no logits", "another number of logits"],
)
def test_predictions_of_another_kind_than_the_facts_state(changes, tmp_path):
    predictor = ExportPredictor.__new__(ExportPredictor)
    predictor.facts, predictor.source = ModelFacts("x", ("a", "b"), 32, 1, 0, False), "x"
    predictor._saved_model = Answers(tmp_path, PREDICTION)
    assert predictor.predict(["Hi"]).label == ["a"]
    outputs = {name: value for name, value in (PREDICTION | changes).items() if value is not None}
    predictor._saved_model = Answers(tmp_path, outputs)
    with pytest.raises(UserError, match="its outputs do not fit the labels a, b"):
        predictor.predict(["Hi"])
