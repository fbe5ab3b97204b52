"""Mixed precision: what stays float32, and where lower precision is chosen."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TrainConfig
from emotion_tf.training import precision


def test_mixed_precision_keeps_weights_and_logits_and_leaks_nothing(build_update, tiny_config, batch, tmp_path):
    inputs, _, _ = batch
    with precision.computing_in("bfloat16"):
        config = dataclasses.replace(tiny_config, fusion=FusionConfig("cross_attention", width=4, heads=2))
        model, update = build_update(config)
    assert keras.config.dtype_policy().name == "float32"
    assert {w.dtype for w in model.trainable_weights} == {"float32"}
    outputs = model(inputs)
    assert outputs["logits"].dtype == "float32" and outputs["text/embedding"].dtype == "bfloat16"
    before = [np.array(w) for w in model.trainable_weights]
    update(batch)
    assert all((np.asarray(w) != b).any() for w, b in zip(model.trainable_weights, before, strict=True))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(loaded(inputs)["logits"], model(inputs)["logits"])


@pytest.mark.parametrize(
    ("gpu", "processor", "branches", "towers", "expected"),
    [
        (None, "avx512f", ("resnet50",), "face", "float32"),
        (None, "avx512_bf16 amx_bf16", ("resnet50",), "text face", "bfloat16"),
        (None, "avx512_bf16 amx_bf16", ("cnn",), "text face", "float32"),
        (None, "avx512_bf16", ("cnn", "vgg16"), "face", "bfloat16"),
        (None, "avx512_bf16", ("cnn", "mobilenetv2"), "face", "float32"),
        (None, "avx512_bf16", ("cnn",), "text face", "float32"),
        ((8, 0), "", ("cnn",), "text face", "bfloat16"),
        ((7, 5), "avx512_bf16", ("cnn",), "face", "float32"),
    ],
)
def test_auto_chooses_bfloat16_only_where_it_gains(monkeypatch, gpu, processor, branches, towers, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] if gpu else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"compute_capability": gpu})
    monkeypatch.setattr(precision, "_instructions", lambda: set(processor.split()))
    config = Config(
        towers=tuple(towers.split()), face=FaceConfig(branches=branches), train=TrainConfig(precision="auto")
    )
    chosen, reason = precision.choose_precision(config)
    assert chosen == expected and reason
    assert precision.choose_precision(dataclasses.replace(config, train=TrainConfig())) == ("float32", "")
