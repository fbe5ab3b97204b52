"""Files and folders are replaced as a whole: after a kill at any step one is whole, and nothing is left in the end."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import kills
import pytest

from emotion_tf import files, folders, interrupts
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.kinds import Kind

KIND = Kind("run", ("run.json",))
GROWING = Kind("run", ("run.json",), "model", ("checkpoint",))


def make(path, text, *names):
    path.mkdir(parents=True)
    for name in ("run.json", *names):
        (path / name).write_text(text)
    return path


def content(path):
    return {file.name: file.read_text() for file in path.iterdir()}


NEW = """
kind = kinds.Kind("run", ("run.json",))
with files.new_folder(Path("a"), kind, True) as folder:
    (folder / "run.json").write_text("new")
"""
RESUMABLE = """
kind = kinds.Kind("run", ("run.json",))
with files.resumable_folder(Path("a"), kind, True) as folder:
    (folder / "part").write_text("new")
    (files.result(folder) / "run.json").write_text("new")
"""
GROW = """
kind = kinds.Kind("run", ("run.json",), "model", ("checkpoint",))
path = Path("a")
with files.growing_folder(path, kind, "Go on."):
    if not kind.has_progress(path):
        with files.new_folder(path, kind, True) as folder:
            (folder / "run.json").write_text("new")
        files.write_text(path / "checkpoint", "new")
    files.write_text(path / "model", "new")
