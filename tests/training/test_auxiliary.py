"""Auxiliary heads: the loss of each tower alone, which rows without the modality do not enter."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from helpers import build_setup

from emotion_tf.data import pipeline
from emotion_tf.errors import UserError
from emotion_tf.training.auxiliary import auxiliary_loss, build_heads
from emotion_tf.training.losses import cross_entropy


def change(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


def test_the_loss_by_hand():
    label = np.array([0, 1, 1])
    logits = {name: np.random.default_rng(i).normal(size=(3, 2)) for i, name in enumerate(("text", "face", "whole"))}
    present = {"text": np.array([True, True, False]), "face": np.array([False, True, False])}
    outputs = {"logits": tf.constant(logits["whole"], tf.float32)}
    for name in present:
        outputs |= {f"{name}/logits": tf.constant(logits[name], tf.float32), f"{name}/present": present[name]}
    losses = {
        name: np.log(np.exp(x).sum(axis=1)) - x[np.arange(3), label] for name, x in logits.items() if name in present
    }
    expected = [losses["text"][0] / 2, (losses["text"][1] + losses["face"][1]) / 2, 0.0]
    np.testing.assert_allclose(auxiliary_loss(cross_entropy, label, outputs), expected, rtol=1e-5)
    del outputs["face/logits"]
    np.testing.assert_allclose(
        auxiliary_loss(cross_entropy, label, outputs), losses["text"] * present["text"], rtol=1e-5
    )
    assert auxiliary_loss(cross_entropy, label, {"logits": outputs["logits"]}) == 0


def test_each_tower_learns_from_its_own_loss_on_present_rows(build_update, tiny_config, batch):
    config = change(tiny_config, auxiliary_weight=0.5)
    model, update = build_update(config)
    inputs, label, weight = batch
    outputs = update.network(inputs, training=True)
    present = {"text": inputs["word_ids"].any(axis=1), "face": inputs["face_mask"].any(axis=1)}
    assert not present["text"].all() and not present["face"].all()
    own = sum(np.asarray(cross_entropy(label, outputs[f"{name}/logits"])) * present[name] for name in present) / 2
    whole = np.asarray(cross_entropy(label, outputs["logits"]))
    sums = update(batch)
    assert float(sums.loss / sums.rows) == pytest.approx((weight * (whole + 0.5 * own)).mean(), rel=1e-4)
    # the model that is saved has no such heads, and they train
    assert not [w for w in model.weights if "auxiliary" in w.path]
    heads = [w for w in update.network.trainable_weights if "auxiliary" in w.path]
    assert len(heads) == 4 and all(np.asarray(w).any() for w in heads)


def test_rows_whose_modality_is_dropped_are_not_masked_out(build_update, tiny_config, batch):
    """Their head reads the learned vector of the missing modality."""
    fusion = dataclasses.replace(tiny_config.fusion, modality_dropout=0.999)
    _, update = build_update(dataclasses.replace(change(tiny_config, auxiliary_weight=1.0), fusion=fusion))
    inputs, label, _ = batch
    outputs = update.network(inputs, training=True)
    assert not np.asarray(outputs["text/embedding"]).any()
    losses = np.asarray(auxiliary_loss(cross_entropy, label, {k: v for k, v in outputs.items() if "face" not in k}))
    assert (losses > 0).tolist() == inputs["word_ids"].any(axis=1).tolist()


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_the_objective_adds_the_weighted_auxiliary_loss(small_config, weight):
    setup = build_setup(change(small_config, auxiliary_weight=weight, label_smoothing=0.1))
    assert set(setup.heads) == ({"text", "face"} if weight else set())
    assert len(setup.variables) == len(setup.model.variables) + 4 * bool(weight)
    inputs, label, _ = next(iter(pipeline.eval_batches(setup.data.dev, setup.preprocess, 8)))
    outputs = setup.network(inputs)
    expected = cross_entropy(label, outputs["logits"], 0.1)
    for name in setup.heads:
        own = cross_entropy(label, outputs[f"{name}/logits"], 0.1)
        expected += weight / 2 * own * tf.cast(outputs[f"{name}/present"], tf.float32)
    np.testing.assert_allclose(setup.objective(label, outputs), expected, rtol=1e-5)


def test_one_tower_has_no_auxiliary_heads(tiny_config):
    with pytest.raises(UserError, match="`train.auxiliary_weight`. Expected 0 with one tower"):
        dataclasses.replace(change(tiny_config, auxiliary_weight=0.5), towers=("text",))


def test_a_head_is_float32_whatever_the_embedding_is():
    heads = build_heads(("text", "face"), 3)
    assert list(heads) == ["text", "face"]
    assert heads["face"](tf.zeros((2, 5), tf.bfloat16)).dtype == tf.float32 and heads["face"].units == 3
