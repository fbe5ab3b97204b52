"""Names and folders of data sets and runs, without TensorFlow."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from emotion_tf import files, locks, remote
from emotion_tf.config import Config
from emotion_tf.errors import UserError, nearest
from emotion_tf.kinds import Kind
from emotion_tf.program import program
from emotion_tf.terminal import with_urls

DEMO = Path(Config.data)
"""The demo data set, which `train` and `tune` draw if it is missing."""
RUNS = Path("saved_models")
NAME, MAX_NAME = re.compile(r"[^\W_][\w.-]*"), 100
SEED = re.compile(r"-seed\d{1,10}\Z")
"""End of a name that `train --seeds` appends; it does not count in the length of a name."""
MAX_STEM = 40
"""Bytes of a data set's name in the default name of a run."""
ENSEMBLE = "ensemble.json"
"""File in the folder of an ensemble, in place of the config.json and run.json of a run."""
ENSEMBLE_KIND = Kind("ensemble", (ENSEMBLE,))
RUN = Kind("run", ("run.json", "config.json"), "model.keras", ("checkpoint/last.npz",))
CROSS_VALIDATION = Kind(
    "cross-validation",
    ("crossval.json", "config.json"),
    "metrics.json",
    ("*/checkpoint/last.npz", "*/model.keras", "*/held_out.csv"),
)
_fetched: list[Path] = []
"""Local copies of the runs in object storage that this process has fetched."""


def other_results(run: Path, data: Path) -> Path:
    """Returns the folder of a run's results on another data set than its own: two of one name have two."""
    place = remote.url_of(data) if remote.is_url(data) else str(data.resolve())
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    return run / "elsewhere" / f"{Path(place).name}-{digest}"


def run_path(name: str) -> Path:
    """Returns the folder of a run that --name names: in saved_models/, or the local copy of a URL, as it is."""
    if not remote.is_url(name):
        return RUNS / name
    from emotion_tf import remote_folders  # needs pydantic, which takes a third of the time of --help

    return remote_folders.local_folder(remote_folders.RUNS, name)


def fetch_run(name: str) -> Path:
    """Returns `run_path`; a run in object storage is fetched, and `store_runs` will store what is written into it."""
    if not remote.is_url(name):
        return RUNS / name
    from emotion_tf.remote_folders import fetch

    _fetched.append(fetch(name))
    return _fetched[-1]


def local_run(path: str, folder: Path = Path()) -> Path:
    """Returns the folder of a run that a document names by its path, from `folder`; of a URL, its fetched copy."""
    return fetch_run(path) if remote.is_url(path) else Path(os.path.normpath(folder / path))


def reference(run: Path, folder: Path) -> str:
    """Returns the path of a run relative to a folder, for `local_run`; of a copy, its URL."""
    url = with_urls(str(run))
    return url if remote.is_url(url) else os.path.relpath(run.resolve(), folder.resolve())


def store_runs() -> None:
    """Stores what this process has written into runs of object storage. Raises UserError if a store does not answer."""
    for run in _fetched:
        from emotion_tf.remote_folders import upload

        upload(run)


def check_name(name: str, folder: Path | None = None, takes_url: bool = False) -> None:
    """Raises UserError unless `name` can be that of a folder in saved_models/ or `folder`: --overwrite deletes it.

    `takes_url`: whether it may be a URL in object storage, whose last part is such a name.
    """
    if takes_url and remote.is_url(name):
        remote.check_url("--name", name)
        name = remote.url_of(name).rpartition("/")[2]
    is_short = len(os.fsencode(SEED.sub("", name))) <= MAX_NAME
    if not NAME.fullmatch(name) or not is_short:
        raise UserError(
            f"Invalid `--name`. Expected the name of a folder in {folder or RUNS}/: letters, digits, `.`, `_` and `-`, "
            f"at most {MAX_NAME} bytes, beginning with a letter or digit. Received: {name!r}."
        )


def subfolders_with(name: str, folder: Path) -> list[Path]:
    """Returns the folders in `folder` that contain a file, without hidden ones, which are being replaced."""
    return [path.parent for path in folder.glob(f"[!.]*/{name}")]


