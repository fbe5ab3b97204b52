"""A page with a run that is certain of everything, served by the tests' process."""

import dataclasses
import tempfile
import threading
from pathlib import Path

import httpx
import pytest
import synthetic_faces
from stub_predictor import Certain

from emotion_tf.config import CropConfig

LARGEST = 2 * 2**20


@dataclasses.dataclass
class Page:
    """A served page: its address, its folder, and a client."""

    address: str
    folder: Path
    web: httpx.Client

    @property
    def uploads(self):
        return self.folder / "uploads"

    def upload(self, name, data):
        """Uploads a file and returns its path on the server."""
        response = self.web.post("gradio_api/upload", files={"files": (name, data)})
        assert response.status_code == 200, response.text
        return response.json()[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from emotion_tf.evaluation.calibration import Calibration
    from emotion_tf.page.runs import OpenRun, Runs
    from emotion_tf.page.server import open_page

    run = OpenRun("certain", Certain(), ("text", "face"), None, "", Calibration())
    runs = Runs(Path(), [run.name], lambda path: run)
    temporary = tempfile.tempdir
    tempfile.tempdir = str(tmp_path_factory.mktemp("tmp"))
    try:
        with (
            open_page(runs, run.name, 0, CropConfig(), synthetic_faces.load_detector, LARGEST) as address,
            httpx.Client(base_url=address, timeout=20) as web,
        ):
            yield Page(address, next(Path(tempfile.tempdir).glob("emotion_tf-page-*")), web)
    finally:
        tempfile.tempdir = temporary


@pytest.fixture
def listener():
    """A server on this computer that counts its visitors: its address, and the list of the visits."""
    import http.server

    visits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            visits.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", visits
    server.shutdown()
    server.server_close()
