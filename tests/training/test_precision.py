"""Mixed precision: what stays float32, and where lower precision is chosen."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.training import precision
from emotion_tf.training.phases import compile_update
from emotion_tf.training.step import zero_sums


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


def test_every_operation_of_an_update_runs_on_a_gpu(build_update, tiny_config):
    """TensorFlow's wheel has the kernels for GPUs also where there is none; DEFAULT stands for all devices."""
    _, update = build_update(dataclasses.replace(tiny_config, text=TextConfig(("gru", "cnn"), word_dim=4)))
    graph = compile_update(update).get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    devices = {
        name: {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(name).kernel}
        for name in {node.op for node in nodes} - {function.signature.name for function in graph.library.function}
    }
    assert len(devices) > 50 and {name for name, of in devices.items() if not of & {"GPU", "DEFAULT"}} == set()


@pytest.mark.parametrize(
    ("towers", "max_faces", "gpu", "branches", "expected"),
    [
        (("face",), 1, True, ("gru",), True),
        (("face",), 1, False, ("gru",), False),
        (("face",), 2, True, ("gru",), False),
        (("text", "face"), 1, True, ("cnn",), False),
    ],
)
def test_xla_compiles_batches_of_one_shape_on_a_gpu(
    build_update, tiny_config, monkeypatch, towers, max_faces, gpu, branches, expected
):
    config = dataclasses.replace(tiny_config, towers=towers, text=TextConfig(branches, word_dim=4))
    model, _ = build_update(config)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] if gpu else [])
    assert precision.choose_xla(config, model, max_faces) == expected
    deterministic = dataclasses.replace(config, train=TrainConfig(deterministic=True))
    assert not precision.choose_xla(deterministic, model, max_faces)


@pytest.mark.slow
def test_an_update_compiled_by_xla_is_the_same(build_update, tiny_config, batch):
    inputs, label, weight = batch
    weights = []
    for xla in (False, True):
        model, update = build_update(dataclasses.replace(tiny_config, towers=("face",)))
        compile_update(update, xla)(zero_sums(), {name: inputs[name] for name in update.network.input}, label, weight)
        weights.append([np.array(w) for w in model.weights])
    for plain, compiled in zip(*weights, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)


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
