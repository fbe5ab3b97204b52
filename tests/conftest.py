"""One small data set, one tiny real hub encoder and two small trained runs, shared by the whole session."""

import contextlib
import dataclasses
import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from emotion_tf import cli, folders
from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig

FACE_SIZE = 32


@pytest.fixture(scope="session")
def manifest_path(tmp_path_factory):
    """A demo manifest with its pictures: about 240 utterances."""
    from emotion_tf.data.demo import write_demo

    folder = tmp_path_factory.mktemp("manifest")
    write_demo(folder, 240, seed=0, face_size=FACE_SIZE)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def dataset(manifest_path, tmp_path_factory):
    """The same as TFRecords with a learned word-piece vocabulary. Not to be changed: copy it."""
    return _records(manifest_path, tmp_path_factory.mktemp("tfrecords") / "tiny", FACE_SIZE, 300)


def _records(manifest_path, out, face_size, pieces):
    """A demo manifest as TFRecords with so many learned word pieces."""
    from emotion_tf.data import manifest, records
    from emotion_tf.data.tokenizer import WordPieceTokenizer, learn_vocabulary
    from emotion_tf.labels import MELD_EMOTIONS

    rows = manifest.read_manifest(manifest_path, MELD_EMOTIONS)
    learned = learn_vocabulary([r.utterance for r in rows if r.split == "train"], pieces)
    options = records.PrepareOptions(MELD_EMOTIONS, face_size, 3, "learned")
    records.write_dataset(rows, out, options, WordPieceTokenizer(learned, True))
    return out


@pytest.fixture(scope="session")
def tiny_bert(dataset, tmp_path_factory):
    """A real TF-Hub SavedModel: a BERT of two layers and 16 units with the data set's vocabulary."""
    return _bert(dataset, tmp_path_factory.mktemp("hub") / "tiny_bert", 16, 1)


def _bert(dataset, path, width, layers):
    """A BERT with random weights and a data set's vocabulary, as a TF-Hub SavedModel."""
    from emotion_tf.data.tokenizer import read_vocabulary
    from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert

    entries = len(read_vocabulary(dataset / "vocab.txt"))
    config = BertConfig(entries, width, layers=layers, heads=2, intermediate=width, positions=64)
    save_bert(BertModule(config, dataset / "vocab.txt", seed=1), path)
    return str(path)


@pytest.fixture(scope="session")
def small_config(dataset):
    """GRU + CNN of a few units: an epoch takes a second."""
    return Config(
        data=str(dataset),
        text=TextConfig(word_dim=8, gru_units=8),
        face=FaceConfig(cnn_filters=(4, 8)),
        fusion=FusionConfig(dense_units=(8,)),
        train=TrainConfig(epochs=2, batch_size=16, learning_rate=3e-3),
    )


@pytest.fixture(scope="session")
def bert_config(small_config, tiny_bert):
    """The same with a BERT branch beside the GRU, and two past utterances of context."""
    text = dataclasses.replace(
        small_config.text, branches=("bert", "gru"), encoder=tiny_bert, max_tokens=32, context=2, context_tokens=32
    )
    return dataclasses.replace(small_config, text=text)


@pytest.fixture(scope="session")
def bert_run(bert_config, tiny_bert, tmp_path_factory):
    """A finished run with BERT + GRU and CNN, whose temperatures differ."""
    from helpers import train_run

    from emotion_tf.evaluation.calibration import read_calibration
    from emotion_tf.runs.run import Run

    path = tmp_path_factory.mktemp("runs") / "bert"
    train = dataclasses.replace(bert_config.train, epochs=1, steps_per_epoch=3)
    with _eagerly():
        train_run(dataclasses.replace(bert_config, train=train), path, tiny_bert)
    assert read_calibration(path).utterances  # training has fitted it; of so few utterances temperatures that are all 1
    _set_temperatures(path)
    return Run(path)


def _set_temperatures(path):
    from emotion_tf.evaluation.calibration import Calibration, Temperatures, write_calibration

    write_calibration(path, Calibration(Temperatures(3.0, {"text only": 2.0, "text and face": 0.5}, {})))


