"""The unfinished data set from which an interrupted `prepare` continues."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
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
from emotion_tf.program import command
from emotion_tf.wording import plural


@dataclass(frozen=True)
class PlannedPart:
    """A part of a shard, or all of it.

    Attributes:
        split: the split.
        name: file of the shard. The parts of a shard follow one another.
        rows: rows of the part.
        key: hash of everything that the bytes of the part depend on.
    """

    split: str
    name: str
    rows: Members
    key: str


class Note(TypedDict):
    """The note of a finished part: its size and hash, how many records have a face, and the most faces of one.

    With clips, also the problem of each record.
    """

    bytes: Count
    sha256: Sha256
    with_face: Count
    max_faces: Length
    problems: list[tuple[Text, Text]]


class PartialDataset:
    """The folder of `files.resumable_folder` for a data set.

    It holds each finished part as `KEY.tfrecord` with a note `KEY.json` (its hash and face counts), so that after a
    change of the table only the parts with changed rows are written again. At the end, they become the shards in the
    folder that becomes the data set.

    Args:
        folder: the folder.
        plan: all parts, in order.

    Attributes:
        notes: key -> note of each finished part.
        new_parts: the parts that this call has written.
    """

    def __init__(self, folder: Path, plan: Sequence[PlannedPart]) -> None:
        self.folder, self.plan = folder, tuple(plan)
        self.notes: dict[str, Note] = {}
        self.new_parts: list[PlannedPart] = []
        self._paths: dict[str, Path] = {}

    def open(self) -> list[PlannedPart]:
        """Looks for the parts that an interrupted call finished, and returns the other ones."""
        for part in self.plan:
            self._read(part)
        return [part for part in self.plan if part.key not in self.notes]

    def _read(self, part: PlannedPart) -> None:
        note = self.folder / f"{part.key}.json"
        if not note.is_file():
            return
        values = self._read_note(note)
        # a call that was killed at its end has moved some parts
        for path in (self.folder / f"{part.key}.tfrecord", files.result(self.folder) / part.name):
            if path.is_file() and files.sha256(path) == values["sha256"]:
                self.notes[part.key], self._paths[part.key] = values, path
                return

    def _read_note(self, note: Path) -> Note:
        return documents.read(note, Note, f"Remove {self.folder}; `prepare` then begins again.")

    def has_become(self, data: Path) -> bool:
        """Whether `data` has all parts: a call was killed between the renaming of `result` and its end."""
        if files.result(self.folder).exists():
            return False
        for name, parts in self._shards():
            notes = [self.folder / f"{part.key}.json" for part in parts]
            if not all(path.is_file() for path in (data / name, *notes)):
                return False
            if not _consists_of(data / name, [self._read_note(note) for note in notes]):
                return False
        return bool(self.plan)

    def _shards(self) -> Iterator[tuple[str, list[PlannedPart]]]:
        """Yields the name and the parts of each shard."""
        for name, parts in itertools.groupby(self.plan, lambda part: part.name):
            yield name, list(parts)

    @contextlib.contextmanager
    def new_part(self, part: PlannedPart) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yields the path of a part to write, and its note to fill. Both are finished at the end of the block."""
        path, temporary = self.folder / f"{part.key}.tfrecord", self.folder / f"{part.key}.unfinished"
        note: dict[str, Any] = {}
        try:
            yield temporary, note
            note |= {"bytes": temporary.stat().st_size, "sha256": files.sha256(temporary)}
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)  # of an error: a full disk needs the room
        files.write_text(self.folder / f"{part.key}.json", json.dumps(note))
        self.notes[part.key], self._paths[part.key] = cast(Note, note), path
        self.new_parts.append(part)

    def assemble(self) -> Path:
        """Writes the shards of the finished parts into the folder of the data set, and returns that folder.

        TFRecord files can be joined byte by byte. A part that is a shard is moved; others stay until the data set is
        finished, so that a kill loses none.
        """
        data, names = files.result(self.folder), {part.name for part in self.plan}
        for path in data.iterdir():
            if path.name not in names:
                path.unlink()
        for name, parts in self._shards():
            paths = [self._paths[part.key] for part in parts]
            if len(paths) == 1:
                paths[0].replace(data / name)
                continue
            with (data / name).open("wb") as shard:
                for path in paths:
                    with path.open("rb") as file:
                        shutil.copyfileobj(file, shard)
        return data

    def discard(self, parts: Iterable[PlannedPart]) -> None:
        """Deletes finished parts, and the folder if no other part is finished."""
        for part in parts:
            for suffix in ("json", "tfrecord"):
                (self.folder / f"{part.key}.{suffix}").unlink(missing_ok=True)
        self.keep()

    def keep(self) -> str:
        """Returns what is kept, for an error message. Deletes the folder if no part is finished, of any call."""
        finished = [part for part in self.plan if (self.folder / f"{part.key}.json").is_file()]
        count, total = (sum(len(part.rows) for part in parts) for parts in (finished, self.plan))
        if count:
            return f"{count:,} of {plural(total, 'utterance')} are kept in {self.folder}. Continue with: {command()}"
        if any(self.folder.glob("*.json")):
            return f"The parts of an earlier call with other options or rows stay in {self.folder}."
        shutil.rmtree(self.folder, ignore_errors=True)
        return "Nothing was written."


def _consists_of(path: Path, notes: Sequence[Note]) -> bool:
    """Whether a file is that of one part, or the parts with these notes one after the other."""
    if len(notes) == 1:
        return files.sha256(path) == notes[0]["sha256"]
    with path.open("rb") as file:
        hashes = [hashlib.sha256(file.read(note["bytes"])).hexdigest() for note in notes]
        return hashes == [note["sha256"] for note in notes] and not file.read(1)


def stamp(path: Path) -> tuple[str, int, int]:
    """Returns the path, size and modification time of a file; zeros if it does not exist."""
    try:
        about = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), about.st_size, about.st_mtime_ns
