"""Serves the page on 127.0.0.1, with limits on requests and uploads."""

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
MAX_FORM_BYTES = 2 * MEGABYTE
"""Size of a request that uploads no file."""
MAX_QUEUE = 64
MAX_VISITORS = 100
"""Number of visitors whose last answers stay in memory."""
UPLOAD_SECONDS = 600.0
"""Age at which an upload is deleted."""
SWEEP_SECONDS = 60.0
"""Time between two searches for old uploads."""


class BodyLimit:
    """ASGI middleware that rejects a request with too large a body, before and while it is read.

    Args:
        app: the wrapped application.
        upload: largest size of an uploaded file in bytes.
    """

    def __init__(self, app: Any, upload: int) -> None:
        self._app, self._upload = app, upload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._upload + MAX_FORM_BYTES if scope["path"].endswith("/upload") else MAX_FORM_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await _reject(send)
            return
        received = 0

        async def count() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # a body without a length: to the application, the visitor has disconnected
            return {"type": "http.disconnect"} if received > limit else message

        await self._app(scope, count, send)


async def _reject(send: Any) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"The request is too large."})


def sweep(folder: Path, age: float, keep: Collection[Path] = ()) -> None:
    """Deletes the files below a folder that are older than `age` seconds, except those to keep.

    Gradio deletes complete uploads; it does not know of those that were cancelled.
    """
    for inside, _, names in os.walk(folder):
        for path in (Path(inside, name) for name in names):
            with contextlib.suppress(OSError):  # Gradio may have deleted it
                if path not in keep and time.time() - path.stat().st_ctime > age:
                    path.unlink()


@contextlib.contextmanager
def _swept(folder: Path) -> Iterator[None]:
    """Deletes old uploads while the block runs, but not the page's own files, which exist already."""
    own, ended = {path for path in folder.rglob("*") if path.is_file()}, threading.Event()

    def work() -> None:
        while not ended.wait(SWEEP_SECONDS):
            sweep(folder, UPLOAD_SECONDS, own)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _NullStream(io.TextIOBase):
    """Discards what is written. Unlike os.devnull, it need not be closed while a thread may still write."""

    def write(self, text: str) -> int:
        """Discards the text."""
        return len(text)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silences standard error and the server's log while the block runs.

    Gradio prints the traceback of a request that fails, and uvicorn logs it, with the visitor's paths and texts.
    """
    log = logging.getLogger("uvicorn.error")
    log.disabled = True
    try:
        with contextlib.redirect_stderr(_NullStream()):
            yield
    finally:
        log.disabled = False


@contextlib.contextmanager
def open_page(
    runs: Runs, first: str, port: int, config: CropConfig, load: Callable[[], Detector], upload: int
) -> Iterator[str]:
    """Serves the page while the block runs. Yields its address.

    Args:
        runs: the runs to choose from.
        first: name of the run that is selected first. It is loaded at once.
        port: port; 0: any free one.
        config: how faces are found.
        load: returns a detector; must be picklable.
        upload: largest size of an uploaded file in bytes.

    Raises:
        UserError: the port is in use or forbidden, or the first run cannot be loaded.
    """
    port = _free_port(port)
    own = Path(tempfile.mkdtemp(prefix="emotion_tf-page-"))
    os.environ |= {"GRADIO_TEMP_DIR": str(own / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    from emotion_tf.interpret.batch import Utterance
    from emotion_tf.page.answer import answer_utterance
    from emotion_tf.page.app import Handlers, build_page
    from emotion_tf.page.html import answers_html
    from emotion_tf.page.inputs import FaceFinder

    finder = None
    try:
        run = runs.open(first)
        if TEXT in run.reads:  # warm-up: the first prediction takes much longer than later ones
            answers_html([answer_utterance(run, Utterance("Hello!"), 0.0)])
        finder = FaceFinder(config, load)
        (own / "examples").mkdir()
        page = build_page(Handlers(runs, finder, load), first, own / "examples")
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

    # against DNS rebinding: another page in the browser must not reach this one under its own host name
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
        Middleware(BodyLimit, upload=upload),
    ]
    page.queue(max_size=MAX_QUEUE, default_concurrency_limit=4)
    _, address, _ = page.launch(
        server_name=HOST, server_port=port, prevent_thread_lock=True, quiet=True, share=False, max_file_size=upload,
        state_session_capacity=MAX_VISITORS, footer_links=[], run_history=False, enable_monitoring=False,
        ssr_mode=False, mcp_server=False, pwa=False, theme=theme(), css=STYLE, head=HEAD,
        app_kwargs={"middleware": middleware},
    )  # fmt: skip
    return str(address)


def _free_port(port: int) -> int:
    """Returns the port, or for 0 a free one. Raises UserError if it cannot be used, before anything is loaded."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise UserError(
                f"No permission for port {port}. Expected a port from 1024 up, such as --port 7860."
            ) from None
        except OSError:
            raise UserError(f"Port {port} of {HOST} is in use. Expected another, such as --port {port + 1}.") from None
        return int(probe.getsockname()[1])
