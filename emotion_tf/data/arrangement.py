"""How the rows of a table are arranged: which split has which rows, and which utterances are around each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from emotion_tf.data.manifest import SPLITS, Row

Neighbours = tuple[list[Row], list[Row]]
"""The past and the future utterances that are stored with an utterance."""


class Members(Sequence[Row]):
    """Rows of a table.

    Attributes:
        positions: their positions in the table, int32 (N,).
    """

    def __init__(self, table: Sequence[Row], positions: np.ndarray) -> None:
        self._table, self.positions = table, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Members(self._table, self.positions[i])
        return self._table[int(self.positions[i])]

    def __iter__(self) -> Iterator[Row]:
        return map(self._table.__getitem__, self.positions.tolist())


class Arrangement:
    """The arrangement of a table: 12 bytes a row, and 8 of the hash of its dialogue while it is built.

    Args:
        rows: the table, each dialogue in order of speaking. Other rows may be between those of a dialogue.
        context: number of utterances before each, and after it, that are its neighbours.
    """

    def __init__(self, rows: Sequence[Row], context: int) -> None:
        self.rows, self.context = rows, context
        hashes, has_text, split_of = array("q"), array("b"), array("b")
        self._labels: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        for row in rows:
            self._labels[row.split][row.label] += 1
            hashes.append(hash((row.split, row.dialogue_id)))
            has_text.append(bool(row.utterance))
            split_of.append(SPLITS.index(row.split))
        dialogue, splits = np.frombuffer(hashes, np.int64), np.frombuffer(split_of, np.int8)
        self._positions = {split: np.flatnonzero(splits == i).astype(np.int32) for i, split in enumerate(SPLITS)}
        self._dialogues = {split: _count_different(dialogue[places]) for split, places in self._positions.items()}
        order = np.argsort(dialogue, kind="stable").astype(np.int32)
        is_spoken = np.frombuffer(has_text, bool)[order]
        # the rows with text, dialogue by dialogue; and the first of them that is not before a row
        self._spoken = order[is_spoken]
        self._place = np.empty(len(order), np.int32)
        self._place[order] = np.cumsum(is_spoken) - is_spoken

    def members(self, split: str) -> Members:
        """Returns the rows of a split, in the order of the table."""
        return Members(self.rows, self._positions[split])

    def count_dialogues(self, split: str) -> int:
        """Returns the number of dialogues of a split."""
        return self._dialogues[split]

    def count_labels(self, split: str) -> Mapping[int, int]:
        """Returns the number of rows of each class of a split; 0 of others."""
        return self._labels[split]

    def neighbours(self, position: int) -> Neighbours:
        """Returns the rows with text before a row and after it in its dialogue, in order of speaking."""
        row, place = self.rows[position], int(self._place[position])
        after = place + bool(row.utterance)
        sides = self._spoken[max(0, place - self.context) : place], self._spoken[after : after + self.context]
        past, future = (list(map(self.rows.__getitem__, side.tolist())) for side in sides)
        dialogue = row.split, row.dialogue_id
        # those of other dialogues are the first of the past, and the last of the future
        while past and (past[0].split, past[0].dialogue_id) != dialogue:
            del past[0]
        while future and (future[-1].split, future[-1].dialogue_id) != dialogue:
            future.pop()
        return past, future


def _count_different(values: np.ndarray) -> int:
    values.sort()
    return int((values[1:] != values[:-1]).sum()) + bool(len(values))
