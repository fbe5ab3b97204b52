"""The fusion model: what it reads, its dense layers, a single tower, modality dropout in both towers."""

import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from emotion_tf.config import CHOICES, Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.errors import UserError
from emotion_tf.models.fusion import build_fusion, reads_sequences
from emotion_tf.models.two_tower import build_model
from emotion_tf.run_info import DataSpec


def tower(width):
    return SimpleNamespace(output={"embedding": keras.Input((width,)), "present": keras.Input((), dtype="bool")})


def test_only_cross_attention_reads_sequences():
    assert [kind for kind in CHOICES["fusion.kind"] if reads_sequences(kind)] == ["cross_attention"]


@pytest.mark.parametrize("kind", CHOICES["fusion.kind"])
def test_a_single_tower_goes_to_the_dense_layers(kind):
    model = build_fusion({"text": tower(5)}, FusionConfig(kind=kind, dense_units=()), 7)
    assert set(model.input) == {"text_embedding"} and model.output.shape == (None, 7)
    assert [layer.name for layer in model.layers][-1] == "logits" and len(model.weights) == 2


def test_dropout_and_dense_layers_then_logits_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_fusion({"text": tower(5), "face": tower(3)}, FusionConfig(dense_units=(6, 4), dropout=0.25), 7)
    finally:
        keras.config.set_dtype_policy("float32")
    names = [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert names == [
        "fusion_concat", "fusion_dropout_0", "fusion_dense_0", "fusion_dropout_1", "fusion_dense_1", "fusion_dropout",
        "logits",
    ]  # fmt: skip
    assert all(model.get_layer(name).rate == 0.25 for name in names if "dropout" in name)
    inputs = {"text_embedding": np.ones((2, 5)), "face_embedding": np.ones((2, 3))}
    assert model(inputs).dtype == "float32" and model.get_layer("fusion_dense_0").compute_dtype == "bfloat16"


def test_modality_dropout_reaches_every_tower_and_needs_several():
    spec = DataSpec(("a", "b"), face_size=16, max_faces=1, lower_case=True, tokenizer="learned", tokenizer_sha256="")
    config = Config(
        text=TextConfig(word_dim=4, gru_units=4), face=FaceConfig(cnn_filters=(4,)),
        fusion=FusionConfig(modality_dropout=0.3),
    )  # fmt: skip
    model = build_model(config, spec, (10, 4))
    rates = [tower.find_layer(f"{modality}_modality_dropout").rate for modality, tower in model.towers.items()]
    assert rates == [0.3, 0.3]
    with pytest.raises(UserError, match=r"fusion.modality_dropout.*Expected 0 with one tower"):
        dataclasses.replace(config, towers=("text",))
