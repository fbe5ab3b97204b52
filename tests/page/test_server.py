"""The page's server: the command itself, and requests of untrusted visitors."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback

import cv2
import httpx
import numpy as np
import psutil
import pytest
import synthetic_faces
from gradio_client import Client, handle_file
from helpers import ROOT

from emotion_tf.errors import UserError
from emotion_tf.page import gate, server, uploads

SECRET = "nobody may read this"
ALWAYS = "none"


@pytest.fixture(scope="module")
def folder(untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved_models")
    shutil.copytree(untrained, folder / "both")
    (folder / "both" / "secret.txt").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def process(folder, tmp_path_factory):
    """`main.py demo` as a process, with its uploads in a folder of the test; ended by Ctrl-C."""
    temporary = tmp_path_factory.mktemp("tmp")
    words = [sys.executable, "main.py", "demo", str(folder / "both"), "--port", "0", "--upload", "20"]
    words += ["--faces.detector", "mtcnn"]
    env = {**os.environ, "TMPDIR": str(temporary)}
    with (temporary / "stderr").open("w") as stderr:
        started = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)
        line = started.stdout.readline()
        assert line.startswith("Page: http://127.0.0.1:"), (temporary / "stderr").read_text()
        yield line.split()[1].rstrip("/"), started, temporary
        started.send_signal(signal.SIGINT)
        assert started.wait(60) == 0
    assert (temporary / "stderr").read_text() == "" and started.stdout.read() == ""  # nothing is logged
    assert [path.name for path in temporary.iterdir() if path.name.startswith("emotion_tf")] == []  # nothing is kept


def predict(client, text, picture=None):
    return client.predict("both", "", ALWAYS, text, "", picture, None, True, None, api_name="/predict")


def memory(process):
    return psutil.Process(process.pid).memory_info().rss / 2**20


@pytest.mark.slow
def test_files_of_this_computer_are_not_served(process, folder):
    address, _, temporary = process
    secret = folder / "both" / "secret.txt"
    link = temporary / "link.png"
    link.symlink_to(secret)
    own = next(temporary.glob("emotion_tf-page-*"))
    (own / "uploads").mkdir(exist_ok=True)
    up = "../" * 30
    names = [
        str(secret), f"{up}{secret}"[:-1], f"{own}/uploads/{up}{secret}", f"{own}/examples/{up}{secret}", str(link),
        "..%2f" * 30 + str(secret).replace("/", "%2f"), "%2e%2e/" * 30 + str(secret), f"{own}/examples/..\\..\\x",
        str(ROOT / "README.md"), "main.py", "requirements.txt", "/etc/passwd", "//etc/passwd", "file:///etc/passwd",
        "/proc/self/environ", str(folder / "both" / "model.keras"),
    ]  # fmt: skip
    with httpx.Client(base_url=address) as web:
        for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/custom_component/"):
            for name in names:
                response = web.get(route + name)
                assert response.status_code in (403, 404, 405, 422), (route, name, response.status_code)
                assert SECRET not in response.text and "root:" not in response.text
        assert web.get("/", headers={"host": "elsewhere.example"}).status_code == 400


@pytest.mark.slow
def test_a_path_in_place_of_an_upload_is_refused(process, folder):
    address, _, temporary = process

    def predict(path):
        """Sends a request as the browser does, with any path."""
        picture = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        with httpx.Client(base_url=f"{address}/gradio_api", timeout=60) as web:
            data = ["both", "", ALWAYS, "You did it!", "", picture, None, True, None]
            event = web.post("/call/predict", json={"data": data})
            return web.get(f"/call/predict/{event.json()['event_id']}").text if event.status_code == 200 else event.text

    example = next(temporary.glob("emotion_tf-page-*/examples/face_0.png"))
    absent = example.parent.parent / "uploads" / "absent" / "face.png"
    secret = folder / "both" / "secret.txt"
    for path in (secret, "/etc/passwd", ROOT / "docs" / "demo_report.png", example, f"{example}/../../x", absent):
        assert predict(path) == json.dumps({"detail": gate.GONE}, separators=(",", ":"))
    with open(example, "rb") as file:
        (uploaded,) = httpx.post(f"{address}/gradio_api/upload", files={"files": file}).json()
    assert "Probabilities" in predict(uploaded)


@pytest.mark.slow
def test_a_large_upload_is_refused_and_memory_stays_flat(process, tmp_path):
    address, started, temporary = process
    before, most = memory(started), [0.0]

    def chunks(megabytes):
        yield b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n'
        yield b"content-type: image/png\r\n\r\n"
        for _ in range(megabytes):
            most[0] = max(most[0], memory(started))
            yield b"\0" * 2**20
        yield b"\r\n--x--\r\n"

    header = {"content-type": "multipart/form-data; boundary=x"}
    with httpx.Client(base_url=address, timeout=60) as web:
        large = tmp_path / "large.png"
        with large.open("wb") as file:
            file.truncate(200 * 2**20)  # 200 MB with a length
        # it may be refused while it is still being sent
        with contextlib.suppress(httpx.WriteError), large.open("rb") as file:
            assert web.post("/gradio_api/upload", files={"files": file}).status_code == 413
        with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            assert web.post("/gradio_api/upload", content=chunks(200), headers=header).status_code >= 400  # without one
        fits = web.post("/gradio_api/upload", content=chunks(1), headers=header)
        assert fits.status_code == 200
        assert web.post("/gradio_api/queue/join", content=b"[" * 2**23).status_code == 413
    assert max(most[0], memory(started)) - before < 60
    kept = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
    assert kept < 10 * 2**20


@pytest.mark.slow
def test_many_requests_of_four_visitors(process):
    """`VISITS=50` for two hundred requests; by default sixty."""
    visits = int(os.environ.get("VISITS", "15"))
    address, started, temporary = process
    example = next(temporary.glob("emotion_tf-page-*/examples/face_0.png"))
    picture = temporary / "mine.png"
    shutil.copy(example, picture)
    texts = ["You did it!", "No.", "What was that?", "Go away!"]
    levels = []

    def visit(n):
        client = Client(address, verbose=False)
        answers = []
        for i in range(visits):
            answers.append(predict(client, texts[(n + i) % 4], handle_file(picture) if i % 2 else None))
            if n == 0:
                levels.append(memory(started))
        return answers

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(visit, range(4)))
    assert sum(map(len, answers)) == 4 * visits and all(
        "Probabilities" in html for visitor in answers for html in visitor
    )

    def numbers(html):
        return [part.split("<")[0] for part in html.split('class="number">')[1:8]]

    # equal requests have equal answers
    for text, has in {(t, h) for t in range(4) for h in range(2)}:
        same = [numbers(answers[n][i]) for n in range(4) for i in range(visits) if (n + i) % 4 == text and i % 2 == has]
        assert all(values == same[0] for values in same)
    # from the fifth request on, when each kind has come twice
    assert max(levels[2 * visits // 3 :]) - max(levels[4 : 2 * visits // 3]) < 40


def test_a_port_in_use_is_an_error(fault, folder, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port} of 127.0.0.1 is in use" in fault(
            "demo", folder / "both", "--port", port, "--faces.detector", "mtcnn"
        )


def test_a_forbidden_port_is_another_error(monkeypatch):
    def forbidden(self, where):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    with pytest.raises(UserError, match="^No permission for port 80"):
        server._free_port(80)


def test_a_request_that_fails_is_not_logged_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    import gradio as gr

    terminal = sys.stderr
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "example.png").write_bytes(b"x")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    monkeypatch.setattr(uploads, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(uploads, "UPLOAD_SECONDS", 0.5)
    with gr.Blocks(analytics_enabled=False) as page:
        picture, text = gr.Image(type="filepath"), gr.Textbox()
        gr.Button().click(lambda path: 1 / 0, picture, text, api_name="fail")
    with (
        server._served(page, server._free_port(0), uploads.Uploads(folder, 2**20)) as address,
        httpx.Client(base_url=address, timeout=60) as web,
    ):
        assert sys.stderr is not terminal
        assert page.app.state_holder.capacity == server.MAX_VISITORS
        (uploaded,) = web.post("gradio_api/upload", files={"files": b"x"}).json()
        for path in (uploaded, None):
            data = path and {"path": path, "meta": {"_type": "gradio.FileData"}}
            event = web.post("gradio_api/call/fail", json={"data": [data]}).json()["event_id"]
            assert "error" in web.get(f"gradio_api/call/fail/{event}").text
        with socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as visitor:  # disconnects
            head = "POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999\r\n"
            head += "content-type: multipart/form-data; boundary=x\r\n\r\n"
            part = '--x\r\ncontent-disposition: form-data; name="files"; filename="mine.png"\r\n\r\n'
            visitor.sendall(f"{head}{part}{'a' * 9999}".encode())
            wait_for(lambda: len(list(folder.glob("tmp*"))) == 1)
        wait_for(lambda: [path.name for path in folder.iterdir() if path.is_file()] == ["example.png"])
        assert caplog.text == ""
    assert sys.stderr is terminal


def test_nothing_is_printed_or_logged():
    output = io.StringIO()
    log = logging.getLogger("uvicorn.error")
    handler = logging.StreamHandler(output)
    log.addHandler(handler)
    with contextlib.redirect_stderr(output), server._silent():
        try:
            raise ValueError("/a/visitor/file.png")
        except ValueError:
            traceback.print_exc()
            log.exception("Exception in ASGI application")
    assert output.getvalue() == ""
    log.error("after it")
    log.removeHandler(handler)
    assert output.getvalue() == "after it\n"


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_run_is_an_error(fault):
    assert "No run in" in fault("demo") and "make demo" in fault("demo")


def test_invalid_arguments(fault, folder):
    assert "No run at" in fault("demo", folder / "absent")
    assert "`--port`" in fault("demo", folder / "both", "--port", 99999)
    assert "`--upload`" in fault("demo", folder / "both", "--upload", 0)
    assert "--server needs RUN" in fault("demo", "--server", "localhost:1")
    words = ("demo", folder / "both", "--server", "localhost:1", "--timeout", 1, "--port", 0)
    assert "No server answers at localhost:1" in fault(*words, "--faces.detector", "mtcnn")


def served_model(local):
    """Returns the model of a server that has the run's export."""
    import tensorflow as tf

    def call(signature, inputs):
        assert signature == "serve_full"
        outputs = local.predictor.graph.full({name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return call


def test_a_server_predicts_for_the_run(folder):
    from model_server import ModelServer

    from emotion_tf.interpret.batch import Utterance
    from emotion_tf.page.answer import answer_utterance
    from emotion_tf.page.runs import open_local, open_served
    from emotion_tf.serving.client import Client

    local = open_local(folder / "both")

    with ModelServer({"both": served_model(local)}) as server:
        for address in server.addresses:
            run = open_served(folder / "both", functools.partial(Client, address))
            served, expected = (answer_utterance(opened, Utterance("You did it!"), 0.0) for opened in (run, local))
            np.testing.assert_allclose(served.probabilities, expected.probabilities, atol=1e-6)
            assert served.explanation is None and f"Predicted by {address}" in served.notes[0]
            assert run.reads == local.reads == ("text", "face")


def test_a_served_run_without_a_face_tower_reads_no_faces(untrained_text):
    from model_server import ModelServer

    from emotion_tf.interpret.batch import Utterance
    from emotion_tf.page.answer import answer_utterance
    from emotion_tf.page.runs import open_local, open_served
    from emotion_tf.serving.client import Client

    face = cv2.imencode(".png", synthetic_faces.draw_face(1))[1].tobytes()
    local = open_local(untrained_text)
    with ModelServer({untrained_text.name: served_model(local)}) as server:
        run = open_served(untrained_text, functools.partial(Client, server.addresses[0]))
        assert run.reads == local.reads == ("text", "context")
        with pytest.raises(UserError, match="reads text and previous utterances. Enter one of them"):
            answer_utterance(run, Utterance(faces=(face,)), 0.0)
        assert "This run does not read faces." in answer_utterance(run, Utterance("No!", (face,)), 0.0).notes
