"""The export where no Python is: a C++ program loads it as TensorFlow Serving does, and its numbers are Keras'."""

import subprocess

import numpy as np
import pytest
import tensorflow as tf
from cpp_server import ask, build
from strangers import requests

from emotion_tf.serving.export import export
from emotion_tf.serving.predict import Predictor
from emotion_tf.serving.verify import SIGNATURES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("cpp"))


def of_keras(predictor, signature, inputs):
    """What the run's own graph gives."""
    serve, _ = predictor.graph.signatures[signature]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    found = serve(tensors) if signature == "serve_tensors" else serve(**tensors)
    return {name: value.numpy() for name, value in found.items()}


def everything(predictor, alone):
    """Every signature for 32 mixed requests at once, and for so many of them alone."""
    graph, found = predictor.graph, requests(predictor.about.face_size)
    read = graph.read(*(tf.constant(value) for value in found["serve_full"].values()))
    parts = zip(graph.inputs(*read), graph.tensor_names, strict=True)
    found["serve_tensors"] = {key: inputs[name].numpy() for inputs, keys in parts for name, key in keys.items()}
    for signature, inputs in found.items():
        yield signature, inputs
        for i in range(alone):
            yield signature, {name: value[i : i + 1] for name, value in inputs.items()}


def compare(program, exported, predictor, folder, alone):
    """The largest difference of any number, and of any attribution, from Keras'."""
    asked = list(everything(predictor, alone))
    answers = ask(program, exported, asked, folder)
    assert len(answers) == len(asked) == (1 + alone) * len(SIGNATURES)
    worst = {False: 0.0, True: 0.0}
    for (signature, inputs), (answered, found) in zip(asked, answers, strict=True):
        expected = of_keras(predictor, signature, inputs)
        assert signature == answered and set(found) == {one.name for one in SIGNATURES[signature][1]}
        for name, value in expected.items():
            if value.dtype.kind == "f":
                difference = float(np.abs(value - found[name]).max(initial=0.0))
                worst["attributions" in name] = max(worst["attributions" in name], difference)
            else:
                np.testing.assert_array_equal(value, found[name], f"{signature} {name}")
    return worst[False], worst[True]


def test_every_signature_gives_what_keras_gives(program, bert_run, tmp_path):
    numbers, attributions = compare(program, export(bert_run), Predictor(bert_run), tmp_path, 32)
    assert numbers <= 1e-5 and attributions <= 1e-4


def test_a_plain_saved_model_cannot_be_run(program, untrained, tmp_path):
    """That this way of testing sees what a server stumbles over: the same function, saved without ExportArchive."""
    from emotion_tf.runs.run import Run

    predictor, module = Predictor(Run(untrained)), tf.Module()
    module.parts, module.model = [part.preprocess for part in predictor.graph.parts], predictor.model
    serve, given = predictor.graph.signatures["serving_default"]
    module.serve = tf.function(serve, input_signature=given, autograph=False)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.serve})
    inputs = {name: value[:1] for name, value in requests(32)["serving_default"].items()}
    loaded = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    expected = of_keras(predictor, "serving_default", inputs)["probabilities"]
    np.testing.assert_allclose(loaded(**tensors)["probabilities"], expected, atol=1e-6)  # Python sees nothing
    with pytest.raises(subprocess.CalledProcessError) as error:
        ask(program, tmp_path / "1", [("serving_default", inputs)], tmp_path)
    assert "Could not find variable" in error.value.stderr


def test_an_ensemble_keeps_to_the_contract(program, untrained_text, untrained, tmp_path):
    import json

    from emotion_tf.runs.ensemble import Ensemble, digest

    members = [untrained_text, untrained]
    vote = {"method": "weighted", "weights": [0.25, 0.75]}
    there = [{"name": p.name, "path": str(p), "sha256": digest(p), "seed": 0} for p in members]
    (tmp_path / "ensemble.json").write_text(json.dumps({"vote": vote, "members": there, **CARD}))
    run = Ensemble(tmp_path)
    numbers, attributions = compare(program, export(run), Predictor(run), tmp_path, 2)
    assert numbers <= 1e-5 and attributions <= 1e-4


CARD = {
    "labels": ["neutral"],
    "parameters": 0,
    "command": "pytest",
    "data": "d",
    "selected_by": "hand",
    "fitted_on": {"predictions": "dev", "utterances": 1},
}
