"""Predictions of a run from raw inputs, and of a run that was moved."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tensorflow as tf
from helpers import BIASES, ROOT

import emotion_tf
from emotion_tf.data import manifest, pipeline
from emotion_tf.data.context import previous_lines
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.raw import encode_faces
from emotion_tf.errors import UserError
from emotion_tf.labels import MELD_EMOTIONS
from emotion_tf.serving.predict import RunPredictor
from emotion_tf.serving.predictor import batch_rows, per_utterance
from emotion_tf.training.evaluate import evaluate


@pytest.fixture(scope="module")
def predictor(served_bert):
    return emotion_tf.load(str(served_bert.path))


def test_predict_from_raw_input_equals_evaluate_from_records(served_bert, predictor, dataset, manifest_path):
    probabilities, records, _, outputs, _ = evaluate(served_bert, Dataset.open(dataset), "test")
    rows = list(pipeline.read_rows(records))
    known = {
        (r.dialogue_id, r.utterance_id): r
        for r in manifest.read_manifest(manifest_path, MELD_EMOTIONS)
        if r.split == "test"
    }
    utterances = [known[row["dialogue_id"], row["utterance_id"]] for row in rows]
    texts, faces = [r.utterance for r in utterances], [list(r.faces) or None for r in utterances]
    contexts = previous_lines([(r.dialogue_id, r.speaker, r.utterance) for r in utterances], 2)
    assert sum(map(bool, contexts)) > len(utterances) / 2
    raw = predictor.predict(texts, faces, contexts)
    np.testing.assert_allclose(raw.probabilities, probabilities, atol=1e-5)
    # the class with the highest logit, with its calibrated probability, although another class may be more probable
    assert raw.predicted.tolist() == outputs.logits.argmax(axis=1).tolist() != probabilities.argmax(axis=1).tolist()
    assert raw.label == [MELD_EMOTIONS[i] for i in raw.predicted]
    np.testing.assert_array_equal(raw.confidence, raw.probabilities[np.arange(len(rows)), raw.predicted])
    assert len(set(raw.probabilities.round(6)[:, 0])) > 10
    without_context = predictor.predict(texts, faces).probabilities
    assert [bool(lines) for lines in contexts] == (
        np.abs(without_context - raw.probabilities).max(axis=1) > 1e-6
    ).tolist()


def test_every_kind_of_face_and_none(predictor, manifest_path):
    path = next((manifest_path.parent / "faces").rglob("*.jpg"))
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    faces = [path, str(path), path.read_bytes(), [path, path], None]
    result = predictor.predict(["Well."] * 5, faces).probabilities
    for i in (1, 2, 3):
        np.testing.assert_allclose(result[0], result[i], atol=1e-6)
    assert np.abs(result[0] - result[4]).max() > 1e-6
    assert predictor.predict(["Well."], [pixels]).probabilities.shape == (1, 7)
    np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-5)
    assert predictor.predict([], []).probabilities.shape == (0, 7)
    assert set(predictor.predict(["Well."]).label) <= set(MELD_EMOTIONS)


def test_each_pattern_of_modalities_has_its_temperature(predictor, rows):
    import tensorflow as tf

    texts, faces = (["You did it!", "You did it!", "", ""], [rows[1][0], None, rows[1][0], None])
    inputs = predictor.preprocess(
        {"utterance": tf.constant(texts), "face_jpeg": tf.constant([[face or b""] for face in faces])}
    )
    logits = predictor.model(inputs, training=False)["logits"].numpy()
    calibrated = tf.nn.softmax((logits + np.float32(BIASES)) / np.array([[0.5], [2.0], [3.0], [3.0]])).numpy()
    np.testing.assert_allclose(predictor.predict(texts, faces).probabilities, calibrated, atol=1e-5)


def test_invalid_arguments_are_one_line(predictor):
    with pytest.raises(UserError, match="Expected one entry"):
        predictor.predict(["a", "b"], [None])
    with pytest.raises(UserError, match="Invalid `contexts`. Expected one entry"):
        predictor.predict(["a", "b"], None, [["b"]])
    with pytest.raises(UserError, match="Expected a list of strings"):
        predictor.predict("a")
    with pytest.raises(UserError, match="Expected uint8 pixels"):
        predictor.predict(["a"], [np.zeros((4, 4))])
    with pytest.raises(UserError, match="Cannot decode the face of row 0"):
        predictor.predict(["a"], [b"not a picture"])


@pytest.mark.slow
def test_a_moved_run_predicts_the_same_without_cache_encoder_and_data(
    served_bert, predictor, rows, tiny_bert, tmp_path
):
    texts, _ = rows
    moved = tmp_path / "elsewhere"
    shutil.copytree(served_bert.path, moved)
    hidden = f"{tiny_bert}.hidden"
    shutil.move(tiny_bert, hidden)
    try:
        code = (
            "import sys, json, emotion_tf\n"
            "p = emotion_tf.load(sys.argv[1]).predict(json.loads(sys.argv[2]))\n"
            "print(json.dumps(p.probabilities.tolist()))"
        )
        environment = {**os.environ, "EMOTION_TF_CACHE": str(tmp_path / "empty"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(moved), json.dumps(texts)],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        shutil.move(hidden, tiny_bert)
    got = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(got, predictor.predict(texts).probabilities, atol=1e-6)


def test_a_damaged_model_file_is_one_line(served_bert, tmp_path):
    shutil.copytree(served_bert.path, tmp_path / "run")
    (tmp_path / "run" / "model.keras").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"Cannot load .*model\.keras"):
        emotion_tf.load(str(tmp_path / "run"))


def test_pipeline_and_raw_text_give_the_same_inputs(predictor, dataset):
    """The word pieces in the records equal those of the served graph."""
    records = Dataset.open(dataset).rows("test")
    inputs, _, _ = next(iter(pipeline.eval_batches(records, predictor.preprocess, 8)))
    import tensorflow as tf

    rows = list(pipeline.read_rows(records))
    contexts = previous_lines([(row["dialogue_id"], row["speaker"], row["utterance"]) for row in rows], 2)[:8]
    texts = [row["utterance"] for row in rows][:8]
    context = tf.ragged.constant(contexts, ragged_rank=1)
    raw = predictor.preprocess({"utterance": tf.constant(texts), "context": context})
    assert tf.reduce_max(raw["input_type_ids"]) == 1
    for name in ("input_word_ids", "input_mask", "input_type_ids", "word_ids"):
        np.testing.assert_array_equal(inputs[name], raw[name])


def test_a_model_that_returns_nan_is_refused():
    predictor = RunPredictor.__new__(RunPredictor)
    predictor.source = "saved_models/x"
    answer = {"probabilities": tf.constant([[float("nan"), 0.5]])}
    predictor.graph = SimpleNamespace(full=lambda inputs: answer)
    with pytest.raises(UserError, match="saved_models/x: The model returns nan or infinite numbers"):
        predictor._predict_batch(["a"], [[]], [[]])


@pytest.mark.parametrize(
    ("crops", "sizes"),
    [
        ([], []),
        ([0], [1]),
        ([3000], [1]),
        ([1] * 130, [64, 64, 2]),
        ([0, 0, 1000, 0, 0, 20], [2, 1, 3]),
        ([100] * 21, [10, 10, 1]),
    ],
)
def test_a_batch_has_few_crops_also_after_the_padding(crops, sizes):
    """One utterance with many faces took the memory of 63 such ones."""
    batches = list(batch_rows(crops))
    assert [len(crops[rows]) for rows in batches] == sizes
    assert [row for rows in batches for row in range(len(crops))[rows]] == list(range(len(crops)))


@pytest.mark.parametrize(
    ("utterances", "contexts", "message"),
    [
        (
            ["a", float("nan")],
            None,
            r'Invalid `utterances\[1\]`. Expected a string, "" if there is none. Received: nan',
        ),
        ([None], None, r"utterances\[0\]`.*Received: None"),
        ([b"a"], None, "Received: b'a'"),
        (["a"], ["Ada: You did it!"], "Received for row 0 one string: 'Ada: You did it!'. Put it into a list"),
        (["a", "b"], [None, ["c", 3]], r"Invalid `contexts\[1\]\[1\]`.*Received: 3"),
    ],
)
def test_texts_that_are_no_strings(utterances, contexts, message):
    with pytest.raises(UserError, match=message):
        per_utterance(utterances, None, contexts)


@pytest.mark.parametrize("face", [float("nan"), 3, ["a.jpg", None]])
def test_a_face_that_is_none(face, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="Invalid face of row 7"):
        encode_faces(face, 8, 7)
