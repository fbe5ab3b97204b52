"""The whole model: its inputs and outputs, presence, trunks that do not run, saving and exporting."""

import dataclasses
import importlib
import pkgutil
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf import models
from emotion_tf.config import CHOICES, Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert
from emotion_tf.models.tower import Tower
from emotion_tf.models.two_tower import TwoTower, build_model, presence_pattern
from emotion_tf.run_info import DataSpec

SPEC = DataSpec(("a", "b", "c"), face_size=16, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
SHAPE = (10, 4)
WORDS = TextConfig(word_dim=4, gru_units=4)
TINY = Config(text=WORDS, face=FaceConfig(cnn_filters=(4,)), fusion=FusionConfig(dense_units=(4,), width=4, heads=2))
BERT = {"max_tokens": 32, "context_tokens": 16, "context": 1}
RNG = np.random.default_rng(0)
# rows: text and face, text alone, face alone, neither, context alone
TEXT_PRESENT, FACE_PRESENT = [True, True, False, False, True], [True, False, True, False, False]
INPUTS = {
    "input_word_ids": [[2, 7, 8, 3], [2, 9, 3, 0], [2, 3, 0, 0], [2, 3, 0, 0], [2, 3, 6, 3]],
    "input_mask": [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]],
    "input_type_ids": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]],
    "word_ids": [[4, 5], [6, 0], [0, 0], [0, 0], [0, 0]],
    "context_word_ids": [[0, 0], [0, 0], [0, 0], [0, 0], [7, 8]],
    "faces": RNG.integers(0, 255, (5, 2, 16, 16, 3)).astype(np.uint8),
    "face_mask": [[True, True], [False, False], [False, True], [False, False], [False, False]],
}


def inputs_of(model, rows=slice(None)):
    return {name: tf.constant(np.asarray(INPUTS[name])[rows], tensor.dtype) for name, tensor in model.input.items()}


def arrays(outputs):
    return {name: np.asarray(value) for name, value in outputs.items()}


def assert_same(outputs, expected):
    assert set(outputs) == set(expected)
    for name, value in arrays(expected).items():
        np.testing.assert_array_equal(outputs[name], value)


