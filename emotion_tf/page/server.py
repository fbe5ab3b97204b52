"""The page on 127.0.0.1: what may come in, and how it starts and ends."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import Detector
from emotion_tf.interpret.batch import TEXT
from emotion_tf.page.runs import Runs

HOST = "127.0.0.1"
MEGABYTE = 2**20
FORM = 2 * MEGABYTE
"""Bytes of a request that uploads nothing, at most."""
WAITING = 64
VISITORS = 100
"""Whose last answers are kept in memory, at most."""
KEPT = 600.0
"""Seconds that an upload is kept."""
EVERY = 60.0
"""Seconds between two looks for uploads that are older."""


class Limits:
    """ASGI middleware: refuses a request whose body is too large, before and while it is read.

    Args:
        app: what is behind it.
        upload: bytes of an uploaded file, at most.
    """

    def __init__(self, app: Any, upload: int) -> None:
        self._app, self._upload = app, upload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._upload + FORM if scope["path"].endswith("/upload") else FORM
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > most:
            await _refuse(send)
            return
        got = 0

        async def counted() -> Any:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            # a body without a length: what is behind sees its end as it sees a visitor who went away
            return {"type": "http.disconnect"} if got > most else message

        await self._app(scope, counted, send)


async def _refuse(send: Any) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"That is too large."})


def sweep(folder: Path, age: float, keep: Collection[Path] = ()) -> None:
    """Deletes the files in a folder and below that nobody wrote for so many seconds, but for those to keep.

    Gradio deletes the uploads that it knows; it does not know those that were broken off.
    """
    for inside, _, names in os.walk(folder):
        for path in (Path(inside, name) for name in names):
            with contextlib.suppress(OSError):  # Gradio was faster
                if path not in keep and time.time() - path.stat().st_ctime > age:
                    path.unlink()


@contextlib.contextmanager
def _swept(folder: Path) -> Iterator[None]:
    """While the block runs, uploads are deleted in time; what is there at its beginning is the page's own."""
    own, ended = {path for path in folder.rglob("*") if path.is_file()}, threading.Event()

    def work() -> None:
        while not ended.wait(EVERY):
            sweep(folder, KEPT, own)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Nowhere(io.TextIOBase):
    """Takes all and keeps nothing; other than the system's, it need not be closed while a thread may still write."""

    def write(self, text: str) -> int:
        """Nothing."""
        return len(text)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """While the block runs, nothing is written to standard error, nor to the log of the server.

    Gradio prints the trace of a request that fails, and uvicorn logs it: with the visitor's paths and words.
    """
    log = logging.getLogger("uvicorn.error")
    log.disabled = True
    try:
        with contextlib.redirect_stderr(_Nowhere()):
            yield
    finally:
        log.disabled = False


@contextlib.contextmanager
def open_page(
    runs: Runs, first: str, port: int, config: CropConfig, load: Callable[[], Detector], upload: int
) -> Iterator[str]:
    """The page while the block runs; gives its address.

    Args:
        runs: to choose from.
        first: the one that is chosen at first; it is loaded at once.
        port: where; 0: any that is free.
        config: how faces are found.
        load: makes a detector; must be picklable.
        upload: bytes of an uploaded file, at most.

    Raises:
        UserError: the port is taken or forbidden, or the first run cannot be loaded.
    """
    port = _free(port)
    own = Path(tempfile.mkdtemp(prefix="emotion_tf-page-"))
    os.environ |= {"GRADIO_TEMP_DIR": str(own / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    from emotion_tf.page.answer import answer
    from emotion_tf.page.app import Handlers, build
    from emotion_tf.page.html import answers_html
    from emotion_tf.page.inputs import FaceFinder, Given

    finder = None
    try:
        run = runs.open(first)
        if TEXT in run.reads:  # the first answer takes much longer than any later one
            answers_html([answer(run, Given("Hello!"), 0.0)])
        finder = FaceFinder(config, load)
        (own / "examples").mkdir()
        page = build(Handlers(runs, finder, load), first, own / "examples")
        with _served(page, port, upload, own / "uploads") as address:
            yield address
    finally:
        if finder is not None:
            finder.close()
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _served(page: Any, port: int, upload: int, uploads: Path) -> Iterator[str]:
    address = _launch(page, port, upload)
    with _silent():
        with _swept(uploads):
            yield address
        page.close(verbose=False)


def _launch(page: Any, port: int, upload: int) -> str:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from emotion_tf.page.theme import HEAD, STYLE, theme

    # a page of another address that the browser has open must not reach this one under a name of its own
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(Limits, upload=upload),
    ]
    page.queue(max_size=WAITING, default_concurrency_limit=4)
    _, address, _ = page.launch(
        server_name=HOST, server_port=port, prevent_thread_lock=True, quiet=True, share=False, max_file_size=upload,
        state_session_capacity=VISITORS, footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False,
        mcp_server=False, pwa=False, theme=theme(), css=STYLE, head=HEAD, app_kwargs={"middleware": middleware},
    )  # fmt: skip
    return str(address)


def _free(port: int) -> int:
    """The port, or for 0 one that is free. Raises UserError when it cannot be had, before anything is loaded."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, port))
        except PermissionError:
            raise UserError(
                f"Port {port} is the system's own: you may not use it. Name another: --port 7860."
            ) from None
        except OSError:
            raise UserError(f"Port {port} of {HOST} is taken. Name another: --port {port + 1}.") from None
        return int(one.getsockname()[1])
