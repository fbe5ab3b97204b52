"""The client with a test server that has TensorFlow Serving's APIs: requests, responses, and a server that is down or
slow or has another model. With TF_SERVING_ADDRESS, also with a real server."""

import base64
import contextlib
import dataclasses
import io
import json
import os
import re
import socket
import threading
import time

import cv2
import numpy as np
import pytest
import requests
import tensorflow as tf
from helpers import ROOT
from model_server import ModelServer
from synthetic_faces import detect_faces, draw_face, draw_scene

from emotion_tf import documents
from emotion_tf.errors import UserError
from emotion_tf.runs.facts import ModelFacts, read_facts
from emotion_tf.runs.run import Run
from emotion_tf.serving import transport as transport_module
from emotion_tf.serving.client import Client
from emotion_tf.serving.predict import RunPredictor

TEXTS = ["Yes, no!", "", "I did not expect that. 😀", "مرحبا", "Well."]


@pytest.fixture(autouse=True)
def short_delay(monkeypatch):
    monkeypatch.setattr(transport_module, "FIRST_DELAY", 0.02)


@pytest.fixture(scope="module")
def untrained(small_config, initialised):
    """As the shared fixture, but without hidden units: a dead unit would give different utterances one prediction."""
    config = dataclasses.replace(small_config, fusion=dataclasses.replace(small_config.fusion, dense_units=()))
    path = initialised(config).path
    return path.rename(path.with_name("untrained"))


@pytest.fixture(scope="module")
def predictor(untrained):
    return RunPredictor(Run(untrained))


@pytest.fixture(scope="module")
def faces(manifest_path):
    paths = sorted((manifest_path.parent / "faces").rglob("*.jpg"))
    return [paths[0], None, paths[1], [paths[0], paths[2]], None]


def served_graph(predictor):
    """Returns the run's own graph as a served model."""

    def call(signature, inputs):
        assert signature == "serve_full"
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in predictor.graph.full(tensors).items()}

    return call


@pytest.fixture(scope="module")
def served(predictor):
    with ModelServer({"untrained": served_graph(predictor)}) as server:
        yield server


@pytest.fixture(params=[0, 1], ids=["grpc", "rest"])
def transport(request):
    return request.param


def test_a_server_predicts_as_the_run_does(served, predictor, untrained, faces, transport):
    client = Client(served.addresses[transport], read_facts(untrained), timeout=60, batch=2)
    assert client.wait_until_ready(10) and not Client(
        served.addresses[transport], read_facts(untrained), "other"
    ).wait_until_ready(0.3)
    served.requests.clear()
    prediction, expected = client.predict(TEXTS, faces), predictor.predict(TEXTS, faces)
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-6)
    assert prediction.label == expected.label and prediction.labels == expected.labels
    np.testing.assert_array_equal(prediction.present["face"], [True, False, True, True, False])
    np.testing.assert_array_equal(prediction.present["text"], [True, False, True, True, True])
    assert len(np.unique(prediction.probabilities.round(6), axis=0)) == len(TEXTS)
    # batches of two, always of the same shape: a server may join them with those of other clients
    max_faces = predictor.facts.max_faces
    assert [shapes["face_jpeg"] for _, shapes in served.requests] == [(2, max_faces), (2, max_faces), (1, max_faces)]
    assert client.predict([]).probabilities.shape == (0, 7)
    client.close()


@pytest.mark.parametrize("side", [(32, 32), (112, 96)])
def test_a_picture_by_rest_gives_what_the_client_gives(served, untrained, side):
    """The server makes of a picture what the client, and `prepare`, make of it."""
    picture = cv2.imencode(".png", cv2.resize(draw_face(3), side))[1].tobytes()
    expected = Client(served.addresses[1], read_facts(untrained)).predict(["Well."], [picture])
    inputs = {"utterance": ["Well."], "context": [[""]], "face_jpeg": [[{"b64": base64.b64encode(picture).decode()}]]}
    url = f"{served.addresses[1]}/v1/models/untrained:predict"
    answer = requests.post(url, json={"signature_name": "serve_full", "inputs": inputs}, timeout=60).json()["outputs"]
    np.testing.assert_allclose(answer["probabilities"], expected.probabilities, atol=1e-6)
    assert answer["face_present"] == [True]