@contextlib.contextmanager
def _eagerly():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def eager():
    """A few eager steps take less time than making the graph of one."""
    with _eagerly():
        yield


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Runs the command line in this process: words -> exit code and what it said; runs go to a folder of the test."""
    monkeypatch.setattr(folders, "RUNS", tmp_path / "saved_models")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words)])
        return cli.main(), capfd.readouterr()

    return run


@pytest.fixture
def fault(command):
    """Runs the command line and returns the one line of its error."""

    def run(*words) -> str:
        code, said = command(*words)
        assert code == 2, said
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("error: ") and "Traceback" not in said.err
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def succeed(command):
    """Runs the command line and returns what it printed."""

    def run(*words) -> str:
        code, said = command(*words)
        assert code == 0, said.err
        return said.out

    return run


def _initialised(config, dataset, path, encoder=None, words=("yes", "no"), face_files=None):
    """A run with a model as it was initialised: much quicker to get than a trained one."""
    import keras

    from emotion_tf.data.dataset import Dataset
    from emotion_tf.data.tokenizer import WordVocabulary, read_vocabulary
    from emotion_tf.models.two_tower import build_model
    from emotion_tf.runs.run import Run

    run = Run(path)
    spec, vocabulary = Dataset.open(dataset).spec, WordVocabulary(list(words))
    shape = (len(vocabulary), config.text.word_dim)
    keras.utils.set_random_seed(1)  # of a few units all may be dead, and then there is nothing to see
    model = build_model(config, spec, shape, encoder, face_files)
    run.create(
        config,
        spec,
        model,
        majority=spec.labels[0],
        pieces=read_vocabulary(dataset / "vocab.txt"),
        words=vocabulary.words,
        word_dim=shape[1],
        command="pytest",
        overwrite=False,
    )
    model.save(run.model_path)
    return run


@pytest.fixture(scope="session")
def initialised(dataset, tmp_path_factory):
    """Makes runs as they were initialised: configuration (encoder, words, face_files) -> run."""

    def make(config, **options):
        return _initialised(config, dataset, tmp_path_factory.mktemp("runs") / "made", **options)

    return make


@pytest.fixture(scope="session")
def untrained(small_config, dataset, tmp_path_factory):
    """Path of a run of GRU + CNN as it was initialised."""
    return _initialised(small_config, dataset, tmp_path_factory.mktemp("runs") / "untrained").path


@pytest.fixture(scope="session")
def untrained_text(small_config, dataset, tmp_path_factory):
    """Path of a run of a GRU alone, which reads two past utterances, as it was initialised."""
    text = dataclasses.replace(small_config.text, context=2, context_tokens=16)
    config = dataclasses.replace(small_config, towers=("text",), text=text)
    return _initialised(config, dataset, tmp_path_factory.mktemp("runs") / "untrained_text").path


@pytest.fixture(scope="session")
def untrained_bert(bert_config, dataset, tiny_bert, tmp_path_factory):
    """A run with BERT + GRU and CNN as it was initialised."""
    return _initialised(bert_config, dataset, tmp_path_factory.mktemp("runs") / "untrained_bert", tiny_bert)


@pytest.fixture(scope="session")
def make_records():
    """A manifest's path, a folder, the side of the crops, how many word pieces -> the folder, as a data set."""
    return _records


@pytest.fixture(scope="session")
def telling_data(tmp_path_factory):
    """A demo data set of 2,000 utterances: each telling word comes often enough to be learned."""
    from emotion_tf.data.demo import write_demo

    folder = tmp_path_factory.mktemp("telling")
    write_demo(folder, 2000, seed=1, face_size=FACE_SIZE)
    return _records(folder / "manifest.csv", folder / "records", FACE_SIZE, 1500)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Trains a run: data set, width of a BERT with its vocabulary (0: none), the configuration's parts -> run."""
    from helpers import train_run

    from emotion_tf.runs.run import Run

    def make(data, bert_width=0, **parts):
        path = tmp_path_factory.mktemp("runs") / "trained"
        encoder = _bert(data, path.parent / "encoder", bert_width, 2) if bert_width else None
        if encoder:
            parts["text"] = dataclasses.replace(parts["text"], encoder=encoder)
        train_run(Config(data=str(data), **parts), path, encoder)
        return Run(path)

    return make


@pytest.fixture(scope="session")
def served_bert(untrained_bert, tmp_path_factory):
    """The same with temperatures that differ."""
    from emotion_tf.runs.run import Run

    path = tmp_path_factory.mktemp("runs") / "served_bert"
    shutil.copytree(untrained_bert.path, path)
    _set_temperatures(path)
    return Run(path)


@pytest.fixture(scope="session")
def rows(manifest_path):
    """Ten utterances with different texts and faces, one without text, one without a face."""
    from emotion_tf.data import manifest
    from emotion_tf.labels import MELD_EMOTIONS

    found = [row for row in manifest.read_manifest(manifest_path, MELD_EMOTIONS) if len(row.faces) >= 1][:10]
    texts = [row.utterance for row in found]
    faces = [row.faces[0].read_bytes() for row in found]
    texts[3], faces[5] = "", None
    return texts, faces
