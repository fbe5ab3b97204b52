"""Error of the printed intervals and p-values in small simulations; `benchmarks/intervals.py` runs the large ones."""

import numpy as np
import pytest

from benchmarks import intervals

TRIALS = 300


@pytest.mark.parametrize("section", ["scores", "seeds"])
def test_error_of_scores_and_seeds(section, monkeypatch):
    """No error is beyond its bound by more than three standard errors of so few trials."""
    monkeypatch.setattr(intervals, "POPULATION", 30_000)
    monkeypatch.setattr(intervals, "WORLDS", (*intervals.WORLDS[:2], *intervals.WORLDS[3:] * 2))
    monkeypatch.setattr(intervals, "DIALOGUES", (10, 30))
    monkeypatch.setattr(intervals, "SEEDS", (2, 5))
    rows = list(intervals.SECTIONS[section](np.random.default_rng(1), TRIALS))
    assert len(rows) > 10
    beyond = [row for row in rows if row.error > _limit(row)]
    assert not beyond


def _limit(row):
    bound = intervals.bound(row.dialogues)
    return bound + 3 * (bound * (1 - bound) / row.trials) ** 0.5


def test_error_of_the_p_value_of_two_runs(monkeypatch):
    """10 dialogues: 0.11 before p-values had the correction of their interval; 300 trials are 3.4 standard errors."""
    monkeypatch.setattr(intervals, "DIALOGUES", (10,))
    monkeypatch.setattr(intervals, "WORLDS", intervals.WORLDS[:1])
    rows = list(intervals.pairs(np.random.default_rng(1), TRIALS))
    assert [row.name for row in rows] == [f"p of two runs, {share} new" for share in ("100%", "20%", "3%")]
    assert all(row.error <= 0.07 for row in rows)


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("families", ["any p (Holm) of three runs", "p of a modality that does not help"]),
        ("precision", ["precision above a threshold"]),
    ],
)
def test_error_of_families_and_precision(section, names, monkeypatch):
    monkeypatch.setattr(intervals, "POPULATION", 30_000)
    monkeypatch.setattr(intervals, "DIALOGUES", (10,))
    rows = list(intervals.SECTIONS[section](np.random.default_rng(1), TRIALS // 2))
    assert [row.name for row in rows] == names and all(row.trials > 0.9 * TRIALS // 2 for row in rows)
    assert all(row.error <= _limit(row) for row in rows)


def test_the_table_marks_what_is_beyond_its_bound():
    row = intervals.Row("p", "usual", 30, 0.08, 2000)
    assert intervals._cell(row, 2000) == "0.080 !" and intervals._cell(row._replace(dialogues=10), 2000) == "0.080"
    assert intervals._cell(row._replace(trials=500), 2000) == "0.080 ! (500)"
    assert intervals._cell(None, 2000) == "too few"
