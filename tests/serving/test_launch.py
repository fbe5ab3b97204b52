"""`serve` with a program that stands in for TensorFlow Serving, and a load test of four clients."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from helpers import ROOT
from hostile_graphs import Module
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
from untrusted_inputs import TEXTS, requests

from emotion_tf.errors import UserError
from emotion_tf.runs.facts import read_facts
from emotion_tf.runs.run import Run
from emotion_tf.serving import launch
from emotion_tf.serving.client import Client
from emotion_tf.serving.export import export
from emotion_tf.serving.predict import RunPredictor
from emotion_tf.serving.release import IMAGE

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
ROUNDS = 24  # of four requests, by each client at least; a third of them has each size of batch
LIMIT = 600  # seconds for the rounds, however slow the machine is


def free_ports():
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Installs a shell script as tensorflow_model_server, and hides containers."""

    def make(text):
        path = tmp_path / "bin" / launch.SERVER
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(launch, "CONTAINERS", ())
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

    return make


@pytest.fixture
def with_export(untrained, tmp_path):
    """A run with a small graph in place of an export, which the user trusts."""
    from emotion_tf.runs.export import Export
    from emotion_tf.runs.export_files import write_checksums
    from emotion_tf.runs.facts import write_exported

    run = shutil.copytree(untrained, tmp_path / "run")
    folder = run / "serving" / "3"
    module = Module()
    tf.saved_model.save(module, str(folder), signatures={"serve_full": module.serve})
    (folder / "assets.extra").mkdir()
    write_exported(folder, read_facts(run))
    write_checksums(folder)
    Export.open(folder).remember()
    return run


def test_without_a_server_the_error_says_what_to_install(with_export, untrained, fault, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = fault("serve", with_export)
    assert "No TensorFlow Serving here" in message and f"docker pull {IMAGE}" in message
    assert "has no export. Make one first: python main.py export" in fault("serve", untrained)
    (with_export / "serving" / "3" / "more").write_text("")
    assert "does not belong to this export" in fault("serve", with_export)


def test_a_container_if_there_is_no_program(with_export, monkeypatch, tmp_path):
    """Its command line. `docker image inspect` decides whether the image is installed."""
    tool = tmp_path / "docker"
    tool.write_text('#!/bin/sh\n[ "$1 $2 $3" = "image inspect there" ]\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr(launch, "SERVER", "no-such-program")
    command = launch.server_command(launch.LaunchOptions(with_export, 8500, 8501, "mine", "there", 1))
    assert command[:3] == [str(tool), "run", "--rm"] and "127.0.0.1:8500:8500" in command
    assert f"{(with_export / 'serving').resolve()}:/models/mine:ro" in command and "MODEL_NAME=mine" in command
    assert command.index("there") < command.index("--enable_batching=true")
    with pytest.raises(UserError, match="No TensorFlow Serving here"):
        launch.server_command(launch.LaunchOptions(with_export, 8500, 8501, "mine", "not there", 1))


def test_a_server_that_ends_or_never_becomes_ready(with_export, program):
    for script, expected in (
        ("echo no room; exit 3", "ended with code 3.*no room"),
        ("exec sleep 60", "was not ready after"),
    ):
        program(script)
        port, rest = free_ports()
        options = launch.LaunchOptions(with_export, port, rest, "mine", "", 1.0)
        with pytest.raises(UserError, match=expected), launch.run_server(options):
            pass


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to, lambda log, target: os.mkfifo(log)])
def test_the_log_replaces_a_link_or_a_pipe(make, with_export, program, tmp_path):
    (tmp_path / "target").write_text("private")
    make(with_export / launch.LOG, tmp_path / "target")
    program("echo no room; exit 3")
    options = launch.LaunchOptions(with_export, *free_ports(), "mine", "", 1.0)
    with pytest.raises(UserError, match="ended with code 3.*no room"), launch.run_server(options):
        pass
    assert (tmp_path / "target").read_text() == "private"


