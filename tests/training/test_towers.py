"""Models cut where their towers end: the same logits, and those of a model whose inputs were exchanged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import FusionConfig
from emotion_tf.data import pipeline, records
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, read_vocabulary
from emotion_tf.models.two_tower import build_model
from emotion_tf.training import towers
from emotion_tf.training.outputs import inference, outputs, pattern_of, probabilities_of

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(scope="module", params=["concat", pytest.param("cross_attention", marks=pytest.mark.slow)])
def parts(request, small_config, dataset):
    """A model as it was initialised, its preprocessor, and a split of raw inputs."""
    info = records.read_info(dataset)
    fusion = FusionConfig(kind=request.param, width=8, heads=2, dense_units=(8,))
    config = dataclasses.replace(small_config, fusion=fusion, text=dataclasses.replace(small_config.text, context=2))
    words = WordVocabulary(["i", "the", "you", "is", "it"])
    model = build_model(config, records.data_spec(info), len(words))
    pieces = WordPieceTokenizer(read_vocabulary(dataset / "vocab.txt"), True)
    preprocess = Preprocessor(model.input, info["face_size"], config.text, pieces, words)
    return model, preprocess, pipeline.split_rows(dataset, info, "dev")


def test_without_and_exchanged_as_the_whole_model_says(parts, monkeypatch):
    model, preprocess, rows = parts
    data = pipeline.eval_batches(rows, preprocess, 20)  # batches of other lengths
    found = outputs(model, inference(model), data)
    monkeypatch.setattr(towers, "SHUFFLES", 1)
    monkeypatch.setattr(towers, "BATCH", 20)
    without = towers.ablations(model, preprocess, data, found.pattern, seed=3)
    one_batch, _, _ = next(iter(pipeline.eval_batches(rows, preprocess, 10_000)))
    count = len(found.label)
    text = {k: v.numpy() for k, v in one_batch.items() if not k.startswith("face")}
    face = {k: v.numpy() for k, v in one_batch.items() if k.startswith("face")}
    none = {k: v.numpy() for k, v in preprocess(tf.constant([""]), tf.constant([[""]])).items()}

    def blank(own):
        padded = {}
        for name, value in own.items():
            width = [(0, 0), (0, value.shape[1] - none[name].shape[1]), *[(0, 0)] * (value.ndim - 2)]
            padded[name] = np.repeat(np.pad(none[name], width), count, axis=0)
        return padded

    def predicted(inputs):
        return model(inputs, training=False).numpy().argmax(axis=1)

    assert predicted({**text, **face}).tolist() == found.logits.argmax(axis=1).tolist()
    np.testing.assert_array_equal(without["text"].removed, predicted({**blank(text), **face}))
    np.testing.assert_array_equal(without["faces"].removed, predicted({**text, **blank(face)}))
    rng = np.random.default_rng(3)  # texts are exchanged first
    for name, own, other, bit in (("text", text, face, 1), ("faces", face, text, 2)):
        has = np.flatnonzero(found.pattern & bit)
        assert without[name].present == len(has) and without[name].shuffled.shape == (1, count)
        for shuffled in without[name].shuffled:
            order = np.arange(count)
            order[has] = rng.permutation(has)
            np.testing.assert_array_equal(shuffled, predicted({**{k: v[order] for k, v in own.items()}, **other}))


def test_a_pattern_is_what_the_model_is_given(parts):
    model, preprocess, rows = parts
    known = list(pipeline.read_rows(rows))
    found = outputs(model, inference(model), pipeline.eval_batches(rows, preprocess, 16))
    assert [bool(p & 2) for p in found.pattern] == [row["faces"] > 0 for row in known]
    assert 0 < np.sum(found.pattern == 1) < len(known)
    silent = preprocess(tf.constant(["", "  ", "yes"]), tf.constant([[""]] * 3))
    assert pattern_of(model)(silent).numpy().tolist() == [0, 0, 1]


def test_each_pattern_is_divided_by_its_temperature(parts):
    from emotion_tf.evaluation.calibration import Temperatures

    model, preprocess, rows = parts
    temperatures = Temperatures(5.0, {"text only": 0.5, "text and face": 2.0}, {})
    data = pipeline.eval_batches(rows, preprocess, 64)
    found = outputs(model, inference(model), data)
    calibrated = probabilities_of(model, temperatures)
    got = np.concatenate([calibrated(inputs).numpy() for inputs, _, _ in data])
    np.testing.assert_allclose(got, temperatures.probabilities(found.logits, found.pattern), atol=1e-6)
    divisor = np.where(found.pattern == 1, 0.5, 2.0)[:, None]
    np.testing.assert_allclose(got, tf.nn.softmax(found.logits / divisor), atol=1e-6)