def restore_replaced(folder: Path, kinds: Sequence[Kind] = (RUN, ENSEMBLE_KIND, CROSS_VALIDATION)) -> None:
    """Gives the folders of some kinds in a folder their names back that a kill left without a name."""
    for old in folder.glob(".*.replaced"):
        for kind in kinds:
            files.restore_missing(old.with_name(old.name.removeprefix(".").removesuffix(".replaced")), kind)


def find_run(path: Path) -> Path:
    """Returns the folder of a run, an ensemble, an export or a cross-validation that a user names by its path or name.

    A path that exists goes before a name in saved_models/. A path without a folder is returned if it is the stem of
    NAME-seed0, NAME-seed1, ...

    A run in object storage is fetched, and its local copy returned.

    Raises:
        UserError: there is no such folder; the store does not answer.
    """
    if remote.is_url(path):
        copy = fetch_run(str(path))
        if not copy.exists():
            raise UserError(f"No run at {remote.url_of(path)}. Expected a URL that `train --name` wrote.")
        return copy
    for candidate in (path, RUNS / path):
        for kind in (RUN, ENSEMBLE_KIND, CROSS_VALIDATION):
            files.restore_missing(candidate, kind)
        if os.path.lexists(candidate) or any(candidate.parent.glob(f"{glob.escape(candidate.name)}-seed*")):
            return candidate
    raise missing_run(path)


def missing_run(path: Path) -> UserError:
    """Returns the error for a folder that holds no run, with the names of similar ones."""
    folder = path.parent if path.parent != Path() and path.parent.is_dir() else RUNS
    names = [run.name for name in ("run.json", ENSEMBLE, "crossval.json") for run in subfolders_with(name, folder)]
    return UserError(
        f"No run at {path}: run.json does not exist. Expected a folder that `train` made, or its name in {RUNS}/."
        f"{nearest(path.name, names, 3)} {program()} runs lists them."
    )


def newest_unfinished() -> Path:
    """Returns the run in saved_models/ that was interrupted last. Raises UserError if there is none."""
    restore_replaced(RUNS)
    # a run has no report before it is evaluated
    runs = [path for path in subfolders_with("run.json", RUNS) if not any(path.glob("report*.html"))]
    if not runs:
        raise UserError(f"Nothing to resume: {RUNS}/ has no interrupted run. Train one with: {program()} train")
    return max(runs, key=lambda path: path.stat().st_mtime)


def stem(config: Config) -> str:
    """Returns data set and towers of a configuration, such as `demo-text-face`."""
    data = re.sub(r"\W+", "-", Path(config.data).name).strip("-_")
    data = data.encode()[:MAX_STEM].decode(errors="ignore").strip("-_")
    return "-".join((data or "data", *config.towers))


@contextlib.contextmanager
def free_folder(config: Config, folder: Path | None = None) -> Iterator[Path]:
    """Yields a new folder in saved_models/ or `folder` and holds its lock, so that no other command takes its name."""
    names = (f"{stem(config)}-{n}" if n > 1 else stem(config) for n in itertools.count(1))
    for path in filter(_is_free, ((folder or RUNS) / name for name in names)):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.writer(path))
            except locks.Occupied:
                continue
            if _is_free(path):  # another process may have taken it meanwhile
                yield path
                return


def _is_free(path: Path) -> bool:
    return not os.path.lexists(path) and not files.replaced_folder(path).exists()


def check_no_link(folder: Path) -> None:
    """Raises UserError if a folder inside of a run is a symbolic link, which may lead to the user's other files."""
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a symbolic link to {folder.readlink()}. Expected a folder, since files in it are written and "
            "deleted. Remove the link."
        )


def check_entries(folder: Path, source: Path | str) -> None:
    """Checks the folder of a graph before anything in it is read; `source` says where it comes from.

    Raises:
        UserError: a link leaves the folder, or an entry is a pipe or a device, on which a reader may wait for ever.
    """
    root = os.path.realpath(folder)  # unlike `Path.resolve`, without an error for a link to itself
    for path in folder.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            problem = "a link out of the folder"
        elif not (path.is_file() or path.is_dir()):
            problem = "no file and no folder"
        else:
            continue
        raise UserError(
            f"{source}: The graph was not opened: {str(path.relative_to(folder))[:200]!r} is {problem}. Expected only "
            "files and folders inside of it. Do not use this folder, or get it from its author again."
        )
