"""The model card, and the limits of use that the report and the documentation repeat."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT

from emotion_tf.evaluation import before_use, model_card


def test_the_documentation_has_the_same_text():
    page = (ROOT / "docs" / "before_you_use.md").read_text(encoding="utf-8")
    assert " ".join(before_use.markdown("meld").split()) in " ".join(page.split())


def test_the_text_states_the_limits():
    text = before_use.markdown("meld")
    assert all(
        part in text
        for part in ("perceived", "actors", "one comedy series", "Article 5 (1) (f)", "at work", "education")
    )


@pytest.mark.parametrize("corpus", ["meld", "demo", ""])
def test_each_data_set_has_its_own_warning(untrained, tmp_path, corpus):
    for name in ("run.json", "config.json"):
        (tmp_path / name).write_text((untrained / name).read_text())
    (tmp_path / "run.json").write_text(
        json.dumps({**json.loads((untrained / "run.json").read_text()), "corpus": corpus})
    )
    card = model_card.text(tmp_path)
    assert before_use.markdown(corpus) in card and "Article 5 (1) (f)" in card
    assert ("MELD" in card.split("## The model")[0], "drawings" in card) == (corpus == "meld", corpus == "demo")


def test_a_card_of_a_run_that_was_not_evaluated(untrained, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/emotion-tf"])
    card = model_card.text(untrained)
    assert before_use.markdown("") in card and "`emotion-tf evaluate RUN --report`" in card and "neutral, joy" in card
    assert "calibrated" not in card.split("## Results")[0]


def test_a_card_with_results(untrained, tmp_path):
    for name in ("run.json", "config.json"):
        (tmp_path / name).write_text((untrained / name).read_text())
    floor = {"label": "neutral", "accuracy": 0.25, "weighted_f1": 0.1}
    row = {"precision": 0.5, "recall": 0.75, "f1": 0.6, "support": 8.0}
    numbers = {
        **{name: 0.625 for name in ("weighted_f1", "accuracy", "macro_f1")},
        **{"majority_floor": floor, "per_class": {"joy": row}, "utterances": 8, "data": "d", "command": "c"},
    }
    bounds = {name: [0.5, 0.75] for name in ("weighted_f1", "accuracy", "macro_f1")}
    metrics = {
        "test": {**numbers, "intervals": bounds},
        "dev": numbers,
    }  # dev: without intervals, as older runs wrote them
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    path = model_card.write(tmp_path)
    card = path.read_text()
    assert path.name == "MODEL_CARD.md"
    assert "| accuracy | 0.625 | [0.500, 0.750] | 0.250 |" in card and "| joy | 0.500 | 0.750 | 0.600 | 8 |" in card
    assert "| accuracy | 0.625 |  | 0.250 |" in card and "| weighted F1 | 0.625 |" in card
    assert card.count("emotion_tf ") == 1  # its version
