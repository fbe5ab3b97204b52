"""Trainings, set-ups and graphs that several test files use."""

import contextlib
import importlib
import os
import re
import resource
import sys
import unittest.mock
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIASES = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
"""Biases of the classes with which the predicted class of an untrained model is rarely the most probable one."""


def training_data(config):
    """Returns the splits train and dev of a configuration's data set."""
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.training.setup import TrainingData

    return TrainingData.of_splits(Dataset.open(Path(config.data)))


def train_run(config, path, encoder=None, say=lambda line: None, face_files=None, **options):
    """Trains a run into `path` as the command line does; returns the final state of the training."""
    from emotion_tf.models.pretrained import PretrainedFiles
    from emotion_tf.runs.run import Run
    from emotion_tf.training.loop import train

    files = PretrainedFiles(encoder, face_files or {})
    return train(config, Run(path), training_data(config), files, command="pytest", say=say, **options)


def build_setup(config, encoder=None, say=lambda line: None, face_files=None):
    """Builds the set-up of a training."""
    from emotion_tf.training import setup

    return setup.build_setup(config, training_data(config), setup.PretrainedFiles(encoder, face_files or {}), say)


def modules_with(pattern):
    """Returns the paths of the modules whose source matches a regular expression, relative to the project."""
    return [
        path.relative_to(ROOT).as_posix()
        for folder in ("emotion_tf", "tuning", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    ]


def ops_of(graph_def):
    """Returns the names of the ops of a graph and of the functions in its library."""
    functions = {function.signature.name for function in graph_def.library.function}
    inner = {node.op for function in graph_def.library.function for node in function.node_def}
    return ({node.op for node in graph_def.node} | inner) - functions


def saved_ops(folder):
    """Returns the names of the ops of a SavedModel."""
    from emotion_tf.models.graph_safety import SavedModelProto

    proto = SavedModelProto.FromString((folder / "saved_model.pb").read_bytes())
    return ops_of(proto.meta_graphs[0].graph_def)


def pretend_gpu():
    """Lets Keras trace graphs inside the `with` as on a machine with a GPU: its GRU and LSTM ask for cuDNN."""
    rnn = importlib.import_module("keras.src.backend.tensorflow.rnn")  # as an attribute, `rnn` is a function
    return unittest.mock.patch.object(rnn, "_is_gpu_available", lambda: True)


def run_info(labels, **changes):
    """Returns the text of a `run.json`."""
    from emotion_tf.documents import to_json
    from emotion_tf.run_info import RunInfo

    values = {
        "labels": tuple(labels), "face_size": 32, "max_faces": 1, "lower_case": True, "tokenizer": "learned",
        "tokenizer_sha256": "0" * 64, "data_sha256": "0" * 64, "majority": labels[0],
        "class_counts": (1.0,) * len(labels), "command": "train", "parameters": 1234, "word_dim": 8,
        "words_sha256": "0" * 64,
    }  # fmt: skip
    return to_json(RunInfo(**values | changes))


def ensemble_info(labels, names, **changes):
    """Returns the text of an `ensemble.json`: the mean of the probabilities of some members."""
    from emotion_tf.documents import to_json
    from emotion_tf.evaluation.vote import EnsembleInfo, Member, Vote

    values = {
        "vote": Vote("soft", (1 / len(names),) * len(names)), "labels": tuple(labels), "parameters": None,
        "members": tuple(Member(name, f"../{name}", "0" * 64, 0) for name in names), "data": "here",
        "command": "ensemble", "fitted_on": {"predictions": "dev", "utterances": 60}, "selected_by": "--method",
        "cross_validated": {},
    }  # fmt: skip
    return to_json(EnsembleInfo(**values | changes))


@contextlib.contextmanager
def largest_file(size):
    """Limits the files of this process and of those that it starts: larger writes fail, as on a full disk.

    Python would keep the first bytes of a compiled module, with which no later process could import it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with (
            unittest.mock.patch.object(sys, "dont_write_bytecode", True),
            unittest.mock.patch.dict(os.environ, {"PYTHONDONTWRITEBYTECODE": "1"}),
        ):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
