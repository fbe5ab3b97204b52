"""Fixtures of the session: a small data set, a tiny TF-Hub encoder, runs; and the command line in this process."""

import contextlib
import dataclasses
import functools
import gc
import os
import shutil
import signal
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as `quiet.start_tensorflow` does

if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share the folder
    _configuration = tempfile.TemporaryDirectory(prefix="emotion_tf_tests_")
    os.environ["EMOTION_TF_CONFIG"] = _configuration.name  # in place of the checksums of the user's own models

import pytest

from emotion_tf import cli, errors, folders
from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig

FACE_SIZE = 32
LONG = (
    "test_parts", "tuning/test_verb", "test_fuzz", "serving/test_export", "serving/test_export_elsewhere",
    "interpret/test_explain", "cli/test_kills", "training/test_several_hosts", "cli/test_scheduler",
    "cli/test_prepare_cluster", "cli/test_object_storage", "training/test_loop",
    "interpret/test_text", "faces/test_real_clips", "page/test_browser_page", "cli/test_ensemble",
    "models/test_backbones", "interpret/test_face", "serving/test_launch", "page/test_server",
    "test_end_to_end", "features/test_cache", "training/test_cross_validate",
    "models/test_hub_encoder", "models/test_two_tower", "training/test_evaluate", "training/test_initialize",
    "interpret/test_signature", "cli/test_full_disk", "serving/test_predict", "features/test_boundary",
    "serving/test_confined", "cli/test_train", "training/test_phases", "serving/test_features", "test_weights",
    "serving/test_client", "faces/test_pool", "training/test_step",
)  # fmt: skip
"""Files of tests that take longest, first the longest."""


