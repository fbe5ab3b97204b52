"""`predict-table` part after part: the same answers, few rows in memory, and what an interruption leaves."""

import csv
import pickle
import types

import numpy as np
import pytest
from stub_predictor import Certain

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.serving import tables


class Reader(Certain):
    """Reads two previous lines; notes what it is asked; raises an error after some batches."""

    facts = types.SimpleNamespace(labels=("joy", "fear"), face_size=32, context=2, speaker=True, crops={})

    def __init__(self, batches=1000, error=KeyboardInterrupt):
        self.asked, self.batches, self.error = [], batches, error

    def _predict_batch(self, utterances, contexts, crops):
        if self.batches == 0:
            raise self.error
        self.batches -= 1
        self.asked += zip(utterances, contexts, strict=True)
        present = {
            "text_present": np.array([bool(text) for text in utterances]),
            "face_present": np.zeros(len(crops), bool),
        }
        return super()._predict_batch(utterances, contexts, crops) | present


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Function that writes a table of two dialogues in turn, with other texts in some rows."""
    monkeypatch.setattr(tables, "PART", 4)

    def write(changes=(), count=22):
        texts = {number: f"line {number}" for number in range(count)} | dict(changes)
        rows = [(f"d{n % 2}", "A" if n % 3 else "B", texts[n]) for n in range(count)]
        with open(tmp_path / "t.csv", "w", newline="") as file:
            csv.writer(file).writerows([("dialogue_id", "speaker", "utterance"), *rows])
        return tmp_path / "t.csv"

    return write


def predict(out, path, predictor):
    return tables.write_table(out, path, predictor, tables.count_rows(path))


def test_rows_have_the_lines_before_them_in_other_parts(table, tmp_path):
    reader = Reader()
    assert predict(tmp_path / "p.csv", table({20: ""}), reader) == (22, 1)
    assert reader.asked[5] == ("A: line 5", ["A: line 1", "B: line 3"])
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["utterance"] for row in rows[:3]] == ["line 0", "line 1", "line 2"] and len(rows) == 22
    assert {row["predicted"] for row in rows} == {"joy"} and {row["p_joy"] for row in rows} == {"1.0"}


def test_workers_write_the_same_file(table, tmp_path, monkeypatch):
    """They are some parts ahead of the file, and open the model themselves."""

    def compute(scheduler, function, parts, *names):
        return iter([function(*part) for part in pickle.loads(pickle.dumps(list(parts)))])

    here, workers, path = Reader(), Reader(), table({20: ""})
    assert tables._identity(workers) == f" {workers.facts}"
    monkeypatch.setattr(tables, "compute", compute)
    monkeypatch.setattr(tables, "_open", lambda run, identity, trusts: workers)
    counts = predict(tmp_path / "one.csv", path, here)
    assert tables.write_table(tmp_path / "many.csv", path, Reader(0), 22, scheduler="tcp://x:1") == counts
    assert (tmp_path / "many.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert workers.asked == here.asked


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("The server ended."), files.WriteError("Full.")])
def test_an_interrupted_table_is_continued_to_the_same_file(table, tmp_path, error):
    out = tmp_path / "p.csv"
    whole, first, second = Reader(), Reader(3, error), Reader()
    predict(out, table(), whole)
    content = out.read_bytes()
    out.unlink()
    with pytest.raises(type(error), match=r"The predictions of 12 rows are kept in .*\.partial\. Continue with: "):
        predict(out, table({21: "not right yet"}), first)
    assert not out.exists()
    with open(tmp_path / ".p.csv.partial", "ab") as file:
        file.write(b"half a")  # of a kill
    predict(out, table(), second)
    assert out.read_bytes() == content and first.asked + second.asked == whole.asked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "t.csv"]


@pytest.mark.parametrize("change", ["row", "model", "abstain"])
def test_a_table_or_model_that_has_changed_begins_anew(table, tmp_path, change):
    out, reader = tmp_path / "p.csv", Reader()
    with pytest.raises(KeyboardInterrupt):
        predict(out, table(), Reader(3))
    reader.source = "another" if change == "model" else reader.source
    path = table({5: "changed"} if change == "row" else ())
    tables.write_table(out, path, reader, 22, 0.5 if change == "abstain" else 0.0)
    assert len(reader.asked) == 22
    assert ("changed" in out.read_text()) == (change == "row")


def test_nothing_is_left_without_an_answer(table, tmp_path):
    with pytest.raises(UserError, match=r"^The server ended\.$"):
        predict(tmp_path / "p.csv", table(), Reader(0, UserError("The server ended.")))
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_rows_are_read_as_they_are_predicted(table, tmp_path, monkeypatch):
    path, read, ahead, rows_of = table(), [], [], tables.read_table
    monkeypatch.setattr(tables, "read_table", lambda path: (read.append(1) or row for row in rows_of(path)))

    class Counting(Reader):
        def _predict_batch(self, utterances, contexts, crops):
            ahead.append(len(read) - len(self.asked))
            return super()._predict_batch(utterances, contexts, crops)

    tables.write_table(tmp_path / "p.csv", path, Counting(), 22)
    assert len(ahead) == 6 and max(ahead) <= tables.PART
