"""Text of users on the terminal: control characters are shown, markup is text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.table import Table

from emotion_tf.consoles import table_console
from emotion_tf.evaluation.report import print_table
from emotion_tf.terminal import printable, say

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = {
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\rb": r"a\rb",
    "\x9b2J": r"\x9b2J",
    "\u202egpj.exe": r"\u202egpj.exe",
    "a\u2066b\u2069": r"a\u2066b\u2069",
    "\u2028": r"\u2028",
    "\udcff.png": r"\udcff.png",
    "\x7f\x08\0": r"\x7f\x08\x00",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_are_escaped(text, capsys):
    say(text)
    assert capsys.readouterr().out == f"{HOSTILE[text]}\n"


@pytest.mark.parametrize("text", ["Hello", "Grüße, 日本, 🙂, 👩\u200d🚀", "a\tb\nc", r"C:\x1b", "नमस्ते", "עברית"])
def test_other_text_is_unchanged(text):
    assert printable(text) == text


def test_cells_and_titles_of_tables_are_escaped_and_are_no_markup(capsys):
    table = Table("[bold]name[/bold]", title="[/red] \x1b[31m")
    table.add_row("[/a] :smile: \x1b[31m \u202e")
    table_console(80).print(table)
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\u202e" not in output
    assert all(text in output for text in ("[bold]name[/bold]", r"[/red] \x1b[31m", r"[/a] :smile: \x1b[31m \u202e"))


def test_labels_in_the_table_of_metrics(capsys):
    label = "\x1b[2J[/joy]"
    scores = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2}
    numbers = {"accuracy": 1.0, "weighted_f1": 1.0, "macro_f1": 1.0}
    print_table("a \x1b[2J", {**numbers, "majority_floor": {"label": label}, "per_class": {label: scores}})
    output = capsys.readouterr().out
    assert "\x1b" not in output and output.count(r"\x1b[2J[/joy]") == 2


def test_file_names_in_errors(fault):
    message = fault("compare", "\x1b[2Jrun", "other")
    assert "\x1b" not in message and r"\x1b[2Jrun" in message


def test_messages_are_printed_by_one_function():
    """Exceptions print help, progress and the log of TensorFlow."""
    callers = {
        path.relative_to(ROOT).as_posix()
        for folder in ("emotion_tf", "tuning")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"(?<![\w.])print\(|\bConsole\(width", path.read_text(encoding="utf-8"))
    }
    assert callers == {
        "emotion_tf/progress.py",
        "emotion_tf/quiet.py",
        "emotion_tf/streams.py",
        "emotion_tf/terminal.py",
        "emotion_tf/training/progress.py",
    }
