"""Cross-validation folds that share no dialogue and no face image."""

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
from emotion_tf.data.batches import Batches
from emotion_tf.data.rows import Rows
from emotion_tf.errors import UserError


def hash_pictures(rows: Rows) -> list[tuple[str, ...]]:
    """Returns the SHA-256 of each face image of each utterance, in the order of the records."""
    hashes: list[tuple[str, ...]] = []
    dataset = rows.enumerate_records().batch(256).map(lambda _, r: schema.parse_examples(r, ["face_jpeg"])["face_jpeg"])
    for batch in Batches(dataset, rows.local_paths):
        hashes += [tuple(hashlib.sha256(jpeg).hexdigest() for jpeg in jpegs) for jpegs in batch.to_list()]
    return hashes


def group_utterances(dialogue: Sequence[Any], pictures: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns the group of each utterance, int (N,). A group must not be split between training and validation.

    A group is a dialogue, or several dialogues that share a byte-identical image (the same clip under two ids).

    Args:
        dialogue: dialogue of each utterance; any hashable value.
        pictures: hashes of each utterance's images.
    """
    index = {name: i for i, name in enumerate(dict.fromkeys(dialogue))}
    indices = np.array([index[name] for name in dialogue], int)
    dialogues_with: defaultdict[str, list[int]] = defaultdict(list)
    for i, hashes in zip(indices, pictures, strict=True):
        for picture in hashes:
            dialogues_with[picture].append(int(i))
    edges = [(first, other) for first, *others in dialogues_with.values() for other in others if other != first]
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(index), len(index)))
    return connected_components(graph, directed=False)[1][indices]


def assign_folds(label: Sequence[int] | np.ndarray, group: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Returns the positions that each fold holds out, by scikit-learn's StratifiedGroupKFold, shuffled by `seed`.

    Every utterance is in exactly one fold, groups are not split, and classes are distributed evenly.

    Raises:
        UserError: fewer than two folds, more folds than groups, or a single group.
    """
    most = len(np.unique(group))
    if most < 2:
        raise UserError(
            "Folds need at least two dialogues of train that can be told apart. Received: 1; those that share a "
            "picture count as one. Add dialogues, or validate on dev alone."
        )
    if not 2 <= count <= most:
        raise UserError(
            f"Invalid `--folds`. Expected 2 to {most}, the number of dialogues that can be told apart. "
            f"Received: {count}."
        )
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(np.zeros(len(label)), np.asarray(label), group)]


def check_leaks(
    dialogue: Sequence[Any], pictures: Sequence[Sequence[str]], train: Iterable[int], held_out: Iterable[int]
) -> None:
    """Raises UserError if two sets of positions share a dialogue or a byte-identical image."""
    train = list(train)
    names = {dialogue[i]: i for i in train}
    hashes = {picture: i for i in train for picture in pictures[i]}
    for i in held_out:
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
