"""Folds that share no dialogue and no picture: what cross-validation holds out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from emotion_tf import schema
from emotion_tf.data.dataset import Rows
from emotion_tf.errors import UserError


def picture_hashes(rows: Rows) -> list[tuple[str, ...]]:
    """sha256 of each face picture of each utterance, in the order of their records."""
    found: list[tuple[str, ...]] = []
    dataset = rows.numbered().batch(256).map(lambda _, r: schema.parse_examples(r, ["face_jpeg"])["face_jpeg"])
    for batch in dataset:
        found += [tuple(hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs) for jpegs in batch.to_list()]
    return found


def groups(dialogue: Sequence[Any], pictures: Sequence[Sequence[str]]) -> np.ndarray:
    """Which utterances must stay on one side: int (N,).

    Dialogues are kept whole; those that share a byte-identical picture (the same clip under two ids) are one group.

    Args:
        dialogue: of each utterance; anything that can be a key.
        pictures: hashes of each utterance's pictures.
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(dialogue))}
    members = np.array([number[name] for name in dialogue], int)
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for i, hashes in zip(members, pictures, strict=True):
        for one in hashes:
            seen[one].append(int(i))
    edges = [(them[0], other) for them in seen.values() for other in them[1:] if other != them[0]]
    first, second = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (first, second)), shape=(len(number), len(number)))
    return connected_components(graph, directed=False)[1][members]


def folds(label: Sequence[int], group: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Positions that each fold holds out: every utterance in exactly one, groups whole, classes spread evenly.

    scikit-learn's StratifiedGroupKFold, shuffled by `seed`.

    Raises:
        UserError: fewer than two folds, or more than there are groups.
    """
    most = len(np.unique(group))
    if not 2 <= count <= most:
        raise UserError(
            f"Invalid `--folds`. Expected 2 to {most}, the number of dialogues that can be told apart. "
            f"Received: {count}."
        )
    chosen = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [held for _, held in chosen.split(np.zeros(len(label)), np.asarray(label), group)]


def check_leaks(
    dialogue: Sequence[Any], pictures: Sequence[Sequence[str]], one: Iterable[int], other: Iterable[int]
) -> None:
    """Refuses two sides (positions) that share a dialogue or a byte-identical picture. Raises UserError."""
    one = list(one)
    names = {dialogue[i]: i for i in one}
    hashes = {picture: i for i in one for picture in pictures[i]}
    for i in other:
        if dialogue[i] in names:
            raise UserError(
                f"Dialogue {dialogue[i]!r} is on both sides (utterances {names[dialogue[i]]} and {i}). Expected each "
                "dialogue on one side alone."
            )
        for picture in pictures[i]:
            if picture in hashes:
                raise UserError(
                    f"The same picture is on both sides, of utterances {hashes[picture]} and {i} (dialogues "
                    f"{dialogue[hashes[picture]]!r} and {dialogue[i]!r}). Expected each clip on one side alone."
                )


def choose(rows: Rows, positions: Iterable[int]) -> Rows:
    """These of all records of `rows`."""
    return Rows(rows.paths, tuple(sorted(int(i) for i in positions)))
