"""Serves the page on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import Detector
from emotion_tf.interpret.batch import TEXT
from emotion_tf.page.runs import Runs
from emotion_tf.page.uncollected import UncollectedAnswers
from emotion_tf.page.uploads import Uploads

if TYPE_CHECKING:
    from emotion_tf.page.live import Live

HOST = "127.0.0.1"
MEGABYTE = 2**20
MAX_QUEUE = 64
MAX_CONNECTIONS = 500
"""Open connections, above which a request is refused; a process may often have 1,024 open files."""
MAX_VISITORS = 100
"""Number of visitors whose last answers stay in memory."""
SPOKEN = {"common.complete": "The answer is there."}
"""What screen readers say, and Gradio has no text for."""
STATISTICS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),
}
"""Gradio keeps the times of 10,000 requests, and computes their percentiles after each request, which nobody sees."""


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
    own = Path(tempfile.mkdtemp(prefix="emotion_tf-page-")).resolve()
    os.environ |= {"GRADIO_TEMP_DIR": str(own / "uploads"), **STATISTICS}
    from emotion_tf.interpret.batch import Utterance
    from emotion_tf.page.answer import answer_utterance
    from emotion_tf.page.app import Handlers, build_page
    from emotion_tf.page.html import answers_html
    from emotion_tf.page.inputs import FaceFinder
    from emotion_tf.page.live import Live

    finder = None
    try:
        run = runs.open(first)
        if TEXT in run.reads:  # warm-up: the first prediction takes much longer than later ones
            answers_html([runs.call(answer_utterance, run, Utterance("Hello!"), 0.0)])
        finder = FaceFinder(config, load)
        (own / "examples").mkdir()
        page = build_page(Handlers(runs, finder, load), first, own / "examples")
        with _served(page, port, Uploads(own / "uploads", upload), Live(runs, load)) as address:
            yield address
    finally:
        if finder is not None:
            finder.close()
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def _served(page: Any, port: int, uploads: Uploads, live: Live | None = None) -> Iterator[str]:
    address = _launch(page, port, uploads, live)
    with _silent():
        with uploads.swept():
            yield address
        page.close(verbose=False)


def _launch(page: Any, port: int, uploads: Uploads, live: Live | None = None) -> str:
    from gradio.i18n import I18n

    from emotion_tf.page.theme import HEAD, STYLE, theme

    page.queue(max_size=MAX_QUEUE, default_concurrency_limit=4, api_open=False)
    translations = I18n(en=SPOKEN)
    _, address, _ = page.launch(
        server_name=HOST, server_port=port, prevent_thread_lock=True, quiet=True, share=False,
        max_file_size=uploads.largest, state_session_capacity=MAX_VISITORS, footer_links=[], run_history=False,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, pwa=False, theme=theme(), css=STYLE, head=HEAD,
        i18n=translations,
        app_kwargs={"lifespan": _gated(uploads, live)},
    )  # fmt: skip
    page.server.config.limit_concurrency = MAX_CONNECTIONS
    return str(address)


def _gated(uploads: Uploads, live: Live | None = None) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Returns a lifespan of the application that puts the gate before all middleware, Gradio's own included."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from emotion_tf.page.gate import LIVE, Gate

    def frame_route(live: Live) -> Route:
        async def answer_frame(request: Any) -> JSONResponse:
            return JSONResponse(await anyio.to_thread.run_sync(live.answer, await request.json()))

        return Route(LIVE, answer_frame, methods=["POST"])

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if live is not None:
            app.router.routes.insert(0, frame_route(live))
        # against DNS rebinding: another page in the browser must not reach this one under its own host name
        hosts = [HOST, "localhost"]
        app.middleware_stack = TrustedHostMiddleware(Gate(app.middleware_stack, uploads), allowed_hosts=hosts)
        sweeps = asyncio.create_task(UncollectedAnswers(app.get_blocks()._queue).keep_sweeping())
        yield
        sweeps.cancel()

    return lifespan


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
