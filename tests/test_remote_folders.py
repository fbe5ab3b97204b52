"""The local copy of a run in object storage (`memory://`): what is stored when, and who wins."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from emotion_tf import folders, remote_folders
from emotion_tf.data import records
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.errors import UserError
from emotion_tf.remote import Store, StoreError
from emotion_tf.terminal import with_urls
from emotion_tf.training.initialize import check_unseen

URL = "memory://bucket/runs/mine"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Objects of the run: name -> content. A test changes the cache to be another machine."""
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def stored(store):
    return {path.removeprefix("/bucket/runs/mine/"): store.cat_file(path) for path in store.find("/bucket/runs/mine")}


def new_run(**content):
    folder = remote_folders.fetch(URL)
    (folder / "checkpoint").mkdir(parents=True)
    for name in ("run.json", "config.json", "checkpoint/last.npz"):
        (folder / name).write_text(content.get(name, "1"))
    remote_folders.upload(folder, is_new=True)
    return folder


def test_a_run_is_stored_with_run_json_last_and_fetched_on_another_machine(store, tmp_path, monkeypatch):
    order = []
    put = type(store).put_file
    monkeypatch.setattr(type(store), "put_file", lambda self, path, name: (order.append(name), put(self, path, name)))
    folder = new_run()
    assert order[-1] == "bucket/runs/mine/run.json" and len(order) == 3
    (folder / "history.csv").write_text("epoch\n1\n")
    (folder / ".history.csv.host.1.csv").write_text("half")
    remote_folders.upload(folder)
    assert order[3:] == ["bucket/runs/mine/history.csv"]
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "other"))
    copy = remote_folders.fetch(URL)
    assert copy != folder and copy.name == "mine"
    assert {p.relative_to(copy).as_posix(): p.read_bytes() for p in copy.rglob("*") if p.is_file()} == stored(store)
    assert len(stored(store)) == 4


def test_what_is_deleted_here_is_deleted_there(store):
    folder = new_run()
    (folder / "checkpoint/last.npz").unlink()
    remote_folders.upload(folder)
    assert set(stored(store)) == {"run.json", "config.json"}


def test_what_was_not_stored_stays_unless_another_has_written(store, tmp_path, monkeypatch):
    folder = new_run()
    (folder / "history.csv").write_text("1")
    assert remote_folders.fetch(URL) == folder and (folder / "history.csv").exists()
    remote_folders.upload(folder)
    (folder / "history.csv").write_text("12")
    store.pipe_file("/bucket/runs/mine/history.csv", b"another")
    remote_folders.fetch(URL)
    assert (folder / "history.csv").read_text() == "another"
    store.rm_file("/bucket/runs/mine/history.csv")
    remote_folders.fetch(URL)
    assert not (folder / "history.csv").exists()


def test_a_configuration_may_name_a_run_in_object_storage(store, small_config):
    folder = new_run()
    assert folders.local_run(URL) == folder and folders.local_run("saved_models/x") == Path("saved_models/x")
    assert folders.reference(folder, Path("saved_models/ensemble")) == URL
    member = folders.reference(Path("saved_models/x"), Path("saved_models/ensemble"))
    assert member == "../x" and folders.local_run(member, Path("saved_models/ensemble")) == Path("saved_models/x")
    text = dataclasses.replace(small_config.text, init=URL)
    with pytest.raises(UserError) as error:  # of a run without content
        check_unseen(dataclasses.replace(small_config, text=text), Dataset.open(Path(small_config.data)), ["test"])
    assert URL in with_urls(str(error.value))


def test_a_new_run_replaces_all_of_the_old_one(store):
    folder = new_run()
    (folder / "report.html").write_text("old")
    remote_folders.upload(folder)
    (folder / "report.html").unlink()
    remote_folders.upload(folder, is_new=True)
    assert set(stored(store)) == {"run.json", "config.json", "checkpoint/last.npz"}


def test_a_folder_elsewhere_is_never_stored(store, tmp_path):
    folder = tmp_path / "somebody" / "else" / "mine"
    folder.mkdir(parents=True)
    (folder.parent / "state.json").write_text('{"url": "memory://bucket/runs/mine", "files": {}}')
    (folder / "run.json").write_text("1")
    remote_folders.upload(folder)
    assert not stored(store)


HOLDER = """
import sys
from pathlib import Path
from emotion_tf import locks
with locks.writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_writes_here_is_left_alone(store):
    folder = new_run()
    store.pipe_file("/bucket/runs/mine/run.json", b"2")
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        remote_folders.fetch(URL)
        assert (folder / "run.json").read_text() == "1"
        other.stdin.close()
    remote_folders.fetch(URL)
    assert (folder / "run.json").read_text() == "2"


def test_a_run_that_was_deleted_there_is_deleted_here(store):
    folder = new_run()
    store.rm("/bucket/runs/mine", recursive=True)
    assert remote_folders.fetch(URL) == folder and not folder.exists()


def test_a_name_that_leads_out_of_the_folder_is_not_fetched(store, tmp_path):
    folder = new_run()
    store.pipe_file(f"/bucket/runs/mine/{tmp_path}/planted", b"1")
    store.pipe_file("/bucket/runs/mine/../planted", b"1")
    remote_folders.fetch(URL)
    assert not list(tmp_path.rglob("planted")) and len(remote_folders._files(folder)) == 3


def test_a_data_set_whose_store_fails_is_stored_by_the_same_command(store, manifest_path, succeed, fault, monkeypatch):
    monkeypatch.setattr(records, "ROWS_PER_SHARD", 30)
    uploaded, upload = [], Store.upload

    def fails_at_the_fifth(self, path, name):
        if len(uploaded) == 4:
            raise StoreError("The store does not answer.")
        uploaded.append(name)
        upload(self, path, name)

    url = "memory://bucket/data/tiny"
    words = ("prepare", "table", manifest_path, "--out", url, "--face-size", 32, "--tokenizer", "learned")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", fails_at_the_fifth)
        assert fault(*words).startswith("The store does not answer. 240 of 240 utterances are kept")
    store.rm(f"/bucket/data/tiny/{uploaded[0]}")  # somebody deletes one, and changes another
    store.pipe_file(f"/bucket/data/tiny/{uploaded[1]}", b"changed")
    kept, first = set(uploaded[2:]), list(uploaded)
    uploaded.clear()
    monkeypatch.setattr(Store, "upload", lambda self, path, name: (uploaded.append(name), upload(self, path, name)))
    succeed(*words)
    assert first[0] in uploaded and first[1] in uploaded and not kept & set(uploaded)
    assert uploaded[-1] == INFO and len({*uploaded, *kept}) == len(uploaded) + 2 == 11
    assert len(list(Dataset.open(url).rows("train", "dev", "test").enumerate_records())) == 240
    assert not [path for path in remote_folders.local_folder("prepared", url).parent.rglob("*") if path.is_file()]