def test_the_curl_line_of_the_docs_gets_such_an_answer(predictor, untrained):
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    name, body = re.search(
        r"curl http://localhost:8501/v1/models/([\w-]+):predict -d '(.*?)'", page, re.DOTALL
    ).groups()
    printed = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])

    def call(signature, inputs):
        serve, _ = predictor.graph.signatures[signature]
        return {key: value.numpy() for key, value in serve({k: tf.constant(v) for k, v in inputs.items()}).items()}

    with ModelServer({name: call}) as server:
        url = f"{server.addresses[1]}/v1/models/{name}:predict"
        answer = requests.post(url, data=body, timeout=60).json()
    assert {key: np.shape(value) for key, value in answer["outputs"].items()} == {
        key: np.shape(value) for key, value in printed["outputs"].items()
    }
    assert answer["outputs"]["face_present"] == printed["outputs"]["face_present"]


def test_the_command_line_asks_a_server(served, untrained, succeed, fault, transport):
    address = served.addresses[transport]
    words = ("predict", untrained, "--server", address, "--text", "Yes, no!")
    assert succeed(*words) == succeed("predict", untrained, "--text", "Yes, no!")
    assert "has no model 'other'" in fault(*words, "--model", "other")
    assert "Missing: RUN" in fault("predict", "--text", "Hi")
    assert "--model names the model on a server" in fault("predict", untrained, "--text", "Hi", "--model", "x")
    assert "--ca names the certificates of a server" in fault("predict", untrained, "--text", "Hi", "--ca", "x.pem")


def test_a_server_that_is_down_or_slow(predictor, untrained, transport):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    facts = read_facts(untrained)
    with pytest.raises(UserError, match="No server answers at .*serve RUN"):
        Client(("127.0.0.1:{}", "http://127.0.0.1:{}")[transport].format(port), facts).predict(["a"])
    with ModelServer({"untrained": served_graph(predictor)}, delay=3) as server:
        with pytest.raises(UserError, match=r"gave no answer within 1 s"):
            Client(server.addresses[transport], facts, timeout=1).predict(["a"])
        assert len(server.requests) == 1  # the server may have processed it: it is not sent again


def test_only_unavailable_servers_are_called_again(predictor, untrained, transport):
    facts = read_facts(untrained)
    with ModelServer({"untrained": served_graph(predictor)}, unavailable=2) as server:
        client = Client(server.addresses[transport], facts, timeout=30)
        assert client.predict(["a"]).probabilities.shape == (1, 7) and len(server.requests) == 3
        server.unavailable = 99
        with pytest.raises(UserError, match="No server answers .*being loaded"):
            client.predict(["a"])
        assert len(server.requests) == 7

    def reject(signature, inputs):
        raise tf.errors.InvalidArgumentError(None, None, "input must be\nsomething else")

    with ModelServer({"untrained": reject}) as server:
        with pytest.raises(UserError, match="rejected the request .*input must be something else"):
            Client(server.addresses[transport], facts).predict(["a"])
        assert len(server.requests) == 1


@pytest.mark.parametrize("mistake", ["classes", "labels", "rows", "nothing", "no numbers"])
def test_a_server_of_another_model(predictor, untrained, transport, mistake):
    def call(signature, inputs):
        outputs = served_graph(predictor)(signature, inputs)
        if mistake == "classes":
            outputs["probabilities"] = outputs["probabilities"][:, :5]
        elif mistake == "labels":
            outputs["label"] = np.array([b"hope"] * len(outputs["label"]), object)
        elif mistake == "rows":
            outputs = {name: value[:1] for name, value in outputs.items()}
        elif mistake == "no numbers":
            outputs["probabilities"] = np.full_like(outputs["probabilities"], np.nan)
        return {} if mistake == "nothing" else outputs

    with (
        ModelServer({"untrained": call}) as server,
        pytest.raises(UserError, match="The model untrained of .* is not untrained: its outputs"),
    ):
        Client(server.addresses[transport], read_facts(untrained)).predict(["a", "b"])


