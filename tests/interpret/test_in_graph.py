"""What `explain` of an export gives is what `interpret` gives, and sums to what it explains."""

import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.interpret import face, in_graph, integrate, text
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.models.activations import replay
from emotion_tf.runs.run import Run
from emotion_tf.serving.graph import Graph

LINES = ["Yes, no! I can’t believe it.", "Well?", "İ did not expect THAT 😀", ""]
STEPS = 16


@pytest.fixture(autouse=True)
def as_many_steps(monkeypatch):
    monkeypatch.setattr(integrate, "FIRST_STEPS", STEPS)
    monkeypatch.setattr(in_graph, "STEPS", STEPS)


@pytest.fixture(scope="module")
def run(small_config, initialised):
    """GRU + CNN without hidden units: a dead one would leave nothing to explain."""
    fusion = dataclasses.replace(small_config.fusion, dense_units=())
    return initialised(dataclasses.replace(small_config, fusion=fusion))


def crop(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(pixels, (32, 32)))[1].tobytes()


def both(run, crops):
    """Outputs of the graph, and the batch of `interpret`, of the same utterances."""
    scorer = Scorer(run)
    kept = [scorer.keep(Utterance(line, faces)) for line, faces in zip(LINES, crops, strict=True)]
    batch = Batch(scorer, kept, watch=face.layers_to_watch(scorer))
    graph = Graph([run], run.labels, run.spec.face_size, None)
    width = max(1, *map(len, crops))
    jpegs = [[*faces, *[b""] * (width - len(faces))] for faces in crops]
    strings = tf.constant(LINES), tf.constant([[""]] * len(LINES)), tf.constant(jpegs)
    return {name: value.numpy() for name, value in graph.explain(*strings).items()}, batch


def check_words(found, strips):
    for n, strip in enumerate(strips):
        words = [word.decode() for word in found["words"][n] if word]
        assert words == [strip.word(i) for i in range(len(strip.spans))]
        np.testing.assert_allclose(found["word_attributions"][n][: len(words)], strip.values, atol=1e-5)
        assert not found["word_attributions"][n][len(words) :].any()


def test_gru_and_cnn(run):
    crops = [[crop(1), crop(2)], [], [crop(3)], [crop(4)]]
    found, batch = both(run, crops)
    check_words(found, text.word_gradients(batch, text.texts(batch), STEPS))
    for n, maps in enumerate(face.maps(batch, STEPS)):
        own = found["face_attributions"][n]
        if crops[n]:
            (cam,) = [one for one in maps if one.key.startswith("grad_cam")]
            np.testing.assert_allclose(own[: len(crops[n])], cam.values, atol=1e-5)
        assert not own[len(crops[n]) :].any()
    assert np.abs(found["word_attributions"]).max() > 1e-6 and found["face_attributions"].max() > 1e-6
    np.testing.assert_array_equal(found["face_present"], [True, False, True, True])


@pytest.mark.slow
def test_nothing_at_all_is_explained_by_nothing(untrained_text):
    run = Run(untrained_text)
    graph = Graph([run], run.labels, 32, None)
    found = graph.explain(tf.constant(["", " "]), tf.constant([[""]] * 2), tf.constant([[b"x"]] * 2))
    assert found["words"].shape[0] == 2 and not found["word_attributions"].numpy().any()
    assert found["face_attributions"].shape == (2, 1, 32, 32) and not found["face_attributions"].numpy().any()


@pytest.mark.slow
def test_bert_alone_is_its_contextual_strip(bert_config, initialised, tiny_bert):
    config = dataclasses.replace(bert_config, text=dataclasses.replace(bert_config.text, branches=("bert",)))
    found, batch = both(initialised(config, encoder=tiny_bert), [[crop(1)], [], [], [crop(2)]])
    check_words(found, text.contextual_gradients(batch, text.texts(batch), STEPS))
    assert np.abs(found["word_attributions"]).max() > 1e-6


@pytest.mark.slow
def test_a_face_network_without_layers_has_gradient_times_input(run, monkeypatch):
    """As of a SavedModel; by hand: the score's gradient at the pixels times the pixels, where it is above 0."""
    monkeypatch.setattr(in_graph, "cam_layers", lambda tower: [])
    found, batch = both(run, [[crop(1)], [], [crop(3), crop(2)], []])
    fold, where = batch.towers["face"].find_layer("cnn_frames"), np.argwhere(batch.inputs["face_mask"].numpy())
    real = tf.cast(fold([batch.inputs["faces"], batch.inputs["face_mask"]]), tf.float32)
    with tf.GradientTape() as tape, replay(fold, [real]):
        tape.watch(real)
        score = scores(batch.scorer.model(batch.inputs, training=False)["logits"], batch.target)
    by_hand = np.maximum((tape.gradient(score, real) * real).numpy().sum(axis=-1), 0)
    assert by_hand.max() > 0 and np.count_nonzero(found["face_attributions"].any(axis=(2, 3))) == 3
    for (b, k), expected in zip(where, by_hand, strict=True):
        np.testing.assert_allclose(found["face_attributions"][b, k], expected, atol=1e-4 * by_hand.max())