def pytest_collection_modifyitems(items):
    """Starts with the long files: pytest-xdist runs each whole in one process, and all processes end together."""
    order = {f"tests/{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


def pytest_configure():
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Exempts the modules of TensorFlow from the garbage collector, which would search them again and again."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item):
    """Runs the graphs of quick tests as they were traced: to optimise a small one takes longer than to run it."""
    if "tensorflow" in sys.modules:
        options = sys.modules["tensorflow"].config.optimizer
        options.set_experimental_options({"disable_meta_optimizer": item.get_closest_marker("slow") is None})


@pytest.fixture(scope="session")
def manifest_path(tmp_path_factory):
    """Path of a demo manifest of about 240 utterances with face crops."""
    from emotion_tf.data.demo import write_demo

    folder = tmp_path_factory.mktemp("manifest")
    write_demo(folder, 240, seed=0, face_size=FACE_SIZE)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def dataset(manifest_path, tmp_path_factory):
    """Folder of the demo manifest as TFRecords, with a learned word-piece vocabulary. Tests that change it copy it."""
    return _records(manifest_path, tmp_path_factory.mktemp("tfrecords") / "tiny", FACE_SIZE, 300)


def _records(manifest_path, out, face_size, pieces):
    """Writes a demo manifest as TFRecords with a learned vocabulary of `pieces` word pieces; returns their folder."""
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
    """Path of a TF-Hub SavedModel: a BERT of one layer and 16 units with the data set's vocabulary."""
    return _bert(dataset, tmp_path_factory.mktemp("hub") / "tiny_bert", 16, 1)


def _bert(dataset, path, width, layers):
    """Saves a BERT with random weights and a data set's vocabulary as a TF-Hub SavedModel; returns its path."""
    from emotion_tf.data.tokenizer import read_vocabulary
    from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert

    entries = len(read_vocabulary(dataset / "vocab.txt"))
    config = BertConfig(entries, width, layers=layers, heads=2, intermediate=width, positions=64)
    save_bert(BertModule(config, dataset / "vocab.txt", seed=1), path)
    return str(path)


@pytest.fixture(scope="session")
def small_config(dataset):
    """Configuration of a GRU and a CNN of a few units: an epoch takes a second."""
    return Config(
        data=str(dataset),
        text=TextConfig(word_dim=8, gru_units=8),
        face=FaceConfig(cnn_filters=(4, 8)),
        fusion=FusionConfig(dense_units=(8,)),
        train=TrainConfig(epochs=2, batch_size=16, learning_rate=3e-3),
    )


@pytest.fixture(scope="session")
def bert_config(small_config, tiny_bert):
    """`small_config` with a BERT branch beside the GRU, and two past utterances of context."""
    text = dataclasses.replace(
        small_config.text, branches=("bert", "gru"), encoder=tiny_bert, max_tokens=32, context=2, context_tokens=32
    )
    return dataclasses.replace(small_config, text=text)


@pytest.fixture(scope="session")
def bert_run(bert_config, tiny_bert, tmp_path_factory):
    """A finished run of `bert_config`, with a different temperature for each pattern of presence."""
    from helpers import train_run

    from emotion_tf.evaluation.calibration import read_calibration
    from emotion_tf.runs.run import Run

    path = tmp_path_factory.mktemp("runs") / "bert"
    train = dataclasses.replace(bert_config.train, epochs=1, steps_per_epoch=3)
    with _eagerly():
        train_run(dataclasses.replace(bert_config, train=train), path, tiny_bert)
    assert read_calibration(path).utterances  # fitted in training; with so few utterances, all temperatures are 1
    _set_temperatures(path)
    return Run(path)


@pytest.fixture(scope="session")
def exported_bert(bert_run):
    """Path of an export of `bert_run`."""
    from emotion_tf.serving.export import export, unoptimized

    with unoptimized():
        return export(bert_run)


def _set_temperatures(path, biases=()):
    from emotion_tf.evaluation.calibration import Calibration, Temperatures, write_calibration

    own = {"text only": 2.0, "text and face": 0.5}
    write_calibration(path, Calibration(Temperatures(3.0, own, {}, biases)))


@contextlib.contextmanager
def _eagerly():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eager():
    """Runs functions eagerly: a few eager steps take less time than tracing one."""
    with _eagerly():
        yield


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Function from arguments to the exit code and the output of the command line; runs go to a folder of the test."""
    monkeypatch.setattr(folders, "RUNS", tmp_path / "saved_models")
    monkeypatch.setattr(errors, "MAX_LINE", 1000)  # the names of the tests' folders are long

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, words)])
        return cli.main(), capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """`Forks.start` runs the command line in a process that need not import TensorFlow."""
    from forks import Forks

    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def _open_once():
    from emotion_tf.serving.predict import open_predictor

    return functools.cache(open_predictor)


@pytest.fixture
def opened_once(_open_once, monkeypatch):
    """Lets commands share a predictor of each path: a run that does not change is loaded and traced once."""
    monkeypatch.setattr("emotion_tf.serving.predict.open_predictor", _open_once)


@pytest.fixture
def fault(command):
    """Function from arguments to the error message of the command line, which must be one line."""

    def run(*words) -> str:
        code, output = command(*words)
        assert code == 2, output
        lines = output.err.splitlines()
        assert len(lines) == 1, output.err
        assert lines[0].startswith("error: ") and "Traceback" not in output.err
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def succeed(command):
    """Function from arguments to the standard output of the command line, which must succeed."""

    def run(*words) -> str:
        code, output = command(*words)
        assert code == 0, output.err
        return output.out

    return run


def _initialised(config, dataset, path, encoder=None, words=("yes", "no"), face_files=None):
    """Writes a run with an untrained model, which takes far less time than training one."""
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
        counts=range(len(spec.labels), 0, -1),
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
    """Function from a configuration, and options of `_initialised`, to a run with an untrained model."""

    def make(config, **options):
        return _initialised(config, dataset, tmp_path_factory.mktemp("runs") / "untrained", **options)

    return make


@pytest.fixture(scope="session")
def untrained(small_config, dataset, tmp_path_factory):
    """Path of an untrained run of `small_config`."""
    return _initialised(small_config, dataset, tmp_path_factory.mktemp("runs") / "untrained").path


@pytest.fixture(scope="session")
def untrained_text(small_config, dataset, tmp_path_factory):
    """Path of an untrained run of a GRU that reads two past utterances."""
    text = dataclasses.replace(small_config.text, context=2, context_tokens=16)
    config = dataclasses.replace(small_config, towers=("text",), text=text)
    return _initialised(config, dataset, tmp_path_factory.mktemp("runs") / "untrained_text").path


@pytest.fixture(scope="session")
def untrained_bert(bert_config, dataset, tiny_bert, tmp_path_factory):
    """An untrained run of `bert_config`."""
    return _initialised(bert_config, dataset, tmp_path_factory.mktemp("runs") / "untrained_bert", tiny_bert)


@pytest.fixture(scope="session")
def make_records():
    """Function (manifest, folder, side of the crops, number of word pieces) that writes a data set into the folder."""
    return _records


@pytest.fixture(scope="session")
def learnable_data(tmp_path_factory):
    """Folder of a demo data set of 2,000 utterances: the words of each emotion are frequent enough to learn."""
    from emotion_tf.data.demo import write_demo

    folder = tmp_path_factory.mktemp("learnable")
    write_demo(folder, 2000, seed=1, face_size=FACE_SIZE)
    return _records(folder / "manifest.csv", folder / "records", FACE_SIZE, 1500)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Function (data set, width of a BERT or 0, parts of the configuration) that trains a run."""
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
    """A copy of `untrained_bert` with biases, and a different temperature for each pattern of presence."""
    from helpers import BIASES

    from emotion_tf.runs.run import Run

    path = tmp_path_factory.mktemp("runs") / "served_bert"
    shutil.copytree(untrained_bert.path, path)
    _set_temperatures(path, BIASES)
    return Run(path)


@pytest.fixture(scope="session")
def rows(manifest_path):
    """Texts and face crops of ten utterances, one without a text and one without a face."""
    from emotion_tf.data import manifest
    from emotion_tf.labels import MELD_EMOTIONS

    utterances = [row for row in manifest.read_manifest(manifest_path, MELD_EMOTIONS) if row.faces][:10]
    texts = [row.utterance for row in utterances]
    faces = [row.faces[0].read_bytes() for row in utterances]
    texts[3], faces[5] = "", None
    return texts, faces
