"""Shards of a data set in object storage, staged into a bounded cache on the local disk before they are read.

fsspec's own caching file systems have no bound on what they hold and know no checksums. Here a file of the cache is
named by the SHA-256 that `dataset_info.json` has of the shard, and is compared with it, so that data sets that share
shards, and processes of one machine, share files.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emotion_tf import files, terminal
from emotion_tf.data.record_index import RecordIndex
from emotion_tf.errors import UserError
from emotion_tf.remote import Store, StoreError
from emotion_tf.weights_table import cache_folder

if TYPE_CHECKING:
    from emotion_tf.data.dataset import Shard

VARIABLE = "EMOTION_TF_SHARDS_GB"
DEFAULT_GB = 20.0
ATTEMPTS = 10
"""How often a shard is staged that other processes evict before it is opened."""


def cache_limit() -> int:
    """Returns the size of the cache in bytes. Raises UserError if `EMOTION_TF_SHARDS_GB` is no positive number."""
    text = os.environ.get(VARIABLE, str(DEFAULT_GB))
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e9:
            return int(float(text) * 1e9)
    raise UserError(f"Invalid {VARIABLE}. Expected the gigabytes of the cache of shards, above 0. Received: {text!r}.")


class Stage:
    """The shards of a data set in object storage, and their copies in the cache.

    Args:
        store: folder of the data set.
        shards: its shards, of all splits.

    Raises:
        UserError: the cache cannot hold two of the shards.
    """

    _room: ClassVar = threading.Lock()
    _reserved: ClassVar[dict[str, int]] = {}
    """SHA-256 -> bytes of each shard that this process is downloading."""

    def __init__(self, store: Store, shards: Iterable[Shard]) -> None:
        self.store, self.shards = store, {shard.file: shard for shard in shards}
        self.folder, self.limit = cache_folder() / "shards", cache_limit()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._checked: set[str] = set()
        self._needed: frozenset[str] = frozenset()
        largest = max((shard.bytes for shard in self.shards.values()), default=0)
        if 2 * largest > self.limit:
            raise UserError(
                f"The cache is too small for {store.url}. Expected twice the largest shard ({largest:,} bytes). "
                f"Received: {VARIABLE}={self.limit / 1e9:g}. Set it to {2.1e-9 * largest:.2g}."
            )

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """Divides shards into groups that follow one another, of which the cache holds two; all, if it holds all."""
        total = sum(self.shards[name].bytes for name in names)
        most = self.limit if total <= self.limit else self.limit // 2
        groups: list[list[str]] = []
        size = 0
        for name in names:
            size += self.shards[name].bytes
            if not groups or size > most:
                groups.append([])
                size = self.shards[name].bytes
            groups[-1].append(name)
        return groups

    def need(self, now: Sequence[str], later: Sequence[str]) -> None:
        """Tells which shards are read now and later: others are evicted first. Those of later are staged meanwhile."""
        self._needed = frozenset(self.shards[name].sha256 for name in (*now, *later))
        if later:
            threading.Thread(target=self._stage_ahead, args=(list(later), self._needed), daemon=True).start()

    def _stage_ahead(self, names: list[str], needed: frozenset[str]) -> None:
        for name in names:
            with contextlib.suppress(UserError):  # the reader will meet it, too, and raises it
                if self._needed != needed or not self._stage(name, evict_needed=False):
                    return

    def path(self, name: str) -> Path:
        """Returns the local file of a shard, which may be evicted before it is opened; an open file stays readable.

        Raises:
            UserError: the store does not answer, the content is not that of `dataset_info.json`, or the disk is full.
        """
        self._stage(name, evict_needed=True)
        path = self._file(self.shards[name].sha256)
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used one is evicted first
        return path

    def _file(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.tfrecord"

    def _stage(self, name: str, evict_needed: bool) -> bool:
        """Downloads a shard if the cache has no sound copy; returns False if there is no room for it."""
        shard = self.shards[name]
        path = self._file(shard.sha256)
        terminal.show_as(str(path), f"{self.store.url}/{name}")
        with self._locks[name]:
            if self._is_sound(path, shard):
                return True
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise files.write_error(self.folder, error) from None
            if not self._make_room(shard, evict_needed):
                return False
            try:
                self._download(name, shard, path)
            finally:
                with self._room:
                    self._reserved.pop(shard.sha256, None)
            self._checked.add(shard.sha256)
            return True

    def _is_sound(self, path: Path, shard: Shard) -> bool:
        """Whether the cache has a shard; its content is compared once in a process."""
        with contextlib.suppress(OSError):
            if path.stat().st_size == shard.bytes and (
                shard.sha256 in self._checked or files.sha256(path) == shard.sha256
            ):
                self._checked.add(shard.sha256)
                return True
        return False

    def _download(self, name: str, shard: Shard, path: Path) -> None:
        with files.new_file(path) as temporary:
            self.store.download(name, temporary)
            if temporary.stat().st_size != shard.bytes or files.sha256(temporary) != shard.sha256:
                raise UserError(
                    f"{self.store.url}/{name}: The shard is not the one of dataset_info.json (sha256 differs). Prepare "
                    "the data set again, or copy the shard again."
                )

    def _make_room(self, shard: Shard, evict_needed: bool) -> bool:
        """Evicts files of the cache, the least recently used first, until a shard has room; reserves the room."""
        with self._room:
            held = {path: about for path, about in self._held()}
            excess = sum(about.st_size for about in held.values()) + sum(self._reserved.values())
            excess += shard.bytes - self.limit
            order = sorted(held, key=lambda path: (path.stem in self._needed, held[path].st_mtime_ns))
            for path in order:
                if excess <= 0 or (path.stem in self._needed and not evict_needed):
                    break
                path.unlink(missing_ok=True)
                excess -= held[path].st_size
            if excess > 0 and not evict_needed:
                return False
            self._reserved[shard.sha256] = shard.bytes
            return True

    def _held(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yields the files of the cache, without what this process is downloading."""
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process has evicted it
                if not entry.name.endswith(f".{os.getpid()}.tfrecord"):
                    yield Path(entry.path), entry.stat()