@pytest.fixture(scope="module")
def face_network(tmp_path_factory):
    """A small network with a batch norm, as a .keras file."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, strides=2, name="low")(inputs))
    path = tmp_path_factory.mktemp("network") / "face.keras"
    keras.Model(inputs, keras.layers.Conv2D(5, 3, name="high")(x)).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("towers", "inputs"),
    [
        (("text",), {"word_ids"}),
        (("face",), {"faces", "face_mask"}),
        (("text", "face"), {"word_ids", "faces", "face_mask"}),
    ],
)
def test_towers_read_only_their_inputs_and_the_model_gives_one_logit_a_label(towers, inputs):
    model = build_model(dataclasses.replace(TINY, towers=towers), SPEC, SHAPE)
    assert set(model.input) == inputs and tuple(model.towers) == towers
    assert all(isinstance(tower, Tower) for tower in model.towers.values())
    outputs = {"logits", *(f"{name}/{key}" for name in towers for key in ("embedding", "present"))}
    assert set(model.output) == outputs
    assert model.output["logits"].shape == (None, 3) and model.output["logits"].dtype == "float32"
    for name in towers:
        assert model.output[f"{name}/embedding"].shape == model.towers[name].output["embedding"].shape
        assert model.output[f"{name}/present"].shape == (None,) and model.output[f"{name}/present"].dtype == "bool"
    assert ("fusion_concat" in [layer.name for layer in model.fusion.layers]) == (len(towers) == 2)


@pytest.mark.parametrize("branches", [("gru",), ("bert",), ("bert", "gru")])
def test_modality_dropout_does_not_change_present(tiny_bert, branches):
    text = TextConfig(branches=branches, word_dim=4, gru_units=4, dropout=0.0, **BERT)
    fusion = dataclasses.replace(TINY.fusion, modality_dropout=0.99)
    keras.utils.set_random_seed(2)
    model = build_model(dataclasses.replace(TINY, text=text, fusion=fusion), SPEC, SHAPE, tiny_bert)
    for training in (False, True):
        outputs = arrays(model(inputs_of(model), training=training))
        assert outputs["text/present"].tolist() == TEXT_PRESENT
        assert outputs["face/present"].tolist() == FACE_PRESENT
        # the missing embedding is still the zero that it starts from
        available = outputs["text/embedding"].any(axis=1).tolist()
        assert available == (TEXT_PRESENT if not training else [False] * 5)


def test_without_context_the_last_utterance_has_no_text():
    model = build_model(TINY, SPEC, SHAPE)
    assert arrays(model(inputs_of(model)))["text/present"].tolist() == [True, True, False, False, False]


def test_presence_pattern_by_hand():
    text, face = np.array([True, True, False, False]), np.array([True, False, True, False])
    pattern = presence_pattern({"logits": None, "text/present": text, "face/present": face})
    assert pattern.dtype == tf.int32 and np.asarray(pattern).tolist() == [3, 1, 2, 0]
    assert np.asarray(presence_pattern({"text/present": text})).tolist() == [1, 1, 0, 0]
    assert np.asarray(presence_pattern({"face/present": face})).tolist() == [2, 0, 2, 0]


def test_presence_pattern_of_a_model():
    model = build_model(dataclasses.replace(TINY, text=dataclasses.replace(WORDS, context=1)), SPEC, SHAPE)
    assert np.asarray(presence_pattern(model(inputs_of(model)))).tolist() == [3, 1, 2, 0, 1]


def test_a_trunk_with_a_given_output_does_not_run(tiny_bert):
    text = TextConfig(branches=("bert", "gru"), word_dim=4, gru_units=4, train_encoder=False)
    model = build_model(dataclasses.replace(TINY, text=text), SPEC, SHAPE, tiny_bert)
    inputs = inputs_of(model)
    trunk = model.towers["text"].trunks["bert"]
    feature = trunk({name: inputs[name] for name in trunk.input})
    rest = {name: value for name, value in inputs.items() if name not in ("input_word_ids", "input_type_ids")}
    assert_same(model.connect(rest, {"text": {"bert": feature}}), model(inputs))
    assert_same(model.connect(inputs), model(inputs))


def randomize(model):
    """Random values wherever a weight starts at zero or one."""
    for weight in model.weights:
        if len(weight.shape) < 2 and "float" in weight.dtype:
            weight.assign(np.abs(RNG.normal(size=weight.shape)))


@pytest.mark.parametrize("kind", CHOICES["fusion.kind"])
def test_a_saved_model_gives_the_same_and_keeps_what_is_frozen(kind, face_network, tmp_path):
    """A face network that trains from a layer on beside the cnn; its file is gone."""
    network = shutil.copy(face_network, tmp_path / "face.keras")
    face = FaceConfig(branches=("encoder", "cnn"), encoder=str(network), unfreeze_from="high", cnn_filters=(3,))
    config = dataclasses.replace(TINY, face=face, fusion=dataclasses.replace(TINY.fusion, kind=kind))
    model = build_model(config, SPEC, SHAPE, face_files={"encoder": str(network)})
    randomize(model)
    model.save(tmp_path / "m.keras")
    network.unlink()
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert isinstance(loaded, TwoTower) and list(loaded.towers) == ["text", "face"] and loaded.name == "two_tower"
    for rows in (slice(None), [3]):
        assert_same(loaded(inputs_of(model, rows)), model(inputs_of(model, rows)))
    for m in (model, loaded):
        network = m.towers["face"].find_layer("encoder")
        assert [weight.path for weight in network.trainable_weights] == ["high/kernel", "high/bias"]
        assert m.towers["face"].trunks["cnn"].trainable_weights and m.towers["text"].trainable_weights


@pytest.fixture(scope="module")
def full(tiny_bert, face_network, tmp_path_factory):
    """A model of all kinds of branches whose BERT is frozen, its file, and its outputs; the encoder's folder and the
    face network's file are gone."""
    folder = tmp_path_factory.mktemp("full")
    encoder, network = shutil.copytree(tiny_bert, folder / "encoder"), shutil.copy(face_network, folder / "face.keras")
    config = Config(
        text=TextConfig(
            branches=("bert", "gru", "lstm", "cnn"), encoder=str(encoder), train_encoder=False, pooling="attention",
            word_dim=4, gru_units=3, lstm_units=3, cnn_filters=3, **BERT,
        ),
        face=FaceConfig(branches=("encoder", "cnn"), encoder=str(network), cnn_filters=(3,), frames="gru"),
        fusion=FusionConfig(kind="cross_attention", dense_units=(4,), width=4, heads=2, modality_dropout=0.2),
    )  # fmt: skip
    model = build_model(config, SPEC, SHAPE, str(encoder), {"encoder": str(network)})
    randomize(model)
    model.save(folder / "m.keras")
    shutil.rmtree(encoder)
    network.unlink()
    return model, folder / "m.keras"


