"""Local copies of folders in object storage: of runs, which are written here, and of what lies beside shards.

A store has no renaming of folders, so the files of a run are uploaded in the order in which they were written here,
`run.json` of a new run last: whoever reads it meanwhile, or after a kill, finds a state from which it can be continued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from emotion_tf import documents, files, locks, terminal
from emotion_tf.documents import Count, Sha256, Text
from emotion_tf.progress import track
from emotion_tf.remote import Store, url_of
from emotion_tf.weights_table import cache_folder

RUNS = "runs"
PREPARED = "prepared"
STATE = "state.json"
STORED = "stored.json"
MARKER = "run.json"
"""The file without which there is no run: written last, deleted first."""
REPAIR = "Remove the folder: what is in object storage is fetched again."


@dataclass(frozen=True)
class Copy:
    """A file as it was when both copies were the same: size and time here, and version there."""

    bytes: Count
    time: Annotated[int, Field(ge=0)]
    version: Text


@dataclass(frozen=True)
class State:
    """The document `state.json` beside a local copy."""

    url: Text
    files: dict[str, Copy]


@dataclass(frozen=True)
class StoredFile:
    """A file of a data set that was stored: its content, and its version there."""

    sha256: Sha256
    version: Text


@dataclass(frozen=True)
class StoredFiles:
    """The document `stored.json` beside a data set, while it is being stored."""

    files: dict[str, StoredFile]


def local_folder(kind: str, url: str) -> Path:
    """Returns the folder of a local copy in the cache; what it holds is printed as its URL."""
    url = url_of(url)
    folder = cache_folder() / kind / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rpartition("/")[2]
    terminal.show_as(str(folder), url)
    return folder


def copy_file(store: Store, name: str, folder: Path) -> None:
    """Copies a small object to a file of a local folder; without the object, the file is deleted."""
    content = store.read(name)
    if content is None:
        (folder / name).unlink(missing_ok=True)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(folder, error) from None
    with files.new_file(folder / name) as temporary:
        temporary.write_bytes(content)


def fetch(url: str | Path) -> Path:
    """Returns the local copy of a run, an ensemble or an export, after it has been made the same as the stored one.

    What was written here and is not stored yet, since the store did not answer, stays if nobody else has written
    meanwhile. The folder does not exist if nothing is stored.

    Raises:
        UserError: the store does not answer, or the disk is full.
    """
    store = Store(url)
    folder = local_folder(RUNS, store.url)
    with locks.writer(folder.parent / "fetch", wait=True), contextlib.suppress(locks.Occupied), locks.writer(folder):
        _fetch(store, folder)  # whoever holds the lock of the folder has fetched it, and writes it
    return folder


def _fetch(store: Store, folder: Path) -> None:
    stored = {name: version for name, version in store.names().items() if not {"", ".", ".."} & set(name.split("/"))}
    state = _find_state(folder)
    if state is None:
        state = State(store.url, {})
        _write_state(folder, state)
    if stored == {name: copy.version for name, copy in state.files.items()} and (folder.exists() or not stored):
        return
    if not stored:
        files.delete(folder)
    for path in _files(folder):
        if path.relative_to(folder).as_posix() not in stored:
            path.unlink()
    for name, version in stored.items():
        copy, path = state.files.get(name), folder / name
        if copy == _copy(path, version):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.write_error(folder, error) from None
        with files.new_file(path) as temporary:
            store.download(name, temporary)
        state.files[name] = _copy(path, version)
    _write_state(folder, State(store.url, {name: state.files[name] for name in stored}))


def is_copy(folder: Path) -> bool:
    """Whether a folder is the local copy of a run in object storage."""
    return folder.parent.parent == cache_folder() / RUNS


def upload(folder: Path, is_new: bool = False) -> None:
    """Stores what has changed in the local copy of a run. Does nothing for any other folder.

    Args:
        folder: the run.
        is_new: whether it replaces what is stored, which is deleted first.

    Raises:
        UserError: the store does not answer or refuses. What was not stored is stored by the next call.
    """
    state = _find_state(folder)
    if not state:
        return
    store = Store(state.url)
    if is_new:
        for name in sorted(state.files, key=lambda name: name != MARKER):
            store.delete(name)
        state.files.clear()
        _write_state(folder, state)
    paths = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    last = MARKER if MARKER not in state.files else ""
    for name in sorted(paths, key=lambda name: (name == last, paths[name].stat().st_mtime_ns)):
        copy, path = state.files.get(name), paths[name]
        if copy and copy == _copy(path, copy.version):
            continue
        before = _copy(path)
        store.upload(path, name)
        state.files[name] = dataclasses.replace(before, version=store.version(name))
        _write_state(folder, state)
    for name in sorted(set(state.files) - set(paths)):
        store.delete(name)
        del state.files[name]
        _write_state(folder, state)


def upload_data(folder: Path, url: str | Path, info: str) -> None:
    """Stores a data set that was written here. `info`, without which there is none, is deleted first, and written last.

    After an interruption the next call stores what is not stored yet.

    Raises:
        UserError: the store does not answer or refuses.
    """
    store = Store(url)
    document = local_folder(PREPARED, store.url).parent / STORED
    stored = _find_stored(document)
    store.delete(info)
    paths = sorted(folder.iterdir(), key=lambda path: (path.name == info, path.name))
    for path in track(paths, len(paths), f"storing {store.url}", "files"):
        name, sha256 = path.name, files.sha256(path)
        if name in stored and store.has(name) and stored[name] == StoredFile(sha256, store.version(name)):
            continue
        store.upload(path, name)
        stored[name] = StoredFile(sha256, store.version(name))
        document.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(document, documents.to_json(StoredFiles(stored)))
    document.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """Returns the files of a run, without hidden ones, which are being written."""
    paths = sorted(folder.rglob("*"))
    return [p for p in paths if p.is_file() and not any(part[0] == "." for part in p.relative_to(folder).parts)]


def _copy(path: Path, version: str = "") -> Copy:
    """Returns a file here, with its version there; of a missing one, no bytes and time 0."""
    with contextlib.suppress(OSError):
        about = path.stat()
        return Copy(about.st_size, about.st_mtime_ns, version)
    return Copy(0, 0, version)


def _find_state(folder: Path) -> State | None:
    path = folder.parent / STATE
    return documents.read(path, State, REPAIR) if is_copy(folder) and path.is_file() else None


def _find_stored(document: Path) -> dict[str, StoredFile]:
    return documents.read(document, StoredFiles, "Remove it.").files if document.is_file() else {}


def _write_state(folder: Path, state: State) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(folder.parent / STATE, documents.to_json(state))
