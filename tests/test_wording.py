"""Numbers with their nouns."""

from __future__ import annotations

import re

import pytest
from helpers import ROOT

from emotion_tf.wording import plural


@pytest.mark.parametrize(
    ("count", "words", "expected"),
    [
        (0, ("epoch",), "0 epochs"),
        (1, ("epoch",), "1 epoch"),
        (2000, ("epoch",), "2,000 epochs"),
        (1, ("process", "processes"), "1 process"),
        (2, ("process", "processes"), "2 processes"),
    ],
)
def test_plural(count, words, expected):
    assert plural(count, *words) == expected


def test_no_message_writes_a_plural_behind_a_number_by_hand():
    """Numbers that are never 1 are left out."""
    allowed = {"emotion_tf/evaluation/modalities.py: {bounds} dialogues", "tuning/search.py: {len(errors)} trials"}
    nouns = "epochs|rows|clips|utterances|trials|dialogues|predictions|records|members|seeds|hyperparameters"
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for folder in ("emotion_tf", "tuning")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for match in re.finditer(rf"\{{[a-z][^{{}}]*\}} ({nouns})(?![\w/])", path.read_text(encoding="utf-8"))
    }
    assert found == allowed
