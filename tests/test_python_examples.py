"""Each Python example of README.md and docs/ runs, on small data; the blocks of a page share their variables."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT
from model_server import ModelServer
from synthetic_faces import detect_faces, draw_face, draw_scene
from test_docs import PAGES, blocks

import emotion_tf
from emotion_tf.api import words_of_options
from emotion_tf.cli import prepare, report
from emotion_tf.cli import train as train_verb
from emotion_tf.config import PRESETS
from emotion_tf.runs.facts import FILE, facts_of, write_exported
from emotion_tf.runs.run import Run

EXAMPLES = {
    path.relative_to(ROOT).as_posix(): sources
    for path in PAGES
    if (sources := [s.text for s in blocks(path.read_text(encoding="utf-8")) if s.language == "python"])
}


@pytest.fixture
def folder(tmp_path, monkeypatch, manifest_path, untrained_pair):
    """The current folder, with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "demo-text-face"):
        shutil.copytree(untrained_pair, tmp_path / "saved_models" / name)
    shutil.copytree(manifest_path.parent, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    shutil.copy(next((manifest_path.parent / "faces").rglob("*.jpg")), tmp_path / "crop.jpg")
    cv2.imwrite(str(tmp_path / "photo.jpg"), draw_scene([(draw_face(3), (100, 60))]))
    return tmp_path


@pytest.fixture(scope="session")
def untrained_pair(small_config, initialised):
    """Path of an untrained run of two towers that is quick to evaluate."""
    text = dataclasses.replace(small_config.text, branches=("cnn",), word_dim=4, cnn_filters=3)
    face = dataclasses.replace(small_config.face, cnn_filters=(4,))
    return initialised(dataclasses.replace(small_config, text=text, face=face)).path


def run_examples(page, change=lambda source: source):
    variables: dict = {}
    for source in EXAMPLES[page]:
        exec(compile(change(source), page, "exec"), variables)
    return variables


def train_only(name, monkeypatch):
    """Lets only the run of this name train. Returns the arguments of the others."""
    real, others = train_verb.train, []

    def train(arguments):
        if arguments.name == name:
            return real(arguments)
        others.append(arguments)
        return [Path("saved_models", arguments.name)]

    monkeypatch.setattr(train_verb, "train", train)
    return others


def test_training_from_python(folder, monkeypatch, small_config, eager):
    text = dataclasses.replace(small_config.text, branches=("cnn",), word_dim=4, cnn_filters=3)
    face = dataclasses.replace(small_config.face, cnn_filters=(4,))
    train = dataclasses.replace(small_config.train, epochs=1, steps_per_epoch=1)
    learned = functools.partial(prepare.load_tokenizer, "learned")
    # in place of MiniLM, which is downloaded
    monkeypatch.setitem(PRESETS, "minilm", dataclasses.replace(small_config, text=text, face=face, train=train))
    monkeypatch.setattr(prepare, "load_tokenizer", lambda name, rows: learned(rows))
    monkeypatch.setattr(report, "write", lambda *_: None)  # the report has tests of its own
    shutil.rmtree(folder / "saved_models" / "mine")
    others = train_only("mine", monkeypatch)
    variables = run_examples("docs/python.md")
    mine, scores = variables["run"], variables["scores"]
    metrics = json.loads((mine.path / "metrics.json").read_text())["test"]
    assert scores.loc["weighted_f1", "value"] == metrics["weighted_f1"]
    assert [*scores.loc["accuracy", ["low", "high"]]] == metrics["intervals"]["accuracy"]
    assert scores.loc["accuracy", "floor"] == metrics["majority_floor"]["accuracy"]
    assert scores.loc["f1_joy", "value"] == metrics["per_class"]["joy"]["f1"]
    assert scores["support"].iloc[3:].sum() == scores.loc["accuracy", "support"] == metrics["utterances"]
    (small,) = others
    config = small.config
    assert (small.name, config.data, config.train.epochs) == ("small", "tfrecords/small", 1)
    assert (config.towers, config.text.branches) == (("text",), ("cnn",))
    command = json.loads((mine.path / "run.json").read_text())["command"]
    assert command == "emotion-tf train --data tfrecords/mine --preset minilm --name mine"
    prediction, explanation = variables["prediction"], variables["explanation"]
    assert prediction.present["face"].tolist() == [False, True]
    np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1, atol=1e-6)
    assert set(explanation.shapley_values) == {"text", "face"} and explanation.words
    assert "Did you mean --train.epochs?" in str(variables["message"])


