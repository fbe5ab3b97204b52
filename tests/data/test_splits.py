"""Folds: whole dialogues, shared images, leaks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_tf.data import splits
from emotion_tf.errors import UserError


@settings(deadline=None, max_examples=30)
@given(
    dialogues=st.lists(st.integers(0, 12), min_size=30, max_size=60),
    pictures=st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=60, max_size=60),
    seed=st.integers(0, 99),
)
def test_each_utterance_is_held_out_once_and_no_fold_leaks(dialogues, pictures, seed):
    hashes = [(picture,) if picture else () for picture in pictures[: len(dialogues)]]
    group = splits.group_utterances(dialogues, hashes)
    if len(set(group)) < 3:
        return
    held_out = splits.assign_folds([n % 3 for n in range(len(dialogues))], group, 3, seed)
    assert sorted(np.concatenate(held_out)) == list(range(len(dialogues)))
    for fold in held_out:
        rest = np.setdiff1d(np.arange(len(dialogues)), fold)
        splits.check_leaks(dialogues, hashes, rest, fold)


def test_dialogues_that_share_a_picture_are_one_group():
    group = splits.group_utterances(["a", "a", "b", "c", "d"], [("x",), (), ("y",), ("x", "z"), ("z",)])
    assert group[0] == group[1] == group[3] == group[4] != group[2]


def test_a_leak_is_an_error():
    dialogue, pictures = ["a", "b", "a", "c"], [("x",), ("y",), (), ("x",)]
    splits.check_leaks(dialogue, pictures, [0, 2], [1])
    with pytest.raises(UserError, match="Dialogue 'a' is on both sides"):
        splits.check_leaks(dialogue, pictures, [0], [1, 2])
    with pytest.raises(UserError, match=r"same picture is on both sides, of utterances 0 and 3 .*'a' and 'c'"):
        splits.check_leaks(dialogue, pictures, [0, 2], [1, 3])


def test_the_number_of_folds_is_from_two_to_the_number_of_groups():
    for count in (1, 4):
        with pytest.raises(UserError, match=f"--folds.*Expected 2 to 3.*Received: {count}"):
            splits.assign_folds([0, 1, 0, 1], np.array([0, 1, 2, 2]), count, 0)
    with pytest.raises(UserError, match="Folds need at least two dialogues"):
        splits.assign_folds([0, 1], np.array([0, 0]), 2, 0)
