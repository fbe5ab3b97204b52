"""The phases of a training: which epochs they have, what trains in them and how fast, and what is kept of them."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import build_setup

from emotion_tf.models.parameter_groups import PretrainedLayer
from emotion_tf.training.checkpoint import Checkpoints
from emotion_tf.training.phases import Phase, begin_phase, phases
from emotion_tf.training.step import zero_sums


def change(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def text_config(small_config):
    return dataclasses.replace(small_config, towers=("text",))


@pytest.fixture(scope="module")
def frozen_config(bert_config):
    """BERT, whose tokens a trained layer pools, without the face tower."""
    text = dataclasses.replace(bert_config.text, branches=("bert",), pooling="attention")
    return change(dataclasses.replace(bert_config, towers=("text",), text=text), batch_size=64, epochs=5)


@pytest.fixture
def checkpoints(tmp_path):
    """A setup -> its checkpoints."""
    return lambda setup: Checkpoints(tmp_path / "checkpoint", setup.variables)


def test_without_pretrained_layers_there_is_one_phase(text_config, checkpoints, tmp_path):
    """One optimizer, and one schedule over all updates."""
    lines = []
    setup = build_setup(change(text_config, epochs=3, freeze_epochs=1, steps_per_epoch=2), say=lines.append)
    assert phases(setup) == (Phase(0, 3, frozen=False),)
    stage = begin_phase(setup, *phases(setup), checkpoints(setup))
    assert stage.optimizer._learning_rate.steps == 3 * 2
    assert {id(v) for v in stage.network.trainable_variables} == {id(v) for v in setup.model.trainable_variables}
    assert (stage.train, stage.base, stage.trained) == (None, None, None)
    assert not any("Pretrained branches" in line for line in lines)
    assert not list((tmp_path / "checkpoint").iterdir())


def test_a_layer_without_variables_that_train_makes_no_phase(text_config, checkpoints):
    lines = []
    setup = build_setup(change(text_config, epochs=3, freeze_epochs=1), say=lines.append)
    setup.model.towers["text"].pretrained = (PretrainedLayer(keras.layers.Flatten()),)
    assert phases(setup) == (Phase(0, 3, frozen=False),)
    begin_phase(setup, *phases(setup), checkpoints(setup))
    assert not any("Pretrained branches" in line for line in lines)


def test_averages_go_on_at_the_boundary(frozen_config, tiny_bert, checkpoints, eager):
    """By hand: after 2 epochs of n updates, the first update of the next phase is number 2 n + 1 of the training."""
    config = change(frozen_config, freeze_epochs=2, cache_features=False, ema=0.9, warmup=0.0)
    setup = build_setup(config, tiny_bert)
    _, second = phases(setup)
    stage = begin_phase(setup, second, checkpoints(setup))
    (mean, weight), *_ = [pair for pair in stage.average if pair[1].trainable and len(pair[1].shape) > 1]
    mean.assign_add(tf.ones_like(mean))
    before = mean.numpy()
    stage.update(zero_sums(), *next(iter(stage.train_batches(2))))
    step = 2 * setup.steps + 1
    momentum = min(0.9, (1 + step) / (10 + step))
    assert momentum > 2 / 11  # of update number 1
    np.testing.assert_allclose(mean, momentum * before + (1 - momentum) * np.asarray(weight), atol=1e-6)


@pytest.fixture(scope="module")
def frozen_setup(frozen_config, tiny_bert):
    return build_setup(frozen_config, tiny_bert)


@pytest.mark.parametrize(
    ("freeze_epochs", "expected"),
    [
        (0, (Phase(0, 5, False),)),
        (2, (Phase(0, 2, True), Phase(2, 5, False))),
        (5, (Phase(0, 5, True),)),
        (9, (Phase(0, 5, True),)),
    ],
)
def test_the_first_epochs_freeze_pretrained_layers(frozen_setup, frozen_config, freeze_epochs, expected):
    config = change(frozen_config, freeze_epochs=freeze_epochs)
    assert phases(dataclasses.replace(frozen_setup, config=config)) == expected


def test_each_phase_has_its_own_variables_rates_and_schedule(frozen_config, tiny_bert, checkpoints):
    config = change(frozen_config, freeze_epochs=2, cache_features=False, warmup=0.5, pretrained_rate=0.2)
    lines = []
    setup = build_setup(config, tiny_bert, lines.append)
    bert = setup.model.towers["text"].find_layer("bert")
    stages, trained = [], []
    for phase in phases(setup):
        stages.append(begin_phase(setup, phase, checkpoints(setup)))
        trained.append({id(v) for v in bert.trainable_variables})
        schedule = stages[-1].optimizer._learning_rate
        steps = (phase.end - phase.first) * setup.steps
        assert (schedule.steps, schedule.warmup) == (steps, int(0.5 * steps))
    assert not trained[0] and len(trained[1]) > 10
    for stage, ids in zip(stages, trained, strict=True):
        scales = stage.optimizer.__dict__.get("_rate_scales", {})
        assert scales == {stage.optimizer._var_key(v): 0.2 for v in stage.network.trainable_variables if id(v) in ids}
        assert stage.base is None and stage.trained is None and stage.train is None
    assert [line for line in lines if "Pretrained branches" in line] == [
        line
        for line in lines
        if line.startswith(("Pretrained branches frozen from epoch 1", "Pretrained branches trained from epoch 3"))
    ]


def test_a_frozen_phase_trains_the_rest_on_cached_features(frozen_config, tiny_bert, checkpoints, tmp_path, eager):
    setup = build_setup(change(frozen_config, freeze_epochs=2, ema=0.9), tiny_bert)
    first, second = phases(setup)
    stage = begin_phase(setup, first, checkpoints(setup))
    assert set(stage.network.input) == {"text_bert", "input_mask", "input_type_ids"}
    assert stage.preprocess.inputs == ()  # no record is read
    assert stage.train.count == setup.utterances and stage.dev.count > 0
    bert = {id(v) for v in setup.model.towers["text"].find_layer("bert").variables}
    assert stage.base == 0 and (tmp_path / "checkpoint" / "base-0.npz").is_file()
    means = {id(mean) for mean, weight in setup.average.pairs if id(weight) not in bert}
    rest = {id(v) for v in setup.network.variables} - bert
    assert stage.trained == means | rest
    assert {id(mean) for mean, _ in stage.average} == means
    for batches, count in ((stage.train_batches(0), setup.steps), (stage.dev_batches, None)):
        inputs, label, *_ = next(iter(batches))
        assert set(inputs) == set(stage.network.input) and len(label) == len(inputs["text_bert"])
        assert count is None or sum(1 for _ in batches) == count
    inputs, *_ = next(iter(stage.dev_batches))
    raw, *_ = next(iter(begin_phase(setup, second, checkpoints(setup)).dev_batches))
    whole, rest_of_it = setup.model(raw, training=False), stage.infer(inputs)
    assert whole.keys() == rest_of_it.keys()
    for name in whole:
        np.testing.assert_allclose(whole[name], rest_of_it[name], atol=1e-6)


def test_features_are_not_cached_for_less_than_an_epoch(frozen_config, tiny_bert, checkpoints, cache, eager):
    config = change(frozen_config, steps_per_epoch=1, epochs=1)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, train_encoder=False))
    setup = build_setup(config, tiny_bert)
    assert begin_phase(setup, *phases(setup), checkpoints(setup)).train is None and not cache.exists()
    longer = build_setup(change(config, steps_per_epoch=0), tiny_bert)
    assert begin_phase(longer, *phases(longer), checkpoints(longer)).train is not None
    # once they are there, they are read for a single update
    assert begin_phase(setup, *phases(setup), checkpoints(setup)).train is not None


def test_augmented_faces_are_reported_to_need_their_network(bert_config, tiny_bert, checkpoints, tmp_path, eager):
    pictures = keras.Input((12, 12, 3))
    network = str(tmp_path / "network.keras")
    keras.Model(pictures, keras.layers.Conv2D(4, 3, strides=2)(pictures)).save(network)
    config = dataclasses.replace(
        change(bert_config, batch_size=64),
        text=dataclasses.replace(bert_config.text, branches=("bert",), train_encoder=False),
        face=dataclasses.replace(
            bert_config.face, branches=("encoder",), encoder=network, train_backbone=False, augment=True
        ),
    )
    lines = []
    setup = build_setup(config, tiny_bert, lines.append, {"encoder": network})
    stage = begin_phase(setup, *phases(setup), checkpoints(setup))
    assert stage.preprocess.inputs == ("faces", "face_mask") and "text_bert" in stage.network.input
    assert sum("--face.augment changes the crops" in line for line in lines) == 1


def test_class_weights_are_not_in_the_batches(text_config, checkpoints):
    """The weights of a batch are those of its utterances, by which training and dev accuracy are averaged."""
    batches = []
    for name in ("none", "balanced"):
        setup = build_setup(change(text_config, class_weights=name, steps_per_epoch=1))
        batches.append(next(iter(begin_phase(setup, *phases(setup), checkpoints(setup)).train_batches(0))))
    (_, label, weight), (_, same_label, same_weight) = batches
    assert label.numpy().tolist() == same_label.numpy().tolist()
    assert weight.numpy().tolist() == same_weight.numpy().tolist()