def test_several_threads_share_a_client(served, predictor, untrained, transport):
    client = Client(served.addresses[transport], read_facts(untrained), timeout=60)
    expected = predictor.predict(TEXTS).probabilities
    differing = []

    def predict(i):
        probabilities = client.predict([TEXTS[i]]).probabilities[0]
        if np.abs(probabilities - expected[i]).max() > 1e-6:
            differing.append(i)

    threads = [threading.Thread(target=predict, args=(i % len(TEXTS),)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []


def test_the_client_crops_photos(served, predictor, untrained, tmp_path):
    pixels = draw_scene([(draw_face(3), (100, 60))])
    client = Client(served.addresses[0], read_facts(untrained), timeout=60, detect=detect_faces)
    cv2.imwrite(str(tmp_path / "photo.png"), pixels)
    black = cv2.imencode(".png", np.zeros_like(pixels))[1].tobytes()
    prediction = client.predict_photos(["Well."] * 3, [tmp_path / "photo.png", black, None])
    assert prediction.present["face"].tolist() == [True, False, False]
    with pytest.raises(UserError, match="Cannot decode the picture"):
        client.predict_photos(["a"], [b"no picture"])
    with pytest.raises(UserError, match="a face detector"):
        Client(served.addresses[0], read_facts(untrained)).predict_photos(["a"], [black])


def test_invalid_options_of_a_client(untrained):
    facts = read_facts(untrained)
    for options in ({"timeout": 0}, {"timeout": float("nan")}, {"batch": 0}):
        with pytest.raises(UserError, match="Expected a timeout above 0"):
            Client("127.0.0.1:1", facts, **options)
    with pytest.raises(UserError, match="No run at"):
        read_facts(ROOT)


@pytest.mark.skipif("TF_SERVING_ADDRESS" not in os.environ, reason="no TensorFlow Serving: TF_SERVING_ADDRESS")
def test_a_real_server():
    """TF_SERVING_ADDRESS=localhost:8500 TF_SERVING_RUN=saved_models/mine: a server of that run's export."""
    from pathlib import Path

    run = Path(os.environ["TF_SERVING_RUN"])
    client = Client(os.environ["TF_SERVING_ADDRESS"], read_facts(run), os.environ.get("TF_SERVING_MODEL", ""))
    expected = RunPredictor(Run(run)).predict(TEXTS)
    np.testing.assert_allclose(client.predict(TEXTS).probabilities, expected.probabilities, atol=1e-5)


class FakeResponse:
    """A response of `requests` with this body."""

    def __init__(self, content, status=200):
        self.raw, self.status_code = self, status
        self.content = io.BytesIO(content)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read1(self, size, decode_content):
        return self.content.read1(size)


FACTS = ModelFacts("x", ("a", "b"), 32, 1, 0, False)
ANSWER = {
    "probabilities": [[0.25, 0.75]], "logits": [[0.0, 1.0]], "label": ["b"], "text_present": [True],
    "face_present": [False],
}  # fmt: skip


def answered(monkeypatch, content, status=200):
    client = Client("http://127.0.0.1:1", FACTS)
    monkeypatch.setattr(client._transport._session, "post", lambda *_, **__: FakeResponse(content, status))
    return client.predict(["Hi"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected JSON in UTF-8"),
        (b"null", "Expected an object"),
        (b'{"outputs": 3}', "`outputs`. Expected an object"),
        (b'{"outputs": {"logits": 3}}', "`outputs.logits`. Expected a list"),
        (b'{"outputs": {"logits": [[1], [1, 2]]}}', "invalid answer"),
        (b'{"error": ["x"]}', "`error`. Expected a text"),
        (b"[" * 10**5, "recursion limit"),
        (b'{"outputs": {"a": ' + b"[" * 10**5, "recursion limit"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_answers_that_are_none(content, message, monkeypatch):
    with pytest.raises(UserError) as error:
        answered(monkeypatch, content)
    assert message in str(error.value) and len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("probabilities", [[0.0, 1.0]], ""),
        ("probabilities", [[0.25, 0.25]], "`probabilities` do not sum to 1"),
        ("probabilities", [[-0.5, 1.5]], "`probabilities` do not sum to 1"),
        ("probabilities", [["a", "b"]], "ValueError"),
        ("probabilities", [[10**400, 1]], "OverflowError"),
        ("logits", [[1.0, 0.0]], "`label` is not the one with the highest logit"),
        ("logits", [[0.0, 1.0, 2.0]], "`logits` are no finite numbers of the shape (1, 2)"),
        ("label", ["a"], "`label` is not the one with the highest logit"),
        ("label", [], "`label` is not the one with the highest logit"),
        ("text_present", [1], "`text_present` are no 1 booleans"),
        ("face_present", [True], "`face_present` is true without one"),
    ],
    ids=str,
)
def test_an_answer_fits_the_facts_and_what_was_sent(name, value, message, monkeypatch):
    content = json.dumps({"outputs": {**ANSWER, name: value}}).encode()
    if not message:
        assert answered(monkeypatch, content).label == ["b"]
        return
    with pytest.raises(UserError, match="The model x of .* is not x: its outputs do not fit the labels a, b") as error:
        answered(monkeypatch, content)
    assert message in str(error.value)


def test_an_answer_without_an_end_is_cut(monkeypatch):
    monkeypatch.setattr(transport_module, "MAX_MESSAGE_BYTES", 1 << 21)
    with pytest.raises(UserError, match="Expected JSON in UTF-8"):
        answered(monkeypatch, b'{"error": "' + b"x" * (1 << 22) + b'"}')


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_proxy_without_a_server_behind_it(status, monkeypatch):
    with pytest.raises(UserError, match="No server answers at .*502 Bad Gateway.*serve RUN"):
        answered(monkeypatch, b"<html>502 Bad Gateway</html>", status)


def test_an_answer_is_parsed_once(monkeypatch):
    monkeypatch.setattr(documents.json, "loads", lambda *_, **__: pytest.fail("parsed again"))
    assert answered(monkeypatch, json.dumps({"outputs": ANSWER}).encode()).label == ["b"]


@contextlib.contextmanager
def answering(head, pieces, pause):
    """A server that answers with these pieces, and a pause after each one. Yields its address."""

    def answer():
        connection, _ = listener.accept()
        listener.close()  # a second attempt fails at once
        with connection, contextlib.suppress(OSError):
            while not connection.recv(1 << 16).endswith(b"}"):  # headers, then the body
                pass
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
            for piece in pieces:
                connection.sendall(piece)
                if ended.wait(pause):
                    return

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield address
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("pieces, pause", [([b"{"], 9), ([b" "] * 100, 0.1)], ids=["stops", "drips"])
def test_an_answer_that_begins_and_does_not_end_in_time(pieces, pause):
    begin = time.monotonic()
    with (
        answering(b"Content-Length: 100", pieces, pause) as address,
        pytest.raises(UserError, match=r"gave no answer within 0\.3 s"),
    ):
        Client(address, FACTS, timeout=0.3).predict(["Hi"])
    assert time.monotonic() - begin < 5


def test_an_answer_in_pieces_is_read_whole_and_a_cut_one_is_none():
    body = json.dumps({"outputs": ANSWER}).encode()
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:20], body[20:])] + [b"0\r\n\r\n"]
    with answering(b"Transfer-Encoding: chunked", chunks, 0.01) as address:
        assert Client(address, FACTS).predict(["Hi"]).label == ["b"]
    with answering(b"Content-Length: 999", [body], 0) as address, pytest.raises(UserError, match="No server answers"):
        Client(address, FACTS).predict(["Hi"])
