"""The precision of the computations, and whether XLA compiles them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from emotion_tf.config import Config
from emotion_tf.config.face import BACKBONES
from emotion_tf.modalities import FACE

AMPERE = 8  # least compute capability of NVIDIA GPUs with bfloat16 tensor cores


def choose_precision(config: Config) -> tuple[str, str]:
    """Returns the precision of a run, and the reason if it was chosen by `auto`."""
    if config.train.precision != "auto":
        return config.train.precision, ""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        gains = capability[0] >= AMPERE
        return ("bfloat16" if gains else "float32"), f"the GPU has compute capability {capability[0]}.{capability[1]}"
    instructions = _instructions()
    if "amx_bf16" in instructions:
        if config.uses_face and any(name in BACKBONES for name in config.face.networks):
            return "bfloat16", "this processor has AMX, and a network of Keras Applications gains by it"
        return "float32", "this processor has AMX, but neither a TF-Hub encoder nor the small cnn gains by it"
    if "avx512_bf16" not in instructions:
        return "float32", "this processor has neither AMX nor AVX512-BF16, without which bfloat16 is no faster"
    if config.towers == (FACE,) and all(map(_is_dense, config.face.branches)):
        return "bfloat16", "this processor has AVX512-BF16, and a face tower of cnn, VGG or ResNet gains by it"
    return "float32", "this processor has AVX512-BF16, which gains only for a face tower of cnn, VGG or ResNet"


def choose_xla(config: Config, network: keras.Model, max_faces: int) -> bool:
    """Returns whether XLA compiles the update: on a GPU, for a face tower alone, of data with one face an utterance.

    XLA compiles each shape of a batch anew, and batches of texts have as many as there are lengths. On a processor it
    is slower: 1.7 to 3.4 times where this was measured. As in Keras (`jit_compile="auto"`), all layers must support it,
    and operations must not have to be deterministic.

    Args:
        config: configuration of the run.
        network: the network that trains.
        max_faces: largest number of faces of an utterance.
    """
    has_one_shape = config.towers == (FACE,) and max_faces == 1 and not config.train.deterministic
    if not (has_one_shape and tf.config.list_physical_devices("GPU")):
        return False
    return all(layer.supports_jit for layer in network._flatten_layers())


def _is_dense(branch: str) -> bool:
    """Whether no convolution is depthwise: depthwise ones are slower in bfloat16 (benchmarks.precision)."""
    return branch == "cnn" or (branch in BACKBONES and BACKBONES[branch].dense)


def _instructions() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Sets the precision of layers built inside the block; weights and logits stay float32 (Micikevicius 2018)."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