"""


@pytest.mark.parametrize("code", [NEW, RESUMABLE])
def test_a_kill_at_any_step_leaves_one_folder_whole(code, tmp_path):
    path, steps = make(tmp_path / "x" / "a", "old"), 0
    for steps in kills.kill_at_each_step(code, path.parent):
        files.restore_missing(path, KIND)
        assert content(path) in ({"run.json": "old"}, {"run.json": "new"})
        assert kills.run(code, path.parent).returncode == 0
        assert content(path) == {"run.json": "new"} and os.listdir(path.parent) == ["a"], steps
        shutil.rmtree(path)
        make(path, "old")
    assert steps > 8


def test_a_kill_at_any_step_of_a_long_task_leaves_one_folder_whole(tmp_path):
    """The old one is there until the new one has its result; the new one is continued."""
    path = make(tmp_path / "x" / "a", "old", "model")
    whole = {"run.json": "old", "model": "old"}
    states = set()
    for step in kills.kill_at_each_step(GROW, path.parent):
        files.restore_missing(path, GROWING)
        assert GROWING.is_finished(path) or content(files.replaced_folder(path)) == whole, step
        states.add((GROWING.has_progress(path), GROWING.is_finished(path)))
        assert kills.run(GROW, path.parent).returncode == 0
        assert content(path) == {name: "new" for name in ("run.json", "checkpoint", "model")}, step
        assert os.listdir(path.parent) == ["a"], step
        shutil.rmtree(path)
        make(path, "old", "model")
    assert states == {(False, True), (False, False), (True, False), (True, True)}


@pytest.mark.parametrize("error", [UserError("Bad rate."), KeyboardInterrupt(), MemoryError()])
def test_an_error_before_the_first_checkpoint_gives_the_old_folder_back(error, tmp_path):
    path = make(tmp_path / "a", "old", "model")
    with pytest.raises(type(error)) as caught, files.growing_folder(path, GROWING, "Go on."):
        with files.new_folder(path, GROWING, True) as folder:
            (folder / "run.json").write_text("new")
        raise error
    assert isinstance(error, MemoryError) or str(caught.value).endswith(f"{path} is as it was before.")
    assert content(path) == {"run.json": "old", "model": "old"} and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [files.WriteError("Disk full."), KeyboardInterrupt()])
def test_after_a_checkpoint_both_stay_and_the_message_says_so(error, tmp_path):
    path = make(tmp_path / "a", "old", "model")
    with pytest.raises(type(error).__bases__[0] if isinstance(error, UserError) else type(error)) as caught:
        _train_into(path, error)
    assert str(caught.value).endswith(
        f"{path} is kept. Go on. The run that it replaces stays in {tmp_path / '.a.replaced'} until it is finished."
    )
    assert sorted(os.listdir(tmp_path)) == [".a.replaced", "a"]
    # overwritten again: the unfinished one goes, the finished one stays
    with pytest.raises(MemoryError):
        _train_into(path, MemoryError(), "newer")
    assert content(path) == {"run.json": "newer", "checkpoint": "newer"}
    assert content(tmp_path / ".a.replaced") == {"run.json": "old", "model": "old"}
    _train_into(path, None, "newest")
    assert content(path)["model"] == "newest" and os.listdir(tmp_path) == ["a"]


def test_an_interruption_that_became_another_error_says_how_to_continue_too(tmp_path):
    with interrupts.remember_interruptions():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="is kept. Go on."):
            _train_into(tmp_path / "a", SystemError())
    with pytest.raises(SystemError):
        _train_into(tmp_path / "a", SystemError())


def _train_into(path, error, text="new"):
    with files.growing_folder(path, GROWING, "Go on."):
        with files.new_folder(path, GROWING, True) as folder:
            (folder / "run.json").write_text(text)
        (path / "checkpoint").write_text(text)
        if error:
            raise error
        (path / "model").write_text(text)


def test_what_cannot_be_deleted_does_not_matter(tmp_path, monkeypatch):
    """A file that a process has open, on NFS, or that belongs to another user."""
    path = make(tmp_path / "a", "old", "model")
    make(tmp_path / ".a.unfinished", "killed")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        for text in ("new", "newer", "newest"):
            _train_into(path, None, text)
            assert content(path)["model"] == text
            files.delete(path / "logs")
    assert sorted(os.listdir(tmp_path)) == [".a.deleted", "a"]
    _train_into(path, None)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_only_a_folder_of_the_same_kind_is_replaced(overwrite, tmp_path):
    foreign, link, mine = tmp_path / "foreign", tmp_path / "link", make(tmp_path / "mine", "old")
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    link.symlink_to(mine)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path in (foreign, link, tmp_path / "file", tmp_path / "dangling"):
        refused = pytest.raises(UserError, match="is no run|is a symbolic link|exists")
        with refused, files.new_folder(path, KIND, overwrite):
            raise ValueError("nothing is written")
    assert content(foreign) == {"notes.txt": "mine"} and content(mine) == {"run.json": "old"}
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "foreign", "link", "mine"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    """A copy, say, which takes no lock."""
    with pytest.raises(UserError, match="a exists"), files.new_folder(tmp_path / "a", KIND):
        make(tmp_path / "a", "mine")
    with pytest.raises(UserError, match="b exists"), files.resumable_folder(tmp_path / "b", KIND):
        make(tmp_path / "b", "mine")
    assert content(tmp_path / "a") == content(tmp_path / "b") == {"run.json": "mine"}


def test_a_foreign_folder_at_a_hidden_name_is_not_deleted(tmp_path):
    path, hidden = make(tmp_path / "a", "old"), tmp_path / ".a.replaced"
    hidden.mkdir()
    (hidden / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"\.a\.replaced is in the way"), files.new_folder(path, KIND, True):
        pass
    assert content(hidden) == {"notes.txt": "mine"} and content(path) == {"run.json": "old"}


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    with files.new_folder(tmp_path / "a", KIND, True) as folder:
        (folder / "run.json").write_text("new")
    assert content(tmp_path / "a") == {"run.json": "new"}
    with pytest.raises(ValueError, match="broken"), files.new_folder(tmp_path / "b" / "c", KIND):
        raise ValueError("broken")
    assert os.listdir(tmp_path) == ["a"]


def test_temporary_files_of_dead_processes_are_removed_by_the_next_writer(tmp_path):
    code = "with files.new_file(Path('a.csv')) as temporary:\n    temporary.write_text('x')\n    os._exit(1)"
    kills.run(code, tmp_path)
    (tmp_path / ".a.csv.copy.csv").write_text("mine")
    assert len(os.listdir(tmp_path)) == 2
    files.write_text(tmp_path / "a.csv", "new")
    assert sorted(os.listdir(tmp_path)) == [".a.csv.copy.csv", "a.csv"]


def test_temporary_files_of_others_do_not_matter(tmp_path, monkeypatch):
    def listdir(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", listdir)
        files.write_text(tmp_path / "a.csv", "new")
    assert os.listdir(tmp_path) == ["a.csv"]


def test_only_a_regular_file_of_a_bounded_size_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("abc")
    os.mkfifo(tmp_path / "fifo")  # nobody writes it: `open` would wait for ever
    assert files.read_regular(path, 3) == b"abc"
    cases = {
        tmp_path / "missing": "No such file or directory",
        tmp_path / "fifo": "Not a regular file",
        Path("/dev/zero"): "Not a regular file",
        tmp_path: "Not a regular file",
        tmp_path / ("x" * 5000): "File name too long",
        tmp_path / "a\0b": "Invalid characters in its name",
        tmp_path / "a\ud800": "Invalid characters in its name",
    }
    for file, reason in cases.items():
        with pytest.raises(UserError, match=re.escape(f"t: Cannot read the table {file}: {reason}. Expected a CSV.")):
            files.read_regular(file, 3, "table", "a CSV", where="t: ")
    with pytest.raises(UserError, match="a.csv: More than 2 bytes. Expected a file."):
        files.read_regular(path, 2)


def test_a_small_file_takes_little_memory(tmp_path):
    """`read(max_bytes)` takes 256 MB for each picture, and ten times as long."""
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    tracemalloc.start()
    try:
        contents = [files.read_regular(tmp_path / name, 64 << 20) for name in ("a", "empty")]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert contents == [b"abc", b""]


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr(os, "fstat", lambda _: SimpleNamespace(st_mode=stat.S_IFREG, st_size=2))
    with pytest.raises(UserError, match="/a has grown while it was read"):
        files.read_regular(tmp_path / "a", 9)


def test_no_reader_waits_for_a_pipe(tmp_path, monkeypatch):
    from emotion_tf.data.embeddings import read_embeddings
    from emotion_tf.data.tokenizer import read_vocabulary
    from emotion_tf.faces.containers import open_clip
    from emotion_tf.faces.encode import read_crop, read_pixels
    from emotion_tf.runs import export_files
    from emotion_tf.serving.film import read_subtitles

    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(export_files, "CHECKSUMS", Path("fifo"))
    readers = {
        "face picture": lambda path: read_crop(path, 48),
        "clip": open_clip,
        "subtitles": read_subtitles,
        "word embeddings": lambda path: read_embeddings(path, ["a"]),
        "vocabulary": read_vocabulary,
        "file": lambda path: export_files.check_files(tmp_path),
    }
    for what, read in {**readers, "face picture ": read_pixels}.items():
        with pytest.raises(UserError, match=f"Cannot read the {what.strip()} .*fifo: Not a regular file. Expected"):
            read(tmp_path / "fifo")


@pytest.mark.parametrize("error, stays", [(UserError("no"), False), (files.WriteError("full"), True)])
def test_a_new_folder_without_progress_is_deleted_unless_the_disk_is_full(error, stays, tmp_path):
    for name, progress in (("a", ()), ("b", ("checkpoint",))):
        path = tmp_path / name
        with pytest.raises(UserError), files.growing_folder(path, GROWING, "Go on."):
            make(path, "new", *progress)
            raise error
        assert path.exists() == (stays or bool(progress))


def test_a_folder_of_another_kind_that_appears_meanwhile_is_not_deleted(tmp_path):
    """`train` verifies the data for minutes before it creates its folder."""
    path = tmp_path / "a"
    message = "a exists. Expected a new name"
    with pytest.raises(UserError, match=message), files.growing_folder(path, GROWING, "Go on."):
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
        with files.new_folder(path, GROWING):
            pass
    assert content(path) == {"thesis.txt": "mine"}


def test_the_clean_up_on_a_read_only_disk_does_not_hide_the_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(files.WriteError, match="Cannot write .*a.txt: Read-only file system"):
        files.write_text(tmp_path / "a.txt", "text")


@pytest.mark.parametrize("name", ["a", "Mañana_2.1-b", "0" * 100, "0" * 100 + "-seed4294967295"])
def test_names_of_folders(name):
    folders.check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "a/b",
        "a b",
        "a\0",
        "a\n",
        "a'",
        "x" * 101,
        "ñ" * 51,
        "\udcff",
        f"x-seed{'0' * 100}",
        "x" * 101 + "-seed0",
    ],
)
def test_names_that_no_folder_has(name):
    with pytest.raises(UserError, match="Invalid `--name`. Expected .* letters, digits"):
        folders.check_name(name)


def test_the_default_name_is_a_name():
    for data in ("tfrecords/Mañana 'x'", "x" * 255, "..", "/", "数" * 85, "a" + "数" * 84):
        folders.check_name(folders.stem(Config(data=data)))
    assert folders.stem(Config(data="a" * 39 + "-b")) == "a" * 39 + "-text-face"
