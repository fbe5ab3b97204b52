"""Predictions without a modality, by the model's parts: as the whole model gives them for such inputs."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import FusionConfig
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, read_vocabulary
from emotion_tf.models.two_tower import build_model
from emotion_tf.training import ablation
from emotion_tf.training.outputs import collect_outputs, inference

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(scope="module", params=["concat", pytest.param("cross_attention", marks=pytest.mark.slow)])
def parts(request, small_config, dataset):
    """A model as it was initialised, its preprocessor, and a split of raw inputs."""
    data = Dataset.open(dataset)
    fusion = FusionConfig(kind=request.param, width=8, heads=2, dense_units=(8,))
    text = dataclasses.replace(small_config.text, branches=("cnn",), cnn_filters=4, context=2)
    config = dataclasses.replace(small_config, fusion=fusion, text=text)
    words = WordVocabulary(["i", "the", "you", "is", "it"])
    keras.utils.set_random_seed(0)
    model = build_model(config, data.spec, (len(words), config.text.word_dim))
    # as it was initialised it gives the same vector for an absent modality and a dead embedding
    for name, tower in model.towers.items():
        missing = tower.find_layer(f"{name}_missing").missing
        missing.assign(10 * np.random.default_rng(1).normal(size=missing.shape))
    pieces = WordPieceTokenizer(read_vocabulary(dataset / "vocab.txt"), True)
    preprocess = Preprocessor(model.input, data.face_size, config.text, pieces, words)
    return model, preprocess, data.rows("dev")


def test_removed_and_permuted_modalities_as_the_whole_model_predicts(parts, monkeypatch):
    model, preprocess, rows = parts
    data = pipeline.eval_batches(rows, preprocess, 20)  # batches of other lengths
    outputs = collect_outputs(inference(model), data)
    monkeypatch.setattr(ablation, "EXCHANGES", 1)
    monkeypatch.setattr(ablation, "BATCH", 20)
    without = ablation.ablations(model, preprocess, data, outputs.pattern, seed=3)
    one_batch, _, _ = next(iter(pipeline.eval_batches(rows, preprocess, 10_000)))
    count = len(outputs.label)
    text = {k: v.numpy() for k, v in one_batch.items() if not k.startswith("face")}
    face = {k: v.numpy() for k, v in one_batch.items() if k.startswith("face")}
    none = {k: v.numpy() for k, v in preprocess({"utterance": tf.constant([""])}).items()}

    def blank(own):
        padded = {}
        for name, value in own.items():
            width = [(0, 0), (0, value.shape[1] - none[name].shape[1]), *[(0, 0)] * (value.ndim - 2)]
            padded[name] = np.repeat(np.pad(none[name], width), count, axis=0)
        return padded

    def predicted(inputs):
        return model(inputs, training=False)["logits"].numpy().argmax(axis=1)

    assert predicted({**text, **face}).tolist() == outputs.logits.argmax(axis=1).tolist()
    assert list(without) == ["text", "face"]
    np.testing.assert_array_equal(without["text"].removed, predicted({**blank(text), **face}))
    np.testing.assert_array_equal(without["face"].removed, predicted({**text, **blank(face)}))
    rng = np.random.default_rng(3)  # texts are exchanged first
    for name, own, other, bit in (("text", text, face, 1), ("face", face, text, 2)):
        has = np.flatnonzero(outputs.pattern & bit)
        assert without[name].present == len(has) and without[name].shuffled.shape == (1, count)
        for shuffled in without[name].shuffled:
            order = np.arange(count)
            order[has] = rng.permutation(has)
            np.testing.assert_array_equal(shuffled, predicted({**{k: v[order] for k, v in own.items()}, **other}))
    changes = [(result.removed != outputs.logits.argmax(axis=1)).any() for result in without.values()]
    assert any(changes)  # what is compared is not one class everywhere


def test_fewer_than_two_utterances_with_a_modality_are_not_permuted(parts):
    model, preprocess, rows = parts
    data = pipeline.eval_batches(rows, preprocess, 20)
    outputs = collect_outputs(inference(model), data)
    pattern = np.where(np.arange(len(outputs.label)) == 3, 3, 1)
    without = ablation.ablations(model, preprocess, data, pattern)
    assert without["face"].present == 1 and without["face"].shuffled.shape == (0, len(pattern))
    assert without["text"].shuffled.shape == (ablation.EXCHANGES, len(pattern))
