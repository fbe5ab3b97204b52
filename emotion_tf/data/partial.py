"""The unfinished data set from which an interrupted `prepare` continues."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from emotion_tf import documents, files
from emotion_tf.data.arrangement import Members
from emotion_tf.documents import Count, Length, Sha256, Text


@dataclass(frozen=True)
class PlannedShard:
    """A shard to write: its rows, the name of its file, and a hash of everything that its bytes depend on."""

    split: str
    name: str
    rows: Members
    key: str


class Note(TypedDict):
    """The note of a finished shard: its size and hash, how many records have a face, and the most faces of one.

    With clips, also the problem of each record.
    """

    bytes: Count
    sha256: Sha256
    with_face: Count
    max_faces: Length
    problems: list[tuple[Text, Text]]


class PartialDataset:
    """The folder of `files.resumable_folder` for a data set.

    It holds each finished shard as `KEY.tfrecord` with a note `KEY.json` (its hash and face counts), so that after a
    change of the table only the shards with changed rows are written again. At the end, the shards move into the folder
    that becomes the data set.

    Args:
        folder: the folder.
        plan: all shards, in order.

    Attributes:
        notes: key -> note of each finished shard.
        new_shards: the shards that this call has written.
    """

    def __init__(self, folder: Path, plan: Sequence[PlannedShard]) -> None:
        self.folder, self.plan = folder, tuple(plan)
        self.notes: dict[str, Note] = {}
        self.new_shards: list[PlannedShard] = []
        self._paths: dict[str, Path] = {}

    def open(self) -> list[PlannedShard]:
        """Looks for the shards that an interrupted call finished, and returns the other ones."""
        for shard in self.plan:
            self._read(shard)
        return [shard for shard in self.plan if shard.key not in self.notes]

    def _read(self, shard: PlannedShard) -> None:
        note = self.folder / f"{shard.key}.json"
        if not note.is_file():
            return
        values = self._read_note(note)
        # a call that was killed at its end has moved some shards
        for path in (self.folder / f"{shard.key}.tfrecord", files.result(self.folder) / shard.name):
            if path.is_file() and files.sha256(path) == values["sha256"]:
                self.notes[shard.key], self._paths[shard.key] = values, path
                return

    def _read_note(self, note: Path) -> Note:
        return documents.read(note, Note, f"Remove {self.folder}; `prepare` then begins again.")

    def has_become(self, data: Path) -> bool:
        """Whether `data` has all shards: a call was killed between the renaming of `result` and its end."""
        if files.result(self.folder).exists():
            return False
        for shard in self.plan:
            note, path = self.folder / f"{shard.key}.json", data / shard.name
            if not note.is_file() or not path.is_file():
                return False
            if files.sha256(path) != self._read_note(note)["sha256"]:
                return False
        return bool(self.plan)

    @contextlib.contextmanager
    def new_shard(self, shard: PlannedShard) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yields the path of a shard to write, and its note to fill. Both are finished at the end of the block."""
        path, temporary = self.folder / f"{shard.key}.tfrecord", self.folder / f"{shard.key}.unfinished"
        note: dict[str, Any] = {}
        try:
            yield temporary, note
            note |= {"bytes": temporary.stat().st_size, "sha256": files.sha256(temporary)}
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # of an error: a full disk needs the room
        files.write_text(self.folder / f"{shard.key}.json", json.dumps(note))
        self.notes[shard.key], self._paths[shard.key] = cast(Note, note), path
        self.new_shards.append(shard)

    def assemble(self) -> Path:
        """Moves the shards, which are all finished, into the folder of the data set, and returns that folder."""
        data, names = files.result(self.folder), {shard.name for shard in self.plan}
        for path in data.iterdir():
            if path.name not in names:
                path.unlink()
        for shard in self.plan:
            self._paths[shard.key].replace(data / shard.name)
        return data

    def discard(self, shards: Iterable[PlannedShard]) -> None:
        """Deletes finished shards, and the folder if no other shard is finished."""
        for shard in shards:
            for suffix in ("json", "tfrecord"):
                (self.folder / f"{shard.key}.{suffix}").unlink(missing_ok=True)
        self.keep()

    def keep(self) -> str:
        """Returns what is kept, for an error message. Deletes the folder if no shard is finished, of any call."""
        finished = [shard for shard in self.plan if (self.folder / f"{shard.key}.json").is_file()]
        count, total = (sum(len(shard.rows) for shard in shards) for shards in (finished, self.plan))
        if count:
            return f"{count} of {total} utterances are kept in {self.folder}: the same command continues after them."
        if any(self.folder.glob("*.json")):
            return f"The shards of an earlier call with other options or rows stay in {self.folder}."
        shutil.rmtree(self.folder, ignore_errors=True)
        return "Nothing was written."


def stamp(path: Path) -> tuple[str, int, int]:
    """Returns the path, size and modification time of a file; zeros if it does not exist."""
    try:
        about = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), about.st_size, about.st_mtime_ns
