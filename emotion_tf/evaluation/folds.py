"""Folds of a split that do not divide dialogues."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from emotion_tf.errors import UserError


def dialogue_folds(label: np.ndarray, dialogue: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows of each fold for fitting and for scoring.

    Args:
        label: int (N,), true classes, whose shares are similar in all folds.
        dialogue: (N,), dialogue of each utterance.
        count: number of folds; fewer if there are fewer dialogues.

    Raises:
        UserError: all utterances are of one dialogue.
    """
    count = min(count, len(np.unique(dialogue)), int(np.bincount(label, minlength=1).max()))
    if count < 2:
        raise UserError("Cross-validation needs two or more dialogues. Received: utterances of one dialogue.")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from folds.split(label, label, dialogue)
