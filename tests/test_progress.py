"""Progress on a terminal and in a log."""

import io
import itertools
import logging
import re
import sys

import pytest

from emotion_tf import cli, progress, quiet


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Function that makes standard error a terminal: in the test, before which pytest sets it."""

    def install():
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return install


@pytest.mark.parametrize("block", [progress.stage, quiet._title])
def test_a_title_stands_on_a_terminal_until_its_block_ends(block, terminal, capsys):
    shown = terminal()
    with pytest.raises(ZeroDivisionError), block("opening mine"):
        assert "opening mine" in shown.getvalue()
        print("an answer")
        raise ZeroDivisionError
    assert shown.getvalue().endswith("\x1b[2K")  # the line is empty again
    assert capsys.readouterr().out == "an answer\n"


@pytest.mark.parametrize("block", [progress.stage, quiet._title])
def test_a_log_has_no_titles(block, capsys):
    with block("opening mine"):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("total", "line"),
    [(10, "checking: 5/10, 0.0 rows/s, 200 s left\n"), (None, "checking: 5, 0.0 rows/s\n")],
)
def test_a_log_has_a_line_a_minute(total, line, monkeypatch, capsys):
    seconds = itertools.chain([0], itertools.count(40, 40))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    rows = list(progress.track(range(3), total, "checking", "rows", done=3))
    assert rows == [0, 1, 2] and capsys.readouterr().err == line


def test_a_bar_without_a_total(terminal):
    shown = terminal()
    assert list(progress.track(range(3), None, "validating", "batches")) == [0, 1, 2]
    assert "validating" in shown.getvalue() and "3/?" in shown.getvalue()


def test_batches_are_counted(terminal):
    shown = terminal()
    assert list(progress.track_batches(range(3), 130, 64, "evaluating")) == [0, 1, 2]
    assert "3/3" in shown.getvalue()


def test_the_stages_of_a_data_set_are_shown(terminal, manifest_path, tmp_path):
    """The longest ones of `prepare` and `audit`."""
    shown, table = terminal(), tmp_path / "table"
    for words, titles in (
        (["prepare", "demo", "--utterances", "200", "--out", tmp_path / "demo"], ("drawing", "writing")),
        (["prepare", "table", manifest_path, "--out", table, "--tokenizer", "learned"], (f"reading {manifest_path}",)),
        (["audit", table], (f"looking at {table}", "drawing the page")),
    ):
        cli.dispatch(list(map(str, words)))
        plain = re.sub(r"\s+", "", shown.getvalue())
        assert all(re.sub(r"\s+", "", title)[:30] in plain for title in titles), plain


def test_a_message_after_a_bar_is_not_folded(terminal, monkeypatch, caplog):
    """A command that is copied from it would have a line break."""
    command = " ".join(["python main.py train --resume"] * 5)

    class Tensor:
        """Warns as TensorFlow's do when the tracing of their graph ends early."""

        def __del__(self):
            logging.getLogger("tensorflow").error("never used")

    def verb() -> None:
        """Stops in the midst."""
        rows = progress.track(range(3), 3, "working", "rows")  # the traceback holds the variables of this frame
        tensor = Tensor()
        for _ in rows:
            assert tensor
            raise KeyboardInterrupt(f"Stopped. Continue with: {command}")

    monkeypatch.setattr(cli, "load", lambda reference: verb)
    monkeypatch.setattr(sys, "argv", ["main.py", "runs"])
    monkeypatch.setenv("COLUMNS", "80")
    shown = terminal()
    assert cli.main() == 130
    assert shown.getvalue().endswith(f"Stopped. Continue with: {command}\n") and "never used" not in caplog.text