def test_the_readme(folder, monkeypatch, dataset, small_config):
    monkeypatch.setattr(emotion_tf.api, "prepare", lambda source, out: dataset)
    train_only("", monkeypatch)
    run_examples("README.md")


def test_the_page_for_students(folder, monkeypatch):
    calls = []
    monkeypatch.setattr(emotion_tf.Run, "evaluate", lambda run, split: calls.append((run.path.name, split)))
    run_examples("docs/for_students.md")
    assert calls == [("demo-text-face", "test")]


def test_predicting_and_explaining(folder):
    assert run_examples("docs/predicting.md")["prediction"].probabilities.shape == (2, 7)
    assert run_examples("docs/explaining.md")["explanation"].overlays


def test_a_network_from_elsewhere(folder):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save("facenet_keras.h5")
    run_examples("docs/face_networks.md")
    assert (folder / "facenet.keras").is_file()


def test_a_client(folder, monkeypatch):
    monkeypatch.setattr("emotion_tf.faces.detect.load_detector", lambda name: detect_faces)  # MTCNN takes seconds
    graph = emotion_tf.load("saved_models/mine").graph
    (folder / FILE).parent.mkdir()

    def call(signature, inputs):
        outputs = graph.full({name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    with ModelServer({"mine": call}) as server:
        write_exported(folder, facts_of(Run(folder / "saved_models" / "mine")))
        shutil.copy(folder / FILE, folder)

        def change(source):
            return source.replace("localhost:8500", server.addresses[0]).replace("timeout=5", "timeout=60")

        run_examples("docs/serving.md", change)
        run_examples("docs/for_engineers.md", change)
        assert len(server.requests) == 3


def test_every_example_has_a_test():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [page for page in EXAMPLES if f'run_examples("{page}"' not in source] == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: emotion_tf.train("here", train__epochs="x"), "Invalid `--train.epochs`. Expected a whole number"),
        (lambda: emotion_tf.train("here", preset="mini"), "Did you mean 'minilm'?"),
        (lambda: emotion_tf.train("here", seeds=2), "Expected one run"),
        (lambda: emotion_tf.train("here", preset="demo", text__encoder=["a", "b"]), "b"),
        (lambda: emotion_tf.prepare("m.csv", "out", kind="tabel"), "Did you mean 'table'?"),
        (lambda: emotion_tf.prepare("m.csv", "out", face_sizes=48), "Did you mean --face-size?"),
        (lambda: emotion_tf.Run("nowhere").evaluate(), "No run at nowhere"),
        (lambda: emotion_tf.Run("nowhere").predict(["a"]), "No run at nowhere"),
        (lambda: emotion_tf.Run("nowhere").explain("a"), "Invalid `utterances`"),
        (lambda: emotion_tf.Run("nowhere").resume(), "Cannot resume nowhere"),
    ],
)
def test_errors_are_those_of_the_command_line(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", io.StringIO())  # whatever its encoding, as in a notebook
    with pytest.raises(emotion_tf.UserError) as error:
        call()
    assert message in str(error.value) and "--- " not in str(error.value)


def test_options_become_words():
    options = {"data": Path("x"), "name": None, "smoke": True, "trust": False, "face__augment": False}
    options |= {"face__pretrained": True, "text__branches": ("bert", "gru"), "train__rate": 3e-5, "label": "-x"}
    words = ["--data", "x", "--smoke", "--face.no-augment", "--face.pretrained", "--text.branches", "bert", "gru"]
    assert words_of_options(options) == [*words, "--train.rate", "3e-05", "--label=-x"]


def test_an_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = emotion_tf.trian
    assert set(emotion_tf.__all__) <= set(dir(emotion_tf))
