"""The client without TensorFlow, with TLS and with an authorisation: the numbers are those of the run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT
from model_server import ModelServer
from synthetic_faces import draw_face, draw_scene
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

from emotion_tf.errors import UserError
from emotion_tf.runs.facts import FILE, ModelFacts, facts_of, read_facts, write_exported
from emotion_tf.runs.run import Run
from emotion_tf.serving import messages
from emotion_tf.serving.client import Client
from emotion_tf.serving.predict import RunPredictor

TOKEN = "Bearer abc"
FACTS = ModelFacts("x", ("a", "b"), 32, 1, 0, False)


@pytest.fixture(scope="module")
def predictor(untrained):
    return RunPredictor(Run(untrained))


@pytest.fixture(scope="module")
def call(predictor):
    def call(signature, inputs):
        outputs = predictor.graph.full({name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return call


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Paths of a private key and of a certificate for localhost, which signs itself."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl, which makes the certificate")
    key, path = (tmp_path_factory.mktemp("tls") / name for name in ("key.pem", "cert.pem"))
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*words, "-keyout", key, "-out", path], check=True, capture_output=True)
    return key, path


@pytest.fixture(scope="module")
def files(predictor, tmp_path_factory):
    """Paths of `model.json`, of a crop and of a photo: all that the machine of a client has."""
    folder = tmp_path_factory.mktemp("client")
    (folder / FILE).parent.mkdir()
    write_exported(folder, facts_of(predictor.run))
    cv2.imwrite(str(folder / "crop.png"), draw_face(3))
    cv2.imwrite(str(folder / "photo.jpg"), draw_scene([(draw_face(3), (100, 60))]))
    return folder / FILE, folder / "crop.png", folder / "photo.jpg"


def ask(python, server, transport, files, ca="", authorization=""):
    script = [python, ROOT / "tests" / "light_client.py", server.addresses[transport], ca, authorization, *files]
    done = subprocess.run(script, capture_output=True, text=True, cwd=files[1].parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(answers, predictor, crop):
    (labels, probabilities), (_, of_photo) = answers
    expected = predictor.predict(["Yes, no!", "", "Well."], [None, crop, [crop, crop]])
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)
    assert labels == expected.label and np.shape(of_photo) == (1, 7)


@pytest.mark.parametrize(("transport", "tls"), [(0, False), (0, True), (1, True)], ids=["grpc", "grpcs", "https"])
def test_without_tensorflow_the_numbers_are_the_same(transport, tls, predictor, call, files, request):
    pair = request.getfixturevalue("certificate") if tls else None
    with ModelServer({"untrained": call}, tls=pair, authorization=TOKEN) as server:
        answers = ask(sys.executable, server, transport, files, pair[1] if tls else "", TOKEN)
    check(answers, predictor, files[1])


@pytest.mark.slow
def test_the_distribution_in_an_empty_environment(predictor, call, files, tmp_path):
    for name in ("client", "emotion_tf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", tmp_path / "client"], check=True)
    assert "tensorflow" not in subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True).stdout
    with ModelServer({"untrained": call}) as server:
        check(ask(python, server, 0, files), predictor, files[1])


@pytest.mark.parametrize("transport", [0, 1], ids=["grpcs", "https"])
def test_a_server_that_is_not_trusted_and_one_that_does_not_admit(transport, call, certificate):
    with ModelServer({"x": call}, tls=certificate, authorization=TOKEN) as server:
        address = server.addresses[transport]
        with pytest.raises(UserError, match="does not admit this client .*EMOTION_TF_AUTHORIZATION"):
            Client(address, FACTS, ca=certificate[1], authorization="Bearer no").predict(["Hi"])
        with pytest.raises(UserError, match="No server answers"):
            Client(address, FACTS, timeout=1).predict(["Hi"])
        assert not server.requests


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ("http://example.org:1", {"authorization": TOKEN}, "in the clear"),
        ("example.org:1", {"authorization": TOKEN}, "in the clear"),
        ("https://example.org", {"authorization": "a\nb"}, "one line of ASCII"),
        ("example.org:1", {"ca": Path("x")}, "are for https:// and grpcs://"),
        ("https://example.org", {"ca": Path("nowhere.pem")}, "nowhere.pem"),
        ("grpcs://example.org:1", {"ca": Path("nowhere.pem")}, "nowhere.pem"),
        ("https://example.org", {"ca": Path("/dev/null")}, "null"),
        ("https://example.org", {"ca": Path(__file__)}, "No certificate in this file"),
        ("grpcs://example.org:1", {"ca": Path(__file__)}, "No certificate in this file"),
        ("ftp://example.org", {}, "Invalid address of the server"),
        ("[::1:8500", {"authorization": TOKEN}, "Invalid address of the server"),
        ("http://[::1", {}, "Invalid address of the server"),
        ("localhost:99999", {}, "Invalid address of the server"),  # gRPC would take it for port 34463
        ("https://", {}, "Invalid address of the server"),
    ],
)
def test_invalid_addresses_and_secrets(address, options, message):
    with pytest.raises(UserError, match=message):
        Client(address, FACTS, **options)
    Client("http://localhost:1", FACTS, authorization=TOKEN)  # a proxy on this machine


def test_the_command_line_sends_the_authorization(call, certificate, untrained, command, monkeypatch):
    with ModelServer({"untrained": call}, tls=certificate, authorization=TOKEN) as server:
        words = ["predict", untrained, "--server", server.addresses[0], "--model", "untrained", "--text", "Hi"]
        assert command(*words, "--ca", certificate[1])[0] == 2
        monkeypatch.setenv("EMOTION_TF_AUTHORIZATION", TOKEN)
        assert command(*words, "--ca", certificate[1])[0] == 0


def test_messages_are_those_of_tensorflow_serving():
    arrays = {
        "utterance": np.array([b"a\0", b""], object),
        "mask": np.array([[True, False]]),
        "ids": np.arange(6, dtype=np.int32).reshape(2, 3),
        "faces": np.zeros((0, 4, 4, 3), np.uint8),
        "weights": np.array([[0.5]], np.float32),
    }
    ours = messages.fill_request(messages.PredictRequest(), "m", "serve_full", arrays)
    genuine = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert (genuine.model_spec.name, genuine.model_spec.signature_name) == ("m", "serve_full")
    response = predict_pb2.PredictResponse()
    for name, value in arrays.items():
        np.testing.assert_array_equal(tf.make_ndarray(genuine.inputs[name]), value)
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    response.outputs["same"].CopyFrom(tf.make_tensor_proto(0.25, shape=(3,)))
    read = messages.PredictResponse.FromString(response.SerializeToString()).outputs
    for name, value in {**arrays, "same": np.full(3, 0.25, np.float32)}.items():
        np.testing.assert_array_equal(messages.read_tensor(read[name]), value)
        assert messages.read_tensor(read[name]).dtype == value.dtype
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    status = get_model_status_pb2.GetModelStatusResponse(model_version_status=[{"version": 7, "state": available}])
    (version,) = messages.GetModelStatusResponse.FromString(status.SerializeToString()).model_version_status
    assert (version.version, version.state) == (7, messages.AVAILABLE)
    with pytest.raises(TypeError, match="complex"):
        messages.fill_tensor(response.outputs["z"], np.zeros(1, np.complex64))


def test_facts_that_are_no_facts(tmp_path):
    with pytest.raises(UserError, match="No facts of a model"):
        read_facts(tmp_path / "model.json")
