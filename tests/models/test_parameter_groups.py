"""Pretrained layers: which of their variables train, at which share of the learning rate."""

import keras
import numpy as np
import pytest

from emotion_tf.config import Config, FaceConfig, TextConfig
from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert
from emotion_tf.models.face_tower import build_face_tower
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.parameter_groups import PretrainedLayer, initialized_layers, set_trainable
from emotion_tf.models.text_tower import build_text_tower
from emotion_tf.models.two_tower import build_model
from emotion_tf.run_info import DataSpec

SPEC = DataSpec(("a", "b", "c"), face_size=16, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
SHAPE = (10, 4)
RNG = np.random.default_rng(0)
FROM_HIGH = ["high/kernel", "high/bias", "embedding/kernel", "embedding/bias"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small face network with a batch norm below the layer `high`, as a .keras file."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, strides=2, name="low")(inputs))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="high")(x)
    outputs = keras.layers.Dense(5, name="embedding")(keras.layers.GlobalAveragePooling2D()(x))
    path = tmp_path_factory.mktemp("network") / "face.keras"
    keras.Model(inputs, outputs).save(path)
    return str(path)


@pytest.fixture(scope="module")
def deep_bert(tmp_path_factory):
    """A BERT of three layers as a SavedModel folder."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("".join(f"w{n}\n" for n in range(20)))
    config = BertConfig(vocab_size=20, hidden=8, layers=3, heads=2, intermediate=8, positions=32)
    save_bert(BertModule(config, folder / "vocab.txt", seed=3), folder / "saved")
    return str(folder / "saved")


def face_tower(network, **options):
    config = FaceConfig(branches=("encoder", "cnn"), cnn_filters=(4,), encoder=network, **options)
    return build_face_tower(config, 16, files={"encoder": network})


def paths(layer):
    return [weight.path for weight in layer.trainable_weights]


def names(tower):
    return [layer.layer.name for layer in tower.pretrained]


def test_layer_decay_by_hand(deep_bert):
    text = TextConfig(branches=("bert",), layer_decay=0.5, max_tokens=8)
    (bert,) = build_text_tower(text, deep_bert, SHAPE).pretrained
    rates = {variable.name: rate for variable, rate in bert.learning_rates(0.1)}
    by_part = {"layer_2": 0.1, "layer_1": 0.05, "layer_0": 0.025, "embeddings": 0.0125}
    assert {name.split(".")[0] for name in rates} == set(by_part) and len(rates) == len(bert.layer.trainable_variables)
    for name, rate in rates.items():
        assert rate == pytest.approx(by_part[name.split(".")[0]])


def test_without_layer_decay_every_variable_has_the_rate(deep_bert):
    layer = PretrainedLayer(HubEncoder(deep_bert))
    rates = list(layer.learning_rates(0.1))
    assert {rate for _, rate in rates} == {0.1}
    assert {id(variable) for variable, _ in rates} == {id(v) for v in layer.layer.trainable_variables}
    # the pooler stands beside the top layer
    layer = PretrainedLayer(HubEncoder(deep_bert), layer_decay=0.5)
    assert {rate for variable, rate in layer.learning_rates(1.0) if variable.name.startswith("pooler")} == {1.0}


def test_frozen_embeddings_have_no_rate(deep_bert):
    text = TextConfig(branches=("bert",), layer_decay=0.5, freeze_embeddings=True, max_tokens=8)
    (bert,) = build_text_tower(text, deep_bert, SHAPE).pretrained
    rates = {variable.name.split(".")[0]: rate for variable, rate in bert.learning_rates(1.0)}
    assert rates == {"layer_2": 1.0, "layer_1": 0.5, "layer_0": 0.25}


def test_a_network_trains_at_one_rate(network):
    (layer,) = face_tower(network, unfreeze_from="high").pretrained
    assert [(variable.path, rate) for variable, rate in layer.learning_rates(0.3)] == [(p, 0.3) for p in FROM_HIGH]
    layer.set_trainable(False)
    assert list(layer.learning_rates(0.3)) == []


def test_unfreezing_from_a_layer_freezing_and_unfreezing_again(network):
    """What `--train.freeze-epochs` does: after the frozen phase the same layers are trained as before it."""
    tower = face_tower(network, unfreeze_from="high")
    (pretrained,) = tower.pretrained
    layer = pretrained.layer
    assert layer is tower.find_layer("encoder") and paths(layer) == FROM_HIGH
    pretrained.set_trainable(False)
    assert layer.trainable_weights == [] and tower.trunks["encoder"].trainable_weights == []
    pretrained.set_trainable(True)
    assert paths(layer) == FROM_HIGH
    before = [np.array(weight) for weight in layer.weights]
    model = keras.Model(tower.input, tower(tower.input)["embedding"])
    model.compile("adam", "mse", jit_compile=False, run_eagerly=True)
    pictures = RNG.integers(0, 255, (4, 1, 16, 16, 3)).astype(np.uint8)
    inputs = {"faces": pictures, "face_mask": np.ones((4, 1), bool)}
    model.train_on_batch(inputs, np.ones((4, *tower.output["embedding"].shape[1:])))
    pairs = zip(layer.weights, before, strict=True)
    moved = {weight.path for weight, values in pairs if (np.asarray(weight) != values).any()}
    assert moved == set(FROM_HIGH)  # the norm below keeps its statistics, too


def test_set_trainable_by_hand():
    layers = [keras.layers.Dense(2, name=name) for name in ("a", "b", "c")]
    network = keras.Sequential([keras.Input((2,)), *layers])
    for trainable, unfreeze_from, expected in (
        (True, "b", [False, True, True]),
        (False, "b", [False] * 3),
        (True, "", [True] * 3),
        (False, "", [False] * 3),
        (True, "a", [True] * 3),
    ):
        set_trainable(network, trainable, unfreeze_from)
        assert [layer.trainable for layer in layers] == expected


def test_published_layers_are_pretrained_if_they_are_trained(tiny_bert, network):
    text = TextConfig(branches=("bert", "gru"), encoder=tiny_bert, word_dim=4, gru_units=3)
    assert names(build_text_tower(text, tiny_bert, SHAPE)) == ["bert"]
    frozen = TextConfig(**{**vars(text), "train_encoder": False})
    assert names(build_text_tower(frozen, tiny_bert, SHAPE)) == []
    assert names(face_tower(network)) == ["encoder"]
    assert names(face_tower(network, train_backbone=False)) == []
    random = FaceConfig(branches=("mobilenetv2",), weights="none")
    assert names(build_face_tower(random, 32)) == []


def test_the_model_has_the_pretrained_layers_of_its_towers(tiny_bert, network):
    config = Config(
        text=TextConfig(branches=("bert",), encoder=tiny_bert), face=FaceConfig(branches=("encoder",), encoder=network)
    )
    model = build_model(config, SPEC, SHAPE, tiny_bert, {"encoder": network})
    assert [layer.layer.name for layer in model.pretrained] == ["bert", "encoder"]
    assert [layer.layer for layer in model.pretrained] == [
        model.towers["text"].find_layer("bert"), model.towers["face"].find_layer("encoder"),
    ]  # fmt: skip


def test_every_layer_that_trains_of_an_initialized_text_tower_is_pretrained(tiny_bert):
    options = {"branches": ("bert", "gru"), "word_dim": 4, "gru_units": 3, "init": "run"}
    tower = build_text_tower(TextConfig(layer_decay=0.5, **options), tiny_bert, SHAPE)
    assert set(names(tower)) == {"bert", "word_embedding", "word_replacement", "gru", "text_missing"}
    rates = {id(variable): rate for layer in tower.pretrained for variable, rate in layer.learning_rates(0.2)}
    assert set(rates) == {id(variable) for variable in tower.trainable_variables}
    decay = {layer.layer.name: layer.layer_decay for layer in tower.pretrained}
    assert decay["bert"] == 0.5 and decay["gru"] == 1.0
    assert {rates[id(variable)] for variable in tower.find_layer("gru").trainable_variables} == {0.2}
    frozen = build_text_tower(TextConfig(train_encoder=False, **options), tiny_bert, SHAPE)
    assert set(names(frozen)) == {"word_embedding", "word_replacement", "gru", "text_missing"}


def test_every_layer_that_trains_of_an_initialized_face_tower_is_pretrained(network):
    tower = face_tower(network, init="run", unfreeze_from="high")
    cnn = {"cnn_0_conv_0", "cnn_0_norm_0", "face_missing"}
    assert set(names(tower)) == {"encoder", *cnn}
    before = paths(tower)
    for layer in tower.pretrained:
        layer.set_trainable(False)
    assert paths(tower) == []
    for layer in tower.pretrained:
        layer.set_trainable(True)
    assert paths(tower) == before and paths(tower.find_layer("encoder")) == FROM_HIGH
    assert set(names(face_tower(network, init="run", train_backbone=False))) == cnn
    random = FaceConfig(branches=("mobilenetv2",), weights="none", init="run")
    assert names(build_face_tower(random, 32)) == ["mobilenetv2", "face_missing"]
    assert face_tower(network, init="run", train_tower=False).pretrained == ()


def test_initialized_layers_keeps_the_options_of_networks():
    first, second, third = (keras.layers.Dense(2, name=name) for name in ("a", "b", "c"))
    for layer in (first, second):
        layer.build((None, 2))
    second.trainable = False
    network = PretrainedLayer(first, layer_decay=1.0, unfreeze_from="x")
    assert initialized_layers([first, second, third], [network]) == (network,)
    second.trainable = True
    assert initialized_layers([first, second, third], [network]) == (network, PretrainedLayer(second))
