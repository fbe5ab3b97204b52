"""One update: its sums and its gradient by hand, batches in parts, and two replicas."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT

from emotion_tf.config import TrainConfig
from emotion_tf.training.optimizers import build_optimizer
from emotion_tf.training.schedules import WarmupSchedule
from emotion_tf.training.step import Update, zero_sums

SUMS = ("rows", "loss", "weight", "correct")


def change(config, towers=("text", "face"), **train):
    return dataclasses.replace(config, towers=towers, train=dataclasses.replace(config.train, **train))


def inputs_of(update, batch):
    """The batch with those inputs alone that the network reads."""
    inputs, label, weight = batch
    return {name: inputs[name] for name in update.network.input}, label, weight


def values(variables):
    return [np.array(variable) for variable in variables]


@pytest.mark.parametrize("clip_norm", [0.01, 1e9])
def test_parts_of_a_batch_make_the_update_of_the_whole(build_update, tiny_config, batch, clip_norm):
    """20 rows as parts of 8, 8 and 4; without the face tower, whose batch norm sees the parts."""
    config = change(tiny_config, ("text",), batch_size=32, clip_norm=clip_norm)
    _, whole = build_update(config)
    _, parts = build_update(change(config, ("text",), batch_size=8, accumulate=4))
    assert (whole.part_size, parts.part_size) == (None, 8)
    start = values(whole.network.weights)
    sums = [update(inputs_of(update, batch)) for update in (whole, parts)]
    assert any((a != b).any() for a, b in zip(values(whole.network.weights), start, strict=True))
    for a, b in zip(values(whole.network.weights), values(parts.network.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name in SUMS:
        np.testing.assert_allclose(getattr(sums[0], name), getattr(sums[1], name), rtol=1e-5)
    assert int(parts.optimizer.iterations) == 1


def test_the_parts_with_a_face_move_the_statistics_of_batch_norm(build_update, tiny_config, batch):
    """20 rows as parts of 8, 8 and 4; the second has no face."""
    model, update = build_update(change(tiny_config, batch_size=8, accumulate=4))
    inputs, label, weight = batch
    mask = inputs["face_mask"].copy()
    mask[8:16] = False
    inputs = {**inputs, "face_mask": mask}
    start = model.get_weights()
    for at in (slice(8), slice(16, 20)):
        model({name: inputs[name][at] for name in model.input}, training=True)
    statistics = [w for w in model.weights if w.name.startswith("moving_")]
    expected = values(statistics)
    model.set_weights(start)
    update((inputs, label, weight))
    for actual, value, name in zip(statistics, expected, (w.path for w in statistics), strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_sums_are_those_of_the_weighted_rows(build_update, tiny_config, batch):
    model, update = build_update(change(tiny_config, ("text",)))
    inputs, label, weight = inputs_of(update, batch)
    logits = np.asarray(model(inputs)["logits"], np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(label)), label]
    sums = update((inputs, label, weight))
    assert float(sums.loss) == pytest.approx((weight * losses).sum(), rel=1e-5)
    assert float(sums.correct) == pytest.approx(weight[logits.argmax(axis=1) == label].sum(), rel=1e-5)
    assert (float(sums.rows), float(sums.weight)) == (len(label), pytest.approx(weight.sum(), rel=1e-5))
    assert sums.gradients == []


def test_class_weights_are_in_the_loss_and_not_in_the_accuracy(build_update, tiny_config, batch):
    """Accuracy stands beside that of dev, which has no class weights."""
    sums = {}
    for name in ("none", "balanced"):
        _, update = build_update(change(tiny_config, ("text",), class_weights=name))
        sums[name] = update(inputs_of(update, batch))
    plain, balanced = sums.values()
    assert (balanced.accuracy, float(balanced.weight)) == (plain.accuracy, float(plain.weight))
    assert 0 < plain.accuracy < 1 and balanced.mean_loss != pytest.approx(plain.mean_loss)


def test_means_are_over_the_weights():
    sums = zero_sums()._replace(rows=tf.constant(4.0), loss=tf.constant(6.0), weight=tf.constant(3.0))
    assert (sums.mean_loss, sums._replace(correct=tf.constant(1.5)).accuracy) == (2.0, 0.5)
    assert (zero_sums().mean_loss, zero_sums().accuracy) == (0.0, 0.0)  # all rows have weight 0


@pytest.mark.parametrize("part_size", [None, 1])
@pytest.mark.parametrize(("clip_norm", "scale"), [(1.0, 1 / 87.5**0.5), (0.5, 0.5 / 87.5**0.5), (10.0, 1.0)])
def test_clipping_by_global_norm_by_hand(part_size, clip_norm, scale):
    """Row 1 of the embedding is in both rows of the batch: its gradient is summed before the norm is taken."""
    ids = keras.Input((2,), dtype="int32", name="ids")
    embedding = keras.layers.Embedding(3, 2)
    network = keras.Model({"ids": ids}, {"logits": keras.ops.sum(embedding(ids), axis=1)})
    train = TrainConfig(optimizer="sgd", momentum=0.0, weight_decay=0.0)
    optimizer = build_optimizer(train, network.trainable_variables, [], WarmupSchedule("constant", 0.1, 0, 10))
    direction = np.array([3.0, 4.0], np.float32)

    def objective(y_true, outputs):
        return keras.ops.sum(outputs["logits"] * direction, axis=-1)

    start = np.array(embedding.embeddings)
    update = Update(network, objective, optimizer, clip_norm, part_size)
    update(({"ids": np.array([[1, 2], [1, 0]])}, np.array([0, 1]), np.array([1.0, 2.0], np.float32)))
    gradient = np.array([[3.0, 4.0], [4.5, 6.0], [1.5, 2.0]])  # mean over the two rows of weight x direction
    np.testing.assert_allclose(np.array(embedding.embeddings), start - 0.1 * scale * gradient, atol=1e-6)


@pytest.mark.parametrize("first_step", [0, 500])
def test_each_update_moves_the_averages(build_update, tiny_config, batch, first_step):
    """Those of all floating-point weights, and of the statistics of batch norm; updates of earlier phases count."""
    model, update = build_update(change(tiny_config, ema=0.9))
    update = dataclasses.replace(update, first_step=first_step)
    means, weights = zip(*update.average, strict=True)
    assert {id(w) for w in weights} == {id(w) for w in model.weights}
    expected = values(weights)
    for step in (1, 2):
        before = values(weights)
        update(inputs_of(update, batch))
        assert sum((a != b).any() for a, b in zip(values(weights), before, strict=True)) > len(before) / 2
        momentum = (1 + step) / (10 + step) if first_step == 0 else 0.9
        expected = [momentum * e + (1 - momentum) * w for e, w in zip(expected, values(weights), strict=True)]
        for mean, value in zip(means, expected, strict=True):
            np.testing.assert_allclose(mean, value, atol=1e-6)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Three updates on one device and on two, by the script: key -> values on each device, of either."""
    out = tmp_path_factory.mktemp("replicas") / "out.npz"
    script = Path(__file__).with_name("two_replicas.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    ended = subprocess.run([sys.executable, script, out], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    with np.load(out) as arrays:
        return [
            {key.split("/", 1)[1]: arrays[key] for key in arrays if key.startswith(f"{count}/")} for count in (1, 2)
        ]


def of_kind(results, kind):
    """Values on each device (D, ...) of the keys that begin with `kind`."""
    return {key: value for key, value in results.items() if key.startswith(f"{kind}/")}


@pytest.mark.parametrize(
    "kind",
    [
        "gradients",
        *(f"{n}/{kind}" for n in (1, 2, 3) for kind in ("sums", "weights", "statistics", "averages", "slots")),
    ],
)
def test_two_replicas_make_the_update_of_one(replicas, kind):
    """8 rows as 5 and 3: clipped gradients, and after each update everything that it returns and changes.

    In the second update the rows of the second device have no face, in the third those of neither."""
    first, second = (of_kind(results, kind) for results in replicas)
    assert first.keys() == second.keys() and len(first) >= 4
    for key, expected in first.items():
        assert (len(expected), len(second[key])) == (1, 2), key
        for value in second[key]:
            np.testing.assert_allclose(value, expected[0], atol=1e-6, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("kind", ["gradients", *(f"{n}/{kind}" for n in (1, 2) for kind in ("weights", "slots"))])
def test_two_replicas_make_the_steps_of_adam_of_one(replicas, kind):
    """Adam divides a gradient by its size, which turns rounding in a small one into a step: hence the tolerance."""
    first, second = (of_kind(results, f"adamw/{kind}") for results in replicas)
    assert first.keys() == second.keys() and len(first) >= 4
    for key, expected in first.items():
        for value in second[key]:
            np.testing.assert_allclose(value, expected[0], atol=1e-5, err_msg=key)
        np.testing.assert_array_equal(*second[key], err_msg=key)


def test_dropout_differs_by_replica_and_is_that_of_one_device_on_the_first(replicas):
    for step in (0, 1):
        (one,), (first, second) = (results[f"dropout/{step}"] for results in replicas)
        np.testing.assert_array_equal(one, first)
        assert 0.2 < (first == second).mean() < 0.8
    assert (replicas[1]["dropout/0"] != replicas[1]["dropout/1"]).any()


def test_the_compared_updates_are_clipped_and_not_zero(replicas):
    _, two = replicas
    for results in replicas:
        assert results["norm"] > 2 * results["clip_norm"]
        norm = sum((value[0] ** 2).sum() for value in of_kind(results, "gradients").values()) ** 0.5
        assert norm == pytest.approx(results["clip_norm"], rel=1e-5)
    assert [float(results["1/sums/rows"][0]) for results in replicas] == [8, 8]
    without_face = [of_kind(two, f"{n}/statistics").values() for n in (2, 3)]
    for before, after in zip(*without_face, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)
    for kind in ("weights", "statistics", "averages", "slots"):
        first, second = (of_kind(two, f"{n}/{kind}") for n in (1, 2))
        moved = [np.abs(b - a).max() for a, b in zip(first.values(), second.values(), strict=True)]
        assert np.mean(np.array(moved) > 1e-5) > 0.7, kind
