"""Visitors who try to take the page's memory, or its time for others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import itertools
import re
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from hostile_pictures import BOMBS, complete_png

from emotion_tf.page import server, uncollected, uploads
from emotion_tf.processes import release_memory

MEGABYTE = 2**20


def status(name):
    """Returns a size of this process in megabytes: VmRSS now, or VmHWM, the largest since the last `reset_peak`."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


class Visitor:
    """A visitor of a page; threads may share it."""

    numbers = itertools.count()

    def __init__(self, page):
        self.web = httpx.Client(base_url=page.address, timeout=60)
        names = {row["api_name"]: row["id"] for row in page.web.get("config").json()["dependencies"]}
        self.functions = names

    def ask(self, function, data):
        session = f"load-{next(self.numbers)}"
        body = {"data": data, "fn_index": self.functions[function], "session_hash": session}
        self.web.post("gradio_api/queue/join", json=body).raise_for_status()
        with self.web.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
            return next(line for line in stream.iter_lines() if "process_completed" in line)

    def find_faces(self, upload, is_crop=False):
        picture = {"path": upload, "meta": {"_type": "gradio.FileData"}}
        return self.ask("find_faces", ["certain", picture, None, is_crop])

    def predict(self, text):
        return self.ask("predict", ["certain", "", "none", text, "", None, None, False, None, None])


@contextlib.contextmanager
def another_visitor(page):
    """Asks for a prediction again and again while the block runs. Yields the durations of the answers."""
    visitor, ended, durations = Visitor(page), threading.Event(), []

    def work():
        while not ended.is_set():
            start = time.monotonic()
            assert "Probabilities" in visitor.predict("You did it!")
            durations.append(time.monotonic() - start)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answers = pool.submit(work)
        try:
            yield durations
        finally:
            ended.set()
            answers.result()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux does")
def test_picture_bombs_are_refused_while_others_are_answered(page):
    bombs = {**BOMBS, "complete": complete_png(20_000)}
    uploads = [page.upload(f"{n}.png", data) for n, data in enumerate(bombs.values())]
    visitor = Visitor(page)
    visitor.predict("You did it!")
    reset_peak()
    before = status("VmRSS")
    with another_visitor(page) as durations, concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(visitor.find_faces, uploads))
        answers += pool.map(lambda upload: visitor.find_faces(upload, is_crop=True), uploads)
    for answer, name in zip(answers, [*bombs, *bombs]):
        assert "Cannot decode the" in answer and "64 megapixels" in answer, name
    assert status("VmHWM") - before < 200
    assert durations and max(durations) < 10


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux does")
def test_the_largest_pictures_are_decoded_one_after_another(page):
    uploads = [page.upload(f"{n}.png", complete_png(6000 + n)) for n in range(3)]
    visitor = Visitor(page)
    visitor.find_faces(uploads[0])
    peaks = []
    for visitors in (1, 3):
        reset_peak()
        before = status("VmRSS")
        with concurrent.futures.ThreadPoolExecutor(visitors) as pool:
            answers = list(pool.map(visitor.find_faces, uploads[-visitors:]))
        assert all("No face was found" in answer for answer in answers)
        peaks.append(status("VmHWM") - before)
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_others_are_answered_while_visitors_are_slow(page):
    head = "POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    form = '--x\r\ncontent-disposition: form-data; name="files"; filename="mine.png"\r\n\r\naaa'
    silent = head.replace("upload", "queue/join")
    with contextlib.ExitStack() as stack:
        for text in (f"{head}content-length: 9999\r\n\r\n{form}", f"{silent}content-length: 99\r\n\r\n", head, ""):
            for _ in range(20):
                visitor = stack.enter_context(socket.create_connection(("127.0.0.1", httpx.URL(page.address).port)))
                visitor.sendall(text.encode())
        with another_visitor(page) as durations:
            time.sleep(1)
            page.upload("mine.png", b"x")
        assert max(durations) < 10


def test_answers_that_nobody_collects_are_deleted(tmp_path, monkeypatch):
    import gradio as gr

    releases = []
    monkeypatch.setattr(uncollected, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(uncollected, "release_memory", lambda: releases.append(1))

    def answer(seconds):
        time.sleep(seconds)
        return "answered"

    with gr.Blocks(analytics_enabled=False) as page:
        gr.Button().click(answer, gr.Number(), gr.Textbox(), api_name="answer", concurrency_limit=2)
    with (
        server._served(page, server._free_port(0), uploads.Uploads(tmp_path, 2**20)) as address,
        httpx.Client(base_url=address, timeout=60) as web,
    ):
        queue = page._queue
        collected = web.post("gradio_api/call/answer", json={"data": [1]}).json()["event_id"]
        left = [
            web.post("gradio_api/queue/join", json={"data": [0.1], "fn_index": 0, "session_hash": f"left-{n % 3}"})
            for n in range(9)
        ]
        assert {row.status_code for row in left} == {200}
        assert len(queue.pending_messages_per_session) == 4
        # one that takes longer than two sweeps, but has a reader
        assert "answered" in web.get(f"gradio_api/call/answer/{collected}").text
        end = time.monotonic() + 20
        while queue.pending_messages_per_session or queue.pending_event_ids_session:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert len(queue) == 0 and not queue.event_ids_to_events and releases


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc keeps freed memory")
def test_freed_memory_is_returned_to_the_system():
    blocks = [b"x" * 60_000 for _ in range(2000)]
    last = blocks.pop()  # above the others: what is below it stays with the process
    blocks.clear()
    before = status("VmRSS")
    release_memory()
    assert before - status("VmRSS") > 80 and last
