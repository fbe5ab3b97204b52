"""The room that uploads take: a quota for all of them, also while many are received at once, broken off or slow."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import socket
import threading
import time

import httpx
import pytest

from emotion_tf.page import gate, server, uploads
from emotion_tf.page.uploads import Uploads

KILOBYTE = 2**10
HEAD = "POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=x\r\n"
PART = '--x\r\ncontent-disposition: form-data; name="files"; filename="mine.png"\r\n\r\n'


def size(folder):
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(inside, name)).st_size
    return total


def store(folder, name, size=10):
    """Writes a complete upload."""
    path = folder / name / "mine.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * size)
    return path


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_only_complete_uploads_are_found(tmp_path):
    folder = tmp_path / "uploads"
    stored = Uploads(folder, 100)
    path = store(folder, "hash")
    (folder / "received").write_bytes(b"x")
    (path.parent / "link.png").symlink_to(path)
    (folder / "other").symlink_to(path.parent)
    assert stored.find(str(path)) == path and stored.find(f"{path.parent}/./x/../mine.png") == path
    for name in (
        folder / "received",
        path.parent / "link.png",
        folder / "other" / "mine.png",
        path.parent,
        folder,
        "x",
    ):
        assert stored.find(str(name)) is None
    assert [stored.find(value) for value in (None, 3, path, [str(path)], "", "\0", f"{path}\0")] == [None] * 7


def test_the_oldest_uploads_make_room_and_the_pages_own_files_do_not(tmp_path):
    own = store(tmp_path, "own", 900)
    quota = Uploads(tmp_path, 100)
    assert quota.quota == 1000
    paths = []
    for n in range(3):
        paths.append(store(tmp_path, str(n), 300))
        time.sleep(0.02)  # the clock of the file system
    assert quota.reserve(100) == 100 and all(path.exists() for path in paths)
    assert quota.reserve(250) == 250  # 100 + 250 + 3 x 300 is more than the quota by 250
    assert [path.exists() for path in paths] == [False, True, True] and not paths[0].parent.exists()
    assert quota.reserve(700) == 0 and paths[1].exists()  # nothing is deleted in vain
    quota.release(100)
    assert quota.reserve(700) == 700 and not paths[2].exists() and own.exists()


def test_small_files_and_small_requests_count(tmp_path):
    quota = Uploads(tmp_path, 1000)
    reserved = [quota.reserve(1) for _ in range(40)]
    assert reserved == [333] * 30 + [0] * 10
    for size in reserved[:30]:
        quota.release(size)
    for n in range(1500):
        store(tmp_path, str(n), 1)
    assert quota.reserve(1) and len(list(tmp_path.glob("*/*"))) < 1000


def test_a_full_disk_is_not_filled(tmp_path, monkeypatch):
    path, quota = store(tmp_path, "hash", 500), Uploads(tmp_path / "hash", 100)
    quota = Uploads(tmp_path, 100)
    assert path.exists()
    monkeypatch.setattr(
        uploads.shutil, "disk_usage", lambda folder: os.terminal_size((0, 0)) and type("", (), {"free": 50})
    )
    assert quota.reserve(100) == 0 and quota.reserve(50) == 50 and path.exists()


def test_old_uploads_are_deleted_and_the_pages_own_files_are_not(tmp_path):
    own = store(tmp_path, "own")
    quota = Uploads(tmp_path, 100)
    store(tmp_path, "of-nobody")
    (tmp_path / "broken-off").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    quota.sweep(600)
    assert len(list(tmp_path.iterdir())) == 4
    quota.sweep(-1)
    assert list(tmp_path.iterdir()) == [own.parent]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A page without inputs whose largest upload is 100 kB: its address, and the folder of the uploads."""
    import gradio as gr

    monkeypatch.setattr(server, "MAX_CONNECTIONS", 50)
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox()
    with server._served(page, server._free_port(0), Uploads(folder, 100 * KILOBYTE)) as address:
        yield address, folder


def test_many_uploads_at_once_stay_below_the_quota(served):
    address, folder = served
    largest, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.01):
            largest[0] = max(largest[0], size(folder))

    def upload(n):
        with httpx.Client(base_url=address, timeout=60) as web:
            return web.post("gradio_api/upload", files={"files": ("mine.png", bytes([n]) * 90 * KILOBYTE)})

    watcher = threading.Thread(target=watch)
    watcher.start()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(upload, range(60)))
    ended.set()
    watcher.join()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) < 40 and {(answer.status_code, answer.text) for answer in refused} <= {(503, gate.FULL)}
    assert 500 * KILOBYTE < largest[0] <= 1000 * KILOBYTE


def test_uploads_that_are_being_received_count_and_nothing_is_left_of_them(served):
    address, folder = served
    with contextlib.ExitStack() as stack, httpx.Client(base_url=address, timeout=60) as web:
        for n in range(6):
            visitor = stack.enter_context(socket.create_connection(("127.0.0.1", httpx.URL(address).port)))
            visitor.sendall(f"{HEAD}content-length: {99 * KILOBYTE}\r\n\r\n{PART}{'a' * 80 * KILOBYTE}".encode())
            wait_for(lambda n=n: len(list(folder.glob("tmp*"))) > n or size(folder) > 400 * KILOBYTE)
        answer = web.post("gradio_api/upload", files={"files": b"x" * 90 * KILOBYTE})
        assert (answer.status_code, answer.text) == (503, gate.FULL)
        assert web.get("config").status_code == 200  # others are answered
    wait_for(lambda: size(folder) == 0)
    with httpx.Client(base_url=address, timeout=60) as web:
        assert web.post("gradio_api/upload", files={"files": b"x" * 90 * KILOBYTE}).status_code == 200


@pytest.mark.parametrize("route", ["upload", "queue/join"])
def test_a_slow_visitor_is_sent_away(served, monkeypatch, route):
    monkeypatch.setattr(gate, "STALL_SECONDS", 0.3)
    address, folder = served
    with socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as visitor:
        visitor.settimeout(20)
        head = HEAD.replace("upload", route)
        visitor.sendall(f"{head}content-length: {90 * KILOBYTE}\r\n\r\n{PART}aaa".encode())
        answer = b""
        while part := visitor.recv(4096):  # until the server closes the connection
            answer += part
    assert b" 408 " in answer and gate.SLOW.encode() in answer
    wait_for(lambda: size(folder) == 0)


def test_the_time_of_an_upload_is_limited(served, monkeypatch):
    monkeypatch.setattr(gate, "UPLOAD_SECONDS", 0.5)
    address, _ = served
    with socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as visitor:
        visitor.settimeout(20)
        visitor.sendall(f"{HEAD}content-length: {90 * KILOBYTE}\r\n\r\n{PART}".encode())
        answer = b""
        with contextlib.suppress(OSError):
            for _ in range(100):
                visitor.sendall(b"a")
                time.sleep(0.05)
        with contextlib.suppress(OSError):
            answer = visitor.recv(4096)
    assert b" 408 " in answer or answer == b""


def test_the_number_of_connections_is_limited(served):
    address, _ = served
    with contextlib.ExitStack() as stack, httpx.Client(base_url=address, timeout=20) as web:
        for _ in range(server.MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", httpx.URL(address).port)))
        wait_for(lambda: web.get("config", headers={"connection": "close"}).status_code == 503)
    with httpx.Client(base_url=address, timeout=20) as web:
        wait_for(lambda: web.get("config", headers={"connection": "close"}).status_code == 200)