def test_a_saved_model_of_all_branches_gives_the_same(full):
    model, path = full
    loaded = keras.saving.load_model(path, compile=False)
    assert [w.trainable for w in loaded.weights] == [w.trainable for w in model.weights]
    assert loaded.towers["text"].trunks["bert"].trainable_weights == []
    assert_same(loaded(inputs_of(model)), model(inputs_of(model)))


@pytest.fixture(scope="module")
def with_bert(tiny_bert):
    """A model of BERT + GRU and CNN, without context."""
    text = TextConfig(branches=("bert", "gru"), word_dim=4, gru_units=4)
    model = build_model(dataclasses.replace(TINY, text=text), SPEC, SHAPE, tiny_bert)
    randomize(model)
    return model


def test_a_saved_model_gives_the_same_for_any_rows(with_bert, tmp_path):
    with_bert.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    for rows in ([0, 1, 2, 3], [0, 0], [3, 3], [3], [1, 3], [2, 3]):
        assert_same(loaded(inputs_of(with_bert, rows)), with_bert(inputs_of(with_bert, rows)))


def registered_names():
    return {name for name in keras.saving.get_custom_objects() if name.startswith("emotion_tf>")}


LOAD = """
import sys
import numpy as np
import emotion_tf.models
import keras
import tensorflow as tf
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as in the process of the tests
names = [name for name in keras.saving.get_custom_objects() if name.startswith("emotion_tf>")]
model = keras.saving.load_model(sys.argv[1], compile=False)
outputs = model(dict(np.load(sys.argv[2])))
np.savez(sys.argv[3], names=names, **{name: np.asarray(value) for name, value in outputs.items()})
"""


def test_importing_the_models_registers_every_layer(full, tmp_path):
    model, path = full
    inputs = inputs_of(model)
    np.savez(tmp_path / "inputs.npz", **arrays(inputs))
    files = [str(path), str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")]
    done = subprocess.run([sys.executable, "-c", LOAD, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = dict(np.load(files[2]))
    for info in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"{models.__name__}.{info.name}")
    assert set(outputs.pop("names").tolist()) == registered_names() and len(registered_names()) > 20
    assert_same(outputs, model(inputs))


@pytest.mark.parametrize("tower", ["text", "face"])
def test_a_saved_model_of_one_tower_gives_the_same(tower, tmp_path):
    model = build_model(dataclasses.replace(TINY, towers=(tower,)), SPEC, SHAPE)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert list(loaded.towers) == [tower]
    assert_same(loaded(inputs_of(model)), model(inputs_of(model)))


def test_a_saved_model_keeps_frozen_towers_frozen(tmp_path):
    face = dataclasses.replace(TINY.face, init="run", train_tower=False)
    model = build_model(dataclasses.replace(TINY, face=face), SPEC, SHAPE)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    for m in (model, loaded):
        assert m.towers["face"].trainable is False and m.towers["face"].trainable_weights == []
        assert len(m.trainable_weights) == len(m.towers["text"].weights) + 4


def test_a_file_holds_the_weights_of_the_encoder_once(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"w{n}\n" for n in range(8000)))
    config = BertConfig(vocab_size=8000, hidden=64, layers=1, heads=2, intermediate=16, positions=32)
    save_bert(BertModule(config, tmp_path / "vocab.txt", seed=1), tmp_path / "bert")
    text = TextConfig(branches=("bert",), max_tokens=8)
    model = build_model(dataclasses.replace(TINY, text=text), SPEC, SHAPE, str(tmp_path / "bert"))
    model.save(tmp_path / "m.keras")
    size = sum(weight.numpy().nbytes for weight in model.weights)
    assert size > 2e6
    assert size < (tmp_path / "m.keras").stat().st_size < 1.4 * size
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        names = [name for name in archive.namelist() if name.endswith("saved_model.pb")]
        assert len(names) == 1 and not any("variables.data" in name for name in archive.namelist())


def test_every_layer_of_the_models_is_registered():
    for info in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"{models.__name__}.{info.name}")
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        for value in classes:
            if issubclass(value, keras.layers.Layer) and value.__module__ == module.__name__:
                assert keras.saving.get_registered_name(value) == f"emotion_tf>{value.__name__}"


def test_an_exported_model_gives_the_same_outputs(with_bert, tmp_path):
    model = with_bert
    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in model.input.items()}
    archive.add_endpoint("serve", lambda inputs: model(inputs, training=False), [specs])
    archive.write_out(str(tmp_path / "served"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    for rows in (slice(None), [3, 3], [0]):
        inputs = inputs_of(model, rows)
        outputs = arrays(served.serve(inputs))
        for name, value in arrays(model(inputs)).items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-6)
