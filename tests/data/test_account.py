"""The account of a data set made from clips."""

from __future__ import annotations

from pathlib import Path

from emotion_tf.config import CropConfig
from emotion_tf.data import account
from emotion_tf.data.clip_source import ClipSource
from emotion_tf.data.manifest import Row


def test_the_stored_list_of_unused_clips_is_bounded_and_the_counts_are_not(monkeypatch):
    """dataset_info.json has a largest size, which half a million entries exceeded: it was written and never read."""
    monkeypatch.setattr(account, "MAX_STORED", 3)
    monkeypatch.setattr(account, "MAX_LISTED", 2)
    rows = [Row("train", "0", str(i), "", "Hello", 0, (), 1.0, "") for i in range(9)]
    problems = [("no clip", "")] * 4 + [("no face found", "")] + [("cannot be decoded", "cut")] * 3 + [("", "")]
    source = ClipSource(Path("/clips"), {}, CropConfig(), None, 1)
    counts = account.summarize(rows, problems, source)
    assert [entry["row"][2] for entry in counts["not_used"]] == ["0", "1", "2"]
    assert counts["rows"]["train"]["no clip"] == 4 and counts["rows"]["train"]["total"] == 9
    expected = "not used: 2 more: no clip, 3 more: cannot be decoded; dataset_info.json names the first 3"
    assert account.format_lines(counts)[-1] == expected
    monkeypatch.setattr(account, "MAX_STORED", 7)
    assert account.format_lines(account.summarize(rows, problems, source))[-1] == (
        "not used: 2 more: no clip, 1 more: cannot be decoded; dataset_info.json names them all"
    )
