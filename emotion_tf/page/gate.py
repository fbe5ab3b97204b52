"""Decides which requests reach Gradio: their origin, their address, their size, and the files that they name."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from emotion_tf.page.uploads import UPLOAD_SECONDS, Uploads

MAX_FORM_BYTES = 2 * 2**20
"""Size of a request that uploads no file."""
STALL_SECONDS = 30.0
"""Longest pause of a request that is being received."""
API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
LIVE = "/live"
"""Takes a frame of the camera, and answers it."""
PAGES = ("/", "/config", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css", "/assets/*", "/static/*")
QUESTIONS = ("info", "startup-events", "queue/data", "upload_progress", "heartbeat/*", "call/*", "file=*")
COMMANDS = ("upload", "queue/join", "call/*", "run/*", "cancel", "reset")
ROUTES = {
    "GET": (*PAGES, *(f"{API}/{name}" for name in QUESTIONS)),
    "POST": (LIVE, *(f"{API}/{name}" for name in COMMANDS)),
}
"""What the page and `gradio_client` ask for. Gradio has more; they fetch addresses, run ffmpeg, or write files."""
FOREIGN = "This request comes from another page. Open the page in a tab of its own."
GONE = "This file is not among the uploads. Upload it again."
FULL = "There are too many uploads at the moment. Try again in a minute."
LARGE = "The request is too large."
SLOW = "The request takes too long."

Receive = Callable[[], Awaitable[Any]]


class Gate:
    """ASGI middleware around the whole page.

    Args:
        app: the wrapped application.
        uploads: the uploads.
    """

    def __init__(self, app: Any, uploads: Uploads) -> None:
        self._app, self._uploads = app, uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles one request."""
        if scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_origin(scope)
            _check_route(scope)
            if scope["path"].startswith(FILE):
                scope = self._with_file(scope)
            if scope["method"] != "POST":
                await self._app(scope, receive, send)
            elif scope["path"] == UPLOAD:
                await self._upload(scope, receive, send)
            else:
                await self._submit(scope, receive, send)
        except _Refusal as refusal:
            await refusal.response(scope)(scope, receive, send)

    def _with_file(self, scope: Any) -> Any:
        """Returns the scope of a request for a file, which names it as it was judged."""
        file = self._uploads.find(scope["path"].removeprefix(FILE))
        if file is None:
            raise _Refusal(404, GONE)
        return {**scope, "path": f"{FILE}{file}"}

    async def _upload(self, scope: Any, receive: Receive, send: Any) -> None:
        length, limit = _length(scope), self._uploads.largest + MAX_FORM_BYTES
        if length is not None and length > limit:
            raise _Refusal(413, LARGE)
        reserved = await anyio.to_thread.run_sync(self._uploads.reserve, limit if length is None else length)
        if not reserved:
            raise _Refusal(503, FULL)
        try:
            await self._app(scope, _limited(receive, limit), send)
        finally:
            self._uploads.release(reserved)

    async def _submit(self, scope: Any, receive: Receive, send: Any) -> None:
        """Hands on a request with JSON, as it was judged."""
        if (_length(scope) or 0) > MAX_FORM_BYTES:
            raise _Refusal(413, LARGE)
        try:
            data = json.loads(await _read(_limited(receive, MAX_FORM_BYTES)))
            is_allowed = self._keep_uploads(data)
            # half an emoji, which no answer could have: it is not UTF-8
            body = json.dumps(data, ensure_ascii=False).encode(errors="replace")
        except (ValueError, RecursionError):
            raise _Refusal(400, "Expected JSON.") from None
        if not is_allowed:
            raise _Refusal(404, GONE)
        own = (b"content-length", b"content-type", b"transfer-encoding")
        headers = [(name, value) for name, value in scope["headers"] if name not in own]
        headers += [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        messages = [{"type": "http.request", "body": body}]

        async def replay() -> Any:
            return messages.pop() if messages else await receive()

        await self._app({**scope, "headers": headers}, replay, send)

    def _keep_uploads(self, data: Any) -> bool:
        """Reduces each file in a request to its path. Returns whether all of them are uploads."""
        values = [data]
        while values:
            value = values.pop()
            if isinstance(value, dict) and value.keys() & {"path", "url"}:
                file = self._uploads.find(value.get("path"))
                if file is None:
                    return False
                value.clear()  # above all of its address
                value.update(path=str(file), meta={"_type": "gradio.FileData"})
            elif isinstance(value, dict):
                values.extend(value.values())
            elif isinstance(value, list):
                values.extend(value)
        return True


class _Refusal(HTTPException):
    """The answer to a request that does not reach Gradio."""

    def response(self, scope: Any) -> Response:
        """Returns the answer in the form in which the page shows it."""
        if scope["path"] == UPLOAD:
            return PlainTextResponse(self.detail, self.status_code, self.headers)
        return JSONResponse({"detail": self.detail}, self.status_code, self.headers)


def _check_origin(scope: Any) -> None:
    """Raises if a browser says that another page sends the request. Programs that are no browsers say nothing."""
    headers = Headers(scope=scope)
    own, site = f"{scope['scheme']}://{headers.get('host')}", headers.get("sec-fetch-site", "none")
    # a link to the page
    is_link = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-dest") == "document"
    if any(origin != own for origin in headers.getlist("origin")) or not (site in ("same-origin", "none") or is_link):
        raise _Refusal(403, FOREIGN)


def _check_route(scope: Any) -> None:
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    for route in ROUTES.get(method, ()):
        if scope["path"] == route or (route.endswith("*") and scope["path"].startswith(route[:-1])):
            return
    raise _Refusal(404, "Not Found")


def _length(scope: Any) -> int | None:
    length = Headers(scope=scope).get("content-length")
    return int(length) if length and length.isdecimal() else None


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _limited(receive: Receive, limit: int) -> Receive:
    """Returns a function that receives the request, and raises HTTPException when that is too large or too slow."""
    received, is_complete, end = 0, False, time.monotonic() + UPLOAD_SECONDS

    async def limited() -> Any:
        nonlocal received, is_complete
        if is_complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), min(STALL_SECONDS, end - time.monotonic()))
        except asyncio.TimeoutError:
            raise _Refusal(408, SLOW, {"connection": "close"}) from None
        received += len(message.get("body", b""))
        if received > limit:
            raise _Refusal(413, LARGE)
        is_complete = not message.get("more_body")
        return message

    return limited
