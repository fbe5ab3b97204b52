"""Text of users in CSV files: no formula for a spreadsheet, and the same text when it is read back."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_tf.evaluation import report
from emotion_tf.evaluation.csv_tables import escape, read_csv, to_csv, unescape
from emotion_tf.evaluation.report import write_predictions

ROOT = Path(__file__).resolve().parent.parent.parent
FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t1", "\r1", "\n1", "'=1", "''=1", "＝1+1", "-", "- Yes.", "-2-3")
INNER_FORMULAS = {
    'Ja;=HYPERLINK("http://x")': 'Ja;\'=HYPERLINK("http://x")',
    ";'=1": ";''=1",
    'a;"=1"': 'a;\'"=1"',
    "a\t+1": "a\t'+1",
    "a\n@SUM(A1);-1": "a\n'@SUM(A1);'-1",
    "\t=1": "'\t'=1",
    "\r=1": "'\r'=1",
    "\n＝1": "'\n'＝1",
}
PLAIN = (
    "Hello",
    "",
    "'Cause I said so",
    "''",
    "-5",
    "+1.5",
    "-.5e-3",
    "5",
    " =1",
    "a=b",
    "日本",
    "it's",
    "a,b",
    '"',
    "a; b",
    "a;'b",
    "a,=1",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_escaped(text):
    assert escape(text) == f"'{text}" and unescape(escape(text)) == text


@pytest.mark.parametrize("text", INNER_FORMULAS)
def test_a_formula_after_a_separator_is_escaped(text):
    assert escape(text) == INNER_FORMULAS[text] and unescape(escape(text)) == text


@pytest.mark.parametrize("separator", [";", "\t"])
def test_no_cell_of_another_separator_is_a_formula(separator, tmp_path):
    """A spreadsheet may split a table at semicolons, and then no quotes protect the texts."""
    to_csv(pd.DataFrame({"id": 1, "text": list(INNER_FORMULAS), "more": 2}), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        cells = [cell for line in file for cell in next(csv.reader([line], delimiter=separator), [])]
    assert len(cells) > len(INNER_FORMULAS) and not [cell for cell in cells if re.match(r"[\"\s]*[=+\-@＝]", cell)]


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_and_numbers_are_unchanged(text):
    assert escape(text) == text == unescape(text)


@given(st.text(st.sampled_from("'=+-@;\t\r\n5.e a,\"＝"), max_size=6) | st.text(max_size=6))
def test_escape_is_inverted(text):
    assert unescape(escape(text)) == text


def test_a_table_is_read_as_it_was_written(tmp_path):
    texts = [*FORMULAS, *INNER_FORMULAS, *PLAIN]
    table = pd.DataFrame(
        {"=text": texts, "number": np.linspace(-1, 1, len(texts)), "mixed": ([-1, None] * len(texts))[: len(texts)]}
    )
    to_csv(table, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["'=text", "number", "mixed"]
    assert not [
        row[0] for row in rows if re.match(r"[=+\-@\t\r\n＝]", row[0]) and row[0] not in ("-5", "+1.5", "-.5e-3")
    ]
    assert rows[0][1] == "-1.0" and {row[2] for row in rows} <= {"-1", "", "-1.0"}
    table_read = read_csv(tmp_path / "t.csv")
    assert (
        table_read["=text"].tolist() == texts
        and table_read["number"].astype(float).tolist() == table["number"].tolist()
    )


def test_predictions_hold_no_formula(tmp_path):
    rows = [{"dialogue_id": "=1", "utterance_id": -1, "utterance": "=HYPERLINK(A1)", "label": 0}]
    write_predictions(tmp_path / "p.csv", rows, ("-joy", "fear"), np.array([0]), np.array([[0.9, 0.1]]))
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines == [
        "dialogue_id,utterance_id,utterance,emotion,predicted,p_-joy,p_fear",
        "'=1,-1,'=HYPERLINK(A1),'-joy,'-joy,0.9,0.1",
    ]
    assert read_csv(tmp_path / "p.csv")["utterance"].tolist() == ["=HYPERLINK(A1)"]


def test_every_table_is_escaped():
    """Tables of numbers alone are exceptions."""
    calls = {
        f"{path.relative_to(ROOT).as_posix()}: {line.strip()}"
        for folder in ("emotion_tf", "tuning")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\.to_csv\(|csv\.(Dict)?[wW]riter\(", line) and path.name != "csv_tables.py"
    }
    assert calls == {
        "emotion_tf/training/history.py: pd.concat([history, pd.DataFrame([numbers])]).to_csv(temporary, index=False)",
        'emotion_tf/data/demo.py: writer = csv.writer(file, lineterminator="\\n")',  # the generator's own text
    }


def test_rows_of_an_iterator_are_written_in_parts(tmp_path, monkeypatch):
    rows = [{"dialogue_id": "7", "utterance": text, "label": i % 2} for i, text in enumerate("abcde")]
    answers = np.arange(5) % 2, np.linspace(0, 1, 10).reshape(5, 2)
    write_predictions(tmp_path / "whole.csv", rows, ("joy", "fear"), *answers)
    monkeypatch.setattr(report, "CHUNK", 2)
    write_predictions(tmp_path / "parts.csv", iter(rows), ("joy", "fear"), *answers)
    assert (tmp_path / "parts.csv").read_text() == (tmp_path / "whole.csv").read_text()
