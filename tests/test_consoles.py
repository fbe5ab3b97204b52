"""Tables fold between words: no number and no name is cut, however narrow the terminal is."""

from __future__ import annotations

import re

import pytest
from rich.table import Table

from emotion_tf.consoles import _PrintableConsole

WORDS = ["demo-text-face", "unfinished", "tfrecords/a", "gru", "cnn", "0.91234567", "-1,234,567.8", "[0.1,", "0.2]"]


def table():
    table = Table("run", "state", "data", "branches", "dev weighted F1", "change", "interval", title="Runs of today")
    table.add_row("demo-text-face", "finished", "tfrecords/a", "gru + cnn", "0.91234567", "-1,234,567.8", "[0.1, 0.2]")
    table.add_row("x", "unfinished", "tfrecords/a", "gru", "0.5", "", "[red] \x1b[31m")
    return table


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_a_table_is_folded_and_never_cut(width, capsys):
    _PrintableConsole(width=width).print(table())
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    for word in WORDS:
        assert re.search(rf"(?<!\S){re.escape(word)}(?!\S)", printed), word
    assert "…" not in printed and "\x1b" not in printed and "[red]" in printed and "\\x1b[31m" in printed
    assert ("┃" in printed) == (width >= 100)


def test_a_narrow_table_is_a_list_of_its_rows(capsys):
    _PrintableConsole(width=60).print(table())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["Runs of today", "", "run              demo-text-face", "state            finished"]
    assert "dev weighted F1  0.91234567" in lines and "branches         gru + cnn" in lines
    assert not any(line.rstrip() == "change" for line in lines)  # of the second row, which has none


def test_no_width_loses_the_right_border(capsys):
    """rich cuts a column off where its minimal widths and its rounding meet."""
    for width in range(70, 120):
        folds = Table("repeat", "fold", "utterances", "weighted_f1", "accuracy", "macro_f1")
        folds.add_row("mean ± deviation", "all out-of-fold", "932", *["0.5640 ± 0.0267"] * 3)
        folds.add_row("95 %", "over dialogues", "", *["[0.5482, 0.5869]"] * 3)
        _PrintableConsole(width=width).print(folds)
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= width
        assert all(line[-1] in "┓┃┩│┘" for line in printed.splitlines()) or "┃" not in printed
