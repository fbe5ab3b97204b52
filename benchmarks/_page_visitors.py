"""Visitors of the page, for `benchmarks.page_load`."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import struct
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from emotion_tf import pictures
from emotion_tf.page.examples import draw_examples

SRT = b"1\n00:00:00,000 --> 00:00:00,700\nYou did it!\n\n2\n00:00:00,800 --> 00:00:01,400\nNo.\n"
DURATION = re.compile(r"[\d.]+ s\. Download")
"""The part of an answer that differs each time."""
META = {"_type": "gradio.FileData"}
JSON = {"content-type": "application/json"}
UNFINISHED = (
    b"",
    b"POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1\r\n",
    b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n\r\n{",
    b"POST /gradio_api/upload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=x\r\n"
    b'content-length: 9999\r\n\r\n--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\naaa',
)
"""Requests that never end."""
Note = Callable[[str, str, float], None]
"""Receives the kind of a request, its status and its seconds."""


@dataclass(frozen=True)
class Question:
    """What a visitor enters; `weight` says how often. The files are (name, bytes)."""

    kind: str
    weight: float
    text: str = ""
    context: str = ""
    picture: tuple[str, bytes] | None = None
    clip: tuple[str, bytes] | None = None
    is_crop: bool = False


def draw_questions(folder: Path) -> list[Question]:
    """Returns the page's examples as texts and pictures, a clip and a film; draws their files into a folder."""
    questions = []
    rows: list[Any] = draw_examples(folder)[0]
    for text, context, path, _ in rows:
        if text:
            questions += [Question("text", 10, text), Question("text", 5, text, context)]
        if path:
            face, scene = pictures.decode(Path(path).read_bytes()), np.full((360, 480, 3), 90, np.uint8)
            scene[100:260, 160:320] = face
            crop, photo = (cv2.imencode(".png", pixels)[1].tobytes() for pixels in (face, scene))
            questions.append(Question("crop", 4, text, context, (Path(path).name, crop), is_crop=True))
            questions.append(Question("picture", 4, text, context, (f"photo_{Path(path).name}", photo)))
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 24.0, (480, 360))
    for n in range(36):
        writer.write(np.roll(scene, 4 * n, axis=1))
    writer.release()
    clip = ("clip.mp4", (folder / "clip.mp4").read_bytes())
    return [*questions, Question("clip", 8, "What was that?", clip=clip), Question("film", 3, clip=clip)]


class Visitor:
    """A visitor who enters questions.

    Args:
        address: address of the page.
        run: name of the run.
        note: receives each request.
        seed: decides on what the visitor does.
    """

    def __init__(self, address: str, run: str, note: Note, seed: int) -> None:
        self.web, self.run, self.note = httpx.Client(base_url=address, timeout=300), run, note
        self.random = random.Random(seed)
        self.functions = {row["api_name"]: row["id"] for row in self.web.get("config").json()["dependencies"]}

    @contextlib.contextmanager
    def visit(self) -> Iterator[str]:
        """Keeps the page open, as a browser does, while the block runs. Yields the session."""
        session = uuid.uuid4().hex
        self.send("page", "GET", "")
        with self.web.stream("GET", f"gradio_api/heartbeat/{session}"):
            yield session

    def send(self, kind: str, method: str, route: str, **request: Any) -> httpx.Response:
        """Sends a request and notes it."""
        start = time.monotonic()
        response = self.web.request(method, route, **request)
        self.note(kind, str(response.status_code), time.monotonic() - start)
        return response

    def upload(self, kind: str, file: tuple[str, bytes]) -> dict[str, Any]:
        """Uploads a file. Returns how a request names it."""
        response = self.send(kind, "POST", "gradio_api/upload", files={"files": file})
        return {"path": response.json()[0] if response.status_code == 200 else "", "meta": META}

    def submit(self, kind: str, function: str, data: list[Any], session: str) -> str:
        """Submits inputs, notes the request with the time to its answer, and returns the answer's first value."""
        start, message = time.monotonic(), {}
        body = {"data": data, "fn_index": self.functions[function], "session_hash": session}
        response = self.web.post("gradio_api/queue/join", content=json.dumps(body), headers=JSON)
        if response.status_code == 200:
            with self.web.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    if line.startswith("data:") and "process_completed" in line:
                        message = json.loads(line[5:])
        status = str(response.status_code) if response.status_code != 200 or message.get("success") else "no answer"
        self.note(kind, status, time.monotonic() - start)
        return DURATION.sub("", str(message["output"]["data"][0])) if message.get("success") else ""

    def ask(self, question: Question, session: str) -> list[str]:
        """Uploads the files of a question and enters it. Returns the answers."""
        picture, clip = (self.upload("upload", file) if file else None for file in (question.picture, question.clip))
        if question.kind == "film":
            subtitles = self.upload("upload", ("film.srt", SRT))
            return [self.submit("film", "film", [self.run, "none", clip, subtitles], session)]
        answers = []
        if picture or clip:
            data = [self.run, picture, clip, question.is_crop]
            answers.append(self.submit(f"faces of a {question.kind}", "find_faces", data, session))
        data = [self.run, "", "none", question.text, question.context, picture, clip, question.is_crop, None, None]
        return [*answers, self.submit(question.kind, "predict", data, session)]