def test_the_configuration_is_read_by_the_genuine_proto():
    config = text_format.Parse((ROOT / "deploy" / "models.config").read_text(), ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("mine", "/models/mine")
    batching = launch.BATCHING.read_text()
    assert "pad_variable_length_inputs: false" in batching and "max_batch_size { value: 32 }" in batching
    compose = (ROOT / "deploy" / "compose.yaml").read_text()
    assert f"emotion_tf/serving/{launch.BATCHING.name}" in compose


def memory(pid):
    """Returns the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def run_with_export(untrained, tmp_path_factory):
    run = shutil.copytree(untrained, tmp_path_factory.mktemp("runs") / "run")
    export(Run(run))
    return run


@pytest.mark.slow
def test_four_clients_under_load(run_with_export, manifest_path, program, tmp_path):
    """Every response is right, only expected errors occur, and memory does not grow. SOAK_SECONDS=600: ten minutes.

    The samples of memory follow the number of requests: on a slow machine, a third of the seconds may be over before
    each kind of request has come.
    """
    run = shutil.copytree(run_with_export, tmp_path / "run")
    program(f'PYTHONPATH={ROOT}:{ROOT}/tests exec {sys.executable} {ROOT}/tests/model_server.py "$@"')
    port, rest = free_ports()
    predictor = RunPredictor(Run(run))
    crops = [path.read_bytes() for path in sorted((manifest_path.parent / "faces").rglob("*.jpg"))[:8]]
    valid = [crops[i % len(crops)] if i % 3 else None for i in range(len(TEXTS))]
    expected = predictor.predict(TEXTS, valid).probabilities
    untrusted = requests(predictor.facts.face_size)["serving_default"]["face_jpeg"].tolist()
    outputs = predictor._predict_batch(list(TEXTS), [[]] * len(TEXTS), [[face] for face in untrusted])
    counts, mistakes, sizes = [0] * 4, [], []
    finished = threading.Event()

    def send(i, address):
        client = Client(address, read_facts(run), "run", timeout=60)
        other = Client(address, read_facts(run), "other", timeout=60)
        rng = np.random.default_rng(i)
        while not finished.is_set():
            rows = rng.choice(len(TEXTS), 1 + counts[i] // 4 % 8, replace=False)
            texts = [TEXTS[n] for n in rows]
            try:
                probabilities = client.predict(texts, [valid[n] for n in rows]).probabilities
                batch = client._predict_batch(texts, [[]] * len(rows), [[untrusted[n]] for n in rows])
                agree = np.abs(probabilities - expected[rows]).max() < 1e-5
                agree &= np.abs(batch["probabilities"] - outputs["probabilities"][rows]).max() < 1e-5
                if not agree or (batch["face_present"] != outputs["face_present"][rows]).any():
                    mistakes.append(f"{address}: rows {rows}")
                for invalid, message in (
                    (lambda: client.predict(texts[:1], [b"no picture"]), "Cannot decode"),
                    (lambda: other.predict(texts[:1]), "has no model 'other'"),
                ):
                    with pytest.raises(UserError, match=message):
                        invalid()
            except BaseException as error:
                mistakes.append(f"{address}: {error!r}")
                return
            counts[i] += 4

    with launch.run_server(launch.LaunchOptions(run, port, rest, "run", "", 120.0)) as process:
        began = time.monotonic()
        addresses = [f"127.0.0.1:{port}", f"http://127.0.0.1:{rest}"] * 2
        threads = [threading.Thread(target=send, args=(i, address)) for i, address in enumerate(addresses)]
        for thread in threads:
            thread.start()
        while (seconds := time.monotonic() - began) < SECONDS or min(counts) < 4 * ROUNDS:
            if mistakes or seconds > SECONDS + LIMIT:
                break
            time.sleep(min(1, SECONDS / 10))
            megabytes = memory(process.pid) >> 20, memory(os.getpid()) >> 20
            sizes.append((min(counts), megabytes))
        finished.set()
        for thread in threads:
            thread.join()
    sample = sizes[:: len(sizes) // 10 or 1]
    print(f"\n{sum(counts)} requests in {seconds:.0f} s by client {counts}; requests, MB of both: {sample}")
    assert mistakes == [] and min(counts) >= 4 * ROUNDS
    # from a third of the requests, when each kind and size has come, to their end
    total, after = sizes[-1]
    before = next(megabytes for count, megabytes in sizes if 3 * count >= total)
    assert all(late - early < max(20, 0.03 * early) for early, late in zip(before, after, strict=True)), sizes


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_when_it_is_ready_and_ends_with_its_server(run_with_export, program, tmp_path, end):
    run = shutil.copytree(run_with_export, tmp_path / "run")
    program(f'PYTHONPATH={ROOT}:{ROOT}/tests exec {sys.executable} {ROOT}/tests/model_server.py "$@"')
    port, rest = free_ports()
    words = ["serve", str(run), "--port", str(port), "--rest-port", str(rest)]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *words],
        stdout=subprocess.PIPE,
        text=True,
        # as in a terminal: a background process of a shell ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert f"Ready: run at localhost:{port}" in process.stdout.readline()
    words = ["predict", str(run), "--server", f"localhost:{port}", "--text", "Yes!"]
    done = subprocess.run([sys.executable, str(ROOT / "main.py"), *words], capture_output=True, text=True)
    assert done.returncode == 0 and "joy" in done.stdout and done.stderr == ""
    process.send_signal(end)
    assert process.wait(30) == 0
    with socket.socket() as connection, pytest.raises(ConnectionRefusedError):
        connection.connect(("127.0.0.1", port))
