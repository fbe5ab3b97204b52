"""The file of answers to a long table: it grows part after part, and a later call continues it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from emotion_tf import documents, files, interrupts, locks
from emotion_tf.documents import Count, Sha256
from emotion_tf.errors import UserError
from emotion_tf.program import command
from emotion_tf.streams import is_stream
from emotion_tf.wording import plural

REPAIR = "Remove it; the table is then predicted from its beginning."


@dataclass(frozen=True)
class Progress:
    """The document `.NAME.partial.json` beside the unfinished file `.NAME.partial`.

    Attributes:
        model: hash of all but the rows that the answers depend on.
        table: hash of the rows with an answer.
        rows: number of rows with an answer.
        unread: how many of them have nothing that the model reads.
        bytes: length of their text; a kill may leave a longer file.
    """

    model: Sha256
    table: Sha256
    rows: Count = 0
    unread: Count = 0
    bytes: Count = 0


class Answers:
    """An open file of answers.

    Args:
        file: the file, at its end.
        progress: what is written, by earlier calls.
        earlier: the rows with an answer, as they were hashed.
        note: file of the progress; None: it cannot be continued.

    Attributes:
        progress: what is written.
    """

    def __init__(self, file: BinaryIO, progress: Progress, earlier: Digest, note: Path | None) -> None:
        self._file, self.progress, self._digest, self._note = file, progress, earlier, note

    def write(self, rows: Sequence[Mapping[str, str]], text: str, unread: int) -> None:
        """Appends the answers of some rows. A kill leaves all of them or none."""
        content, now = text.encode(), self.progress
        self._file.write(content)
        self._file.flush()
        self._digest.add(rows)
        self.progress = replace(
            now,
            table=self._digest.hex,
            rows=now.rows + len(rows),
            unread=now.unread + unread,
            bytes=now.bytes + len(content),
        )
        if self._note:
            files.write_text(self._note, documents.to_json(self.progress))


class Digest:
    """Hash of the rows of a table."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Adds rows."""
        for row in rows:
            self._hash.update(json.dumps(row).encode())

    @property
    def hex(self) -> str:
        """The hash of all rows so far."""
        return self._hash.hexdigest()


@contextlib.contextmanager
def open_answers(out: Path, model: str, read_rows: Callable[[int], Iterable[Mapping[str, str]]]) -> Iterator[Answers]:
    """Yields the file of answers, which becomes `out` at the end of the block.

    After an error or a kill, the same call continues it, if the model and the answered rows are the same. A stream,
    such as `-`, is written at the end.

    Args:
        out: the file, or a stream.
        model: everything that the answers depend on besides the rows.
        read_rows: returns the first rows of the table.

    Raises:
        UserError: with a sentence that says what is kept; the disk is full; another process writes `out`.
    """
    start = Progress(hashlib.sha256(model.encode()).hexdigest(), Digest().hex)
    if is_stream(out):
        with files.new_file(out, follow=True) as temporary, open(temporary, "wb") as file:
            yield Answers(file, start, Digest(), None)
        return
    target = out.resolve()
    partial = target.with_name(f".{target.name}.partial")
    note = partial.with_name(f"{partial.name}.json")
    with locks.writer(target):
        progress, digest = start, Digest()
        if partial.is_file() and note.is_file():
            earlier = documents.read(note, Progress, REPAIR)
            digest.add(read_rows(earlier.rows))
            is_same = (earlier.model, earlier.table) == (start.model, digest.hex)
            progress, digest = (earlier, digest) if is_same else (start, Digest())
        with _keep(partial, note, out), _append(partial, progress.bytes) as file:
            yield Answers(file, progress, digest, note)
        partial.replace(target)
        note.unlink(missing_ok=True)


@contextlib.contextmanager
def _append(path: Path, size: int) -> Iterator[BinaryIO]:
    """Opens a file behind its first `size` bytes; the rest is cut off."""
    with open(path, "r+b" if size else "wb") as file:
        file.truncate(size)
        file.seek(size)
        yield file


@contextlib.contextmanager
def _keep(partial: Path, note: Path, out: Path) -> Iterator[None]:
    """Keeps the file after an error, whose message says so; deletes it if there is no answer."""
    try:
        with interrupts.recognize_interruption():
            yield
    except OSError as error:
        raise files.WriteError(f"Cannot write {out}: {error.strerror or error}. {_kept(partial, note)}") from None
    except UserError as error:
        raise type(error)(f"{error} {_kept(partial, note)}".rstrip()) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(partial, note) or "Nothing was written.") from None


def _kept(partial: Path, note: Path) -> str:
    if not note.is_file():
        partial.unlink(missing_ok=True)
        return ""
    rows = documents.read(note, Progress, REPAIR).rows
    return f"The predictions of {plural(rows, 'row')} are kept in {partial}. Continue with: {command()}"