class HostileVisitor(Visitor):
    """A visitor who sends what the page must refuse. `upload_limit` is the page's largest upload in bytes."""

    def __init__(self, address: str, run: str, note: Note, seed: int, upload_limit: int) -> None:
        super().__init__(address, run, note, seed)
        self.upload_limit, self.connections = upload_limit, deque[socket.socket](maxlen=40)
        self.uploads: list[dict[str, Any]] = []
        self.acts: tuple[Callable[[str], None], ...] = (
            self.bomb,
            self.garbage,
            self.types,
            self.large,
            self.paths,
            self.routes,
            self.json,
        )
        self.acts += (self.unfinished, self.replay, self.leave)

    def act(self) -> None:
        """Does one of the acts."""
        act = self.random.choice(self.acts)
        act(f"hostile: {act.__name__}")

    def bomb(self, kind: str) -> None:
        """A small picture that declares 12,000 x 12,000 pixels."""
        parts = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 999)
        chunks = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in (*parts, b"IEND")]
        picture = self.upload(kind, (f"{self.random.random()}.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
        self.uploads.append(picture)
        self.submit(kind, "find_faces", [self.run, picture, None, self.random.random() < 0.5], uuid.uuid4().hex)

    def garbage(self, kind: str) -> None:
        """Random bytes as a picture, a clip, and a film with subtitles."""
        file = self.upload(kind, ("a.mp4", self.random.randbytes(9999)))
        self.submit(kind, "find_faces", [self.run, file, None, False], uuid.uuid4().hex)
        self.submit(kind, "find_faces", [self.run, None, file, False], uuid.uuid4().hex)
        self.submit(kind, "film", [self.run, "none", file, file], uuid.uuid4().hex)

    def types(self, kind: str) -> None:
        """Values of wrong types, and too many or too few of them."""
        values: list[Any] = [None, -1, 1e308, True, "x" * 9999, [], [[1]], {"a": {}}, "\0\ud800", self.run]
        for function in self.functions:
            data = self.random.choices(values, k=self.random.randint(0, 12))
            self.submit(kind, function, data, uuid.uuid4().hex)
        bodies: tuple[Any, ...] = (
            {"data": 3},
            [],
            {"fn_index": 10**9, "data": []},
            {"fn_index": "x", "data": [], "event_id": 1},
        )
        for body in bodies:
            self.send(kind, "POST", "gradio_api/queue/join", json=body)

    def large(self, kind: str) -> None:
        """Bodies above the limits, with their length and without it."""
        size = self.upload_limit + 4 * 2**20
        form = {"content-type": "multipart/form-data; boundary=x"}
        for route, request in (
            ("queue/join", {"content": b"[" * (3 * 2**20), "headers": JSON}),
            ("call/predict", {"content": (b" " * 2**20 for _ in range(4)), "headers": JSON}),
            ("upload", {"files": {"files": ("a.png", b"\0" * size)}}),
            ("upload", {"content": (b"\0" * 2**20 for _ in range(size >> 20)), "headers": form}),
        ):
            with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # refused while it was being sent
                self.send(kind, "POST", f"gradio_api/{route}", **request)

    def paths(self, kind: str) -> None:
        """Files that nobody uploaded."""
        for path in ("/etc/passwd", "/proc/self/environ", "/dev/zero", "../main.py", "\0", "http://127.0.0.1:1/"):
            self.send(kind, "GET", f"gradio_api/file={path}".replace("\0", "%00"))
            body = {"data": [self.run, {"path": path, "url": path, "meta": META}, None, False], "fn_index": 0}
            self.send(kind, "POST", "gradio_api/queue/join", json=body)

    def routes(self, kind: str) -> None:
        """Routes and methods that the page does not have."""
        for route in ("login", "gradio_api/proxy=x", "gradio_api/component_server", "docs", "monitoring", "%2e"):
            self.send(kind, self.random.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "TRACE")), route)
        self.send(kind, "GET", "", headers={"host": "elsewhere.example"})
        self.send(kind, "GET", "config", headers={"origin": "http://elsewhere.example"})

    def json(self, kind: str) -> None:
        """What is no JSON."""
        for content in (b"", b"{", b"\xff", b"[" * 10**5, b'{"data": [' + b"9" * 10**4 + b"]}"):
            route = self.random.choice(("queue/join", "call/predict", "run/predict", "cancel", "reset"))
            self.send(kind, "POST", f"gradio_api/{route}", content=content, headers=JSON)

    def unfinished(self, kind: str) -> None:
        """Connections on which the rest of a request never comes. At most 40 stay open."""
        for text in UNFINISHED:
            self.connections.append(socket.create_connection((self.web.base_url.host, self.web.base_url.port)))
            self.connections[-1].sendall(text)
            self.note(kind, "open", 0.0)

    def replay(self, kind: str) -> None:
        """Old uploads, one request several times, and the answers of others' sessions."""
        session = uuid.uuid4().hex
        data = [self.run, self.random.choice(self.uploads) if self.uploads else None, None, True]
        body = {"data": data, "fn_index": self.functions["find_faces"], "session_hash": session, "event_id": "x"}
        for _ in range(3):
            self.send(kind, "POST", "gradio_api/queue/join", json=body)
        self.submit(kind, "find_faces", data, session)
        for route in (f"queue/data?session_hash={session}", f"call/predict/{session}", f"heartbeat/{session}"):
            with self.web.stream("GET", f"gradio_api/{route}") as stream:
                self.note(kind, str(stream.status_code), 0.0)
        self.send(kind, "POST", "gradio_api/cancel", json={"session_hash": session, "fn_index": 0, "event_id": "x"})

    def leave(self, kind: str) -> None:
        """Long texts whose answers are never collected."""
        data = [self.run, "", "none", "so good " * 200, "no " * 600, None, None, False, None, None]
        body = {"data": data, "fn_index": self.functions["predict"], "session_hash": uuid.uuid4().hex}
        self.send(kind, "POST", "gradio_api/queue/join", json=body)
