"""Builds the C++ program of tests/cpp against TensorFlow's wheel, and compares its outputs with those of Keras."""

from __future__ import annotations

import io
import struct
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tensorflow as tf
from helpers import ROOT
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from untrusted_inputs import requests as batches_of

from emotion_tf.runs.export import unoptimized
from emotion_tf.serving.verify import SIGNATURES

SOURCE = ROOT / "tests" / "cpp" / "run_export.cc"
# the libraries of tensorflow_text whose ops an export has; a server links all of them
OPS = ("_fast_bert_normalizer", "_fast_wordpiece_tokenizer", "_normalize_ops", "_regex_split_ops")


def build_program(folder: Path) -> Path:
    """Builds the program and returns its path. The linker must keep TensorFlow's libraries, which it sees no use of."""
    library = Path(tf.sysconfig.get_lib())
    program = folder / "run_export"
    done = subprocess.run(
        [
            "g++", "-std=c++17", "-O1", *tf.sysconfig.get_compile_flags(), str(SOURCE), "-o", str(program),
            f"-L{library}", "-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2",
            f"-Wl,-rpath,{library}",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return program


def run_requests(program: Path, export: Path, requests, folder: Path):
    """Returns signature and outputs of each request (signature, inputs). Raises CalledProcessError."""
    sent, received = folder / "requests", folder / "responses"
    saved = SavedModel.FromString((export / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    with sent.open("wb") as file:
        for signature, inputs in requests:
            _write_request(file, signatures[signature], inputs)
    text = Path(find_spec("tensorflow_text").origin).parent / "python" / "ops"
    command = [program, export, sent, received, *(text / f"{name}.so" for name in OPS)]
    subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, env={"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    file = io.BytesIO(received.read_bytes())
    responses = [(name, {key: _read_tensor(file) for key in signatures[name].outputs}) for name, _ in requests]
    assert not file.read()
    return responses


def _write_request(file, signature, inputs):
    _write_numbers(file, len(inputs))
    for name, value in inputs.items():
        value = np.asarray(value)
        _write_bytes(file, signature.inputs[name].name.encode())
        _write_numbers(file, tf.as_dtype(value.dtype).as_datatype_enum, value.ndim, *value.shape)
        for data in map(tf.compat.as_bytes, value.flat) if value.dtype.kind in "OSU" else (value.tobytes(),):
            _write_bytes(file, data)
    _write_numbers(file, len(signature.outputs))
    for tensor in signature.outputs.values():
        _write_bytes(file, tensor.name.encode())


def _write_numbers(file, *numbers):
    file.write(struct.pack(f"={len(numbers)}q", *numbers))


def _write_bytes(file, data):
    _write_numbers(file, len(data))
    file.write(data)


def _read_numbers(file, count):
    return struct.unpack(f"={count}q", file.read(8 * count))


def _read_tensor(file):
    dtype, axes = _read_numbers(file, 2)
    shape, dtype = _read_numbers(file, axes), tf.as_dtype(dtype)
    if dtype == tf.string:
        values = [file.read(*_read_numbers(file, 1)) for _ in range(np.prod(shape, dtype=int))]
        return np.array(values, object).reshape(shape)
    return np.frombuffer(file.read(*_read_numbers(file, 1)), dtype.as_numpy_dtype).reshape(shape)


def keras_outputs(predictor, signature, inputs):
    """Returns the outputs of the run's own graph."""
    serve, _ = predictor.graph.signatures[signature]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    with unoptimized():  # the program optimises the graph of the export
        return {name: value.numpy() for name, value in serve(tensors).items()}


def all_requests(predictor, singles):
    """Yields requests of each signature: 32 mixed utterances in one batch, and the first `singles` one by one."""
    graph, batches = predictor.graph, batches_of(predictor.facts.face_size)
    decoded = graph.decode({name: tf.constant(value) for name, value in batches["serve_full"].items()})
    members = zip(graph.preprocess(decoded), graph.tensor_names, strict=True)
    batches["serve_tensors"] = {key: inputs[name].numpy() for inputs, keys in members for name, key in keys.items()}
    for signature, inputs in batches.items():
        yield signature, inputs
        for i in range(singles):
            yield signature, {name: value[i : i + 1] for name, value in inputs.items()}


def largest_differences(program, exported, predictor, folder, singles, others=()):
    """Returns the largest difference from Keras of any output, and of any attribution; and the answers to others.

    To load an export and to optimise its graph takes seconds, so all are sent to one process.
    """
    sent = list(all_requests(predictor, singles))
    responses = run_requests(program, exported, [*sent, *others], folder)
    responses, answers = responses[: len(sent)], responses[len(sent) :]
    assert len(sent) == (1 + singles) * len(SIGNATURES) and len(answers) == len(others)
    worst = {False: 0.0, True: 0.0}
    for (signature, inputs), (answered, outputs) in zip(sent, responses, strict=True):
        expected = keras_outputs(predictor, signature, inputs)
        assert signature == answered and set(outputs) == {feature.name for feature in SIGNATURES[signature][1]}
        for name, value in expected.items():
            if value.dtype.kind == "f":
                difference = float(np.abs(value - outputs[name]).max(initial=0.0))
                worst["attributions" in name] = max(worst["attributions" in name], difference)
            else:
                np.testing.assert_array_equal(value, outputs[name], f"{signature} {name}")
    return worst[False], worst[True], answers
