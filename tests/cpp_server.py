"""Builds the C++ program of tests/cpp against TensorFlow's wheel, and runs requests through it."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import tensorflow as tf
from helpers import ROOT
from tensorflow.core.protobuf.named_tensor_pb2 import NamedTensorProto

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
    with tf.io.TFRecordWriter(str(sent)) as writer:
        for signature, inputs in requests:
            writer.write(NamedTensorProto(name=signature).SerializeToString())
            for name, value in inputs.items():
                named = NamedTensorProto(name=name, tensor=tf.make_tensor_proto(value))
                writer.write(named.SerializeToString())
    text = Path(find_spec("tensorflow_text").origin).parent / "python" / "ops"
    command = [program, export, sent, received, *(text / f"{name}.so" for name in OPS)]
    subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, env={"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    responses = []
    for record in tf.data.TFRecordDataset(str(received)).as_numpy_iterator():
        named = NamedTensorProto.FromString(record)
        if named.HasField("tensor"):
            responses[-1][1][named.name] = tf.make_ndarray(named.tensor)
        else:
            responses.append((named.name, {}))
    return responses
