"""The `explain` signature of an export returns the numbers of the explanation page."""

import dataclasses

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import FaceConfig
from emotion_tf.interpret import face, integrated_gradients, signature, text
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.models.activations import replay
from emotion_tf.runs.run import Run
from emotion_tf.serving.graph import ServingGraph

LINES = ["Yes, no! I can’t believe it.", "Well?", "İ did not expect THAT 😀", ""]
STEPS = 16


@pytest.fixture(autouse=True)
def same_steps(monkeypatch):
    monkeypatch.setattr(integrated_gradients, "FIRST_STEPS", STEPS)
    monkeypatch.setattr(signature, "STEPS", STEPS)


@pytest.fixture(scope="module")
def config(small_config):
    """GRU + CNN without hidden units: a dead one would leave nothing to explain."""
    return dataclasses.replace(small_config, fusion=dataclasses.replace(small_config.fusion, dense_units=()))


@pytest.fixture(scope="module")
def run(config, initialised):
    return initialised(config)


def crop(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(pixels, (32, 32)))[1].tobytes()


CROPS = [[crop(1), crop(2)], [], [crop(3)], [crop(4)]]


def explain_both(run, crops):
    """Outputs of the signature, and the batch of the page, for the same utterances."""
    scorer = Scorer(run)
    utterances = [scorer.normalize(Utterance(line, faces)) for line, faces in zip(LINES, crops, strict=True)]
    batch = Batch(scorer, utterances, watched=face.select_cam_layers(scorer))
    graph = ServingGraph([run], run.labels, run.spec.face_size, None)
    width = max(1, *map(len, crops))
    jpegs = [[*faces, *[b""] * (width - len(faces))] for faces in crops]
    context = tf.constant([[""]] * len(LINES))
    raw = {"utterance": tf.constant(LINES), "context": context, "face_jpeg": tf.constant(jpegs)}
    return {name: value.numpy() for name, value in graph.explain(raw).items()}, batch


def check_words(outputs, attributions):
    for n, words_of_row in enumerate(attributions):
        words = [word.decode() for word in outputs["words"][n] if word]
        assert words == [words_of_row.word(i) for i in range(len(words_of_row.spans))]
        np.testing.assert_allclose(outputs["word_attributions"][n][: len(words)], words_of_row.values, atol=1e-5)
        assert not outputs["word_attributions"][n][len(words) :].any()
    assert np.abs(outputs["word_attributions"]).max() > 1e-6


def check_faces(outputs, batch, crops, layer):
    for n, maps in enumerate(face.face_maps(batch, STEPS)):
        values = outputs["face_attributions"][n]
        if crops[n]:
            (cam,) = [each for each in maps if each.key == f"grad_cam {layer}"]
            np.testing.assert_allclose(values[: len(crops[n])], cam.values, atol=1e-5)
        assert not values[len(crops[n]) :].any()
    assert outputs["face_attributions"].max() > 1e-6


def test_gru_and_cnn(run):
    outputs, batch = explain_both(run, CROPS)
    check_words(outputs, text.word_gradients(batch, text.split_texts(batch), STEPS))
    check_faces(outputs, batch, CROPS, "cnn_1_relu_1")
    np.testing.assert_array_equal(outputs["face_present"], [True, False, True, True])


@pytest.mark.slow
def test_two_face_branches_are_explained_at_the_first(config, initialised, tmp_path):
    picture = keras.Input((32, 32, 3))
    path = str(tmp_path / "linear.keras")
    keras.Model(picture, keras.layers.Conv2D(3, 8, strides=8, name="maps")(picture)).save(path)
    tower = FaceConfig(("cnn", "encoder"), encoder=path, cnn_filters=(4, 8))
    both = initialised(dataclasses.replace(config, face=tower), face_files={"encoder": path})
    outputs, batch = explain_both(both, CROPS)
    assert list(batch.features) == ["cnn_1_relu_1", "encoder/maps"]
    check_words(outputs, text.word_gradients(batch, text.split_texts(batch), STEPS))
    check_faces(outputs, batch, CROPS, "cnn_1_relu_1")


@pytest.mark.slow
def test_empty_utterances_have_no_attributions(untrained_text):
    run = Run(untrained_text)
    graph = ServingGraph([run], run.labels, 32, None)
    context, face_jpeg = tf.constant([[""]] * 2), tf.constant([[b"x"]] * 2)
    outputs = graph.explain({"utterance": tf.constant(["", " "]), "context": context, "face_jpeg": face_jpeg})
    assert outputs["words"].shape[0] == 2 and not outputs["word_attributions"].numpy().any()
    assert outputs["face_attributions"].shape == (2, 1, 32, 32) and not outputs["face_attributions"].numpy().any()


@pytest.mark.slow
def test_bert_alone_has_contextual_gradients(bert_config, initialised, tiny_bert):
    config = dataclasses.replace(bert_config, text=dataclasses.replace(bert_config.text, branches=("bert",)))
    outputs, batch = explain_both(initialised(config, encoder=tiny_bert), [[crop(1)], [], [], [crop(2)]])
    check_words(outputs, text.contextual_gradients(batch, text.split_texts(batch), STEPS))


@pytest.mark.slow
def test_a_face_network_without_layers_has_gradient_times_input(run, monkeypatch):
    """A SavedModel has no layers. By hand: the score's gradient at the pixels times the pixels, where it is above 0."""
    monkeypatch.setattr(signature, "default_cam_layers", lambda tower: [])
    outputs, batch = explain_both(run, [[crop(1)], [], [crop(3), crop(2)], []])
    fold, where = batch.towers["face"].find_layer("cnn_frames"), np.argwhere(batch.inputs["face_mask"].numpy())
    pixels = tf.cast(fold([batch.inputs["faces"], batch.inputs["face_mask"]]), tf.float32)
    with tf.GradientTape() as tape, replay(fold, [pixels]):
        tape.watch(pixels)
        score = scores(batch.scorer.model(batch.inputs, training=False)["logits"], batch.target)
    by_hand = np.maximum((tape.gradient(score, pixels) * pixels).numpy().sum(axis=-1), 0)
    assert by_hand.max() > 0 and np.count_nonzero(outputs["face_attributions"].any(axis=(2, 3))) == 3
    for (b, k), expected in zip(where, by_hand, strict=True):
        np.testing.assert_allclose(outputs["face_attributions"][b, k], expected, atol=1e-4 * by_hand.max())