class StagedRecords:
    """The records of some shards in object storage, in any order; as a `RecordIndex`, which each of them has.

    Args:
        stage: the shards of the data set.
        names: those of these records, in order.
        indexes: shard -> where its records are, as far as it was read; shared with other orders of the same records.
    """

    def __init__(self, stage: Stage, names: Sequence[str], indexes: dict[str, RecordIndex] | None = None) -> None:
        self.stage, self.names = stage, tuple(names)
        self._indexes = {} if indexes is None else indexes
        self._begins = np.cumsum([0, *(stage.shards[name].records for name in names)])
        self._plan(stage.groups(names))

    def __len__(self) -> int:
        return int(self._begins[-1])

    @property
    def group_bytes(self) -> int:
        """Size of the groups of shards that an epoch shuffles; 0: it shuffles all records."""
        return self.stage.limit // 2 if len(self.stage.groups(self.names)) > 1 else 0

    def in_order(self) -> StagedRecords:
        """Returns the same records, to be read from the first to the last."""
        return StagedRecords(self.stage, self.names, self._indexes)

    def plan_epoch(self, positions: np.ndarray, shuffle: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Returns the order of an epoch, and prepares to read in it.

        If the cache holds all shards, it is that of local files. Else the shards are shuffled and divided into groups
        of half the cache, and the records are shuffled within each group.

        Args:
            positions: positions of the records to read, int64 (N,).
            shuffle: returns a permutation of an array, which depends on its length alone.
        """
        self._plan(self.stage.groups([self.names[i] for i in shuffle(np.arange(len(self.names)))]))
        shuffled, numbers = shuffle(positions), np.array([self._group_of[name] for name in self.names])
        return shuffled[np.argsort(numbers[self._shards(shuffled)], kind="stable")]

    def _plan(self, groups: list[list[str]]) -> None:
        """Takes up the groups of shards that are read one after the other."""
        self._groups, self._group = groups, -1
        self._group_of = {name: number for number, names in enumerate(groups) for name in names}

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Returns the records at `positions` int64 (B,), bytes (B,). Raises UserError as `Stage.path` does."""
        records = np.empty(len(positions), object)
        shards = self._shards(positions)
        for shard in dict.fromkeys(shards.tolist()):
            here = np.flatnonzero(shards == shard)
            records[here] = self._read(self.names[shard], positions[here] - self._begins[shard])
        return records

    def files(self) -> Iterator[str]:
        """Yields the local file of each shard, in order."""
        for name in self.names:
            self._enter(name)
            yield str(self.stage.path(name))

    def _shards(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._begins, positions, side="right") - 1

    def _read(self, name: str, positions: np.ndarray) -> np.ndarray:
        self._enter(name)
        for _ in range(ATTEMPTS):
            path = self.stage.path(name)
            with contextlib.suppress(FileNotFoundError):  # evicted since
                if name not in self._indexes:
                    self._indexes[name] = RecordIndex([str(path)])
                return self._indexes[name].read(positions)
        raise StoreError(f"{self.stage.folder}: Other processes evict the shards. Set {VARIABLE} to a larger number.")

    def _enter(self, name: str) -> None:
        """Tells which shards are needed when the reader comes to another group."""
        if self._group == self._group_of[name]:
            return
        self._group = self._group_of[name]
        now, *later = self._groups[self._group : self._group + 2]
        self.stage.need(now, later[0] if later else ())
