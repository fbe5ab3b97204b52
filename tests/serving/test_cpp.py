"""An export in a C++ program, which loads it as TensorFlow Serving does: its outputs equal those of Keras."""

import subprocess

import numpy as np
import pytest
import tensorflow as tf
from cpp_server import build_program, run_requests
from untrusted_inputs import requests

from emotion_tf.serving.export import export
from emotion_tf.serving.predict import RunPredictor
from emotion_tf.serving.verify import SIGNATURES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build_program(tmp_path_factory.mktemp("cpp"))


def keras_outputs(predictor, signature, inputs):
    """Returns the outputs of the run's own graph."""
    serve, _ = predictor.graph.signatures[signature]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in serve(tensors).items()}


def all_requests(predictor, singles):
    """Yields requests of each signature: 32 mixed utterances in one batch, and the first `singles` one by one."""
    graph, batches = predictor.graph, requests(predictor.facts.face_size)
    decoded = graph.decode({name: tf.constant(value) for name, value in batches["serve_full"].items()})
    members = zip(graph.preprocess(decoded), graph.tensor_names, strict=True)
    batches["serve_tensors"] = {key: inputs[name].numpy() for inputs, keys in members for name, key in keys.items()}
    for signature, inputs in batches.items():
        yield signature, inputs
        for i in range(singles):
            yield signature, {name: value[i : i + 1] for name, value in inputs.items()}


def largest_differences(program, exported, predictor, folder, singles):
    """Returns the largest difference from Keras of any output, and of any attribution."""
    sent = list(all_requests(predictor, singles))
    responses = run_requests(program, exported, sent, folder)
    assert len(responses) == len(sent) == (1 + singles) * len(SIGNATURES)
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
    return worst[False], worst[True]


def test_every_signature_gives_the_outputs_of_keras(program, exported_bert, bert_run, tmp_path):
    numbers, attributions = largest_differences(program, exported_bert, RunPredictor(bert_run), tmp_path, 32)
    assert numbers <= 1e-5 and attributions <= 1e-4


def test_a_plain_saved_model_cannot_be_run(program, untrained, tmp_path):
    """The program finds what a server cannot load: the same function, saved without ExportArchive."""
    from emotion_tf.runs.run import Run

    predictor, module = RunPredictor(Run(untrained)), tf.Module()
    module.parts, module.model = [member.preprocess for member in predictor.graph.members], predictor.model
    serve, signature = predictor.graph.signatures["serving_default"]
    module.serve = tf.function(serve, input_signature=signature, autograph=False)
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.serve})
    inputs = {name: value[:1] for name, value in requests(32)["serving_default"].items()}
    loaded = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    expected = keras_outputs(predictor, "serving_default", inputs)["probabilities"]
    np.testing.assert_allclose(loaded(**tensors)["probabilities"], expected, atol=1e-6)  # Python loads it
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_requests(program, tmp_path / "1", [("serving_default", inputs)], tmp_path)
    assert "Could not find variable" in error.value.stderr


def test_an_ensemble_fulfils_the_contract(program, untrained_text, untrained, tmp_path):
    from helpers import ensemble_info

    from emotion_tf.evaluation.vote import Member, Vote
    from emotion_tf.labels import MELD_EMOTIONS
    from emotion_tf.runs.ensemble import Ensemble, digest

    members = [untrained_text, untrained]
    there = tuple(Member(p.name, str(p), digest(p), 0) for p in members)
    vote, names = Vote("weighted", (0.25, 0.75)), [p.name for p in members]
    (tmp_path / "ensemble.json").write_text(ensemble_info(MELD_EMOTIONS, names, vote=vote, members=there))
    run = Ensemble(tmp_path)
    numbers, attributions = largest_differences(program, export(run), RunPredictor(run), tmp_path, 2)
    assert numbers <= 1e-5 and attributions <= 1e-4
