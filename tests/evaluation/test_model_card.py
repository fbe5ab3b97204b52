"""The model card, and the one text that it shares with the report and the documentation."""

from __future__ import annotations

import json

from helpers import ROOT

from emotion_tf.evaluation import before_use, model_card


def test_the_documentation_has_the_same_text():
    page = (ROOT / "docs" / "before_you_use.md").read_text(encoding="utf-8")
    assert " ".join(before_use.markdown().split()) in " ".join(page.split())


def test_the_text_says_what_must_be_known():
    text = before_use.markdown()
    assert all(
        part in text for part in ("perceived", "actors", "one comedy show", "Article 5 (1) (f)", "at work", "education")
    )


def test_a_card_of_a_run_that_was_not_evaluated(untrained):
    card = model_card.text(untrained)
    assert before_use.markdown() in card and "was not evaluated" in card and "neutral, joy" in card
    assert "calibrated" not in card.split("## Results")[0]


def test_a_card_with_numbers(untrained, tmp_path):
    for name in ("run.json", "config.json"):
        (tmp_path / name).write_text((untrained / name).read_text())
    floor = {"label": "neutral", "accuracy": 0.25, "weighted_f1": 0.1}
    row = {"precision": 0.5, "recall": 0.75, "f1": 0.6, "support": 8.0}
    numbers = {
        **{name: 0.625 for name in ("weighted_f1", "accuracy", "macro_f1")},
        **{"majority_floor": floor, "per_class": {"joy": row}, "utterances": 8, "data": "d", "command": "c"},
    }
    between = {name: [0.5, 0.75] for name in ("weighted_f1", "accuracy", "macro_f1")}
    metrics = {"test": {**numbers, "intervals": between}, "dev": numbers}  # dev: as a run of before left it
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    path = model_card.write(tmp_path)
    card = path.read_text()
    assert path.name == "MODEL_CARD.md"
    assert "| accuracy | 0.625 | [0.500, 0.750] | 0.250 |" in card and "| joy | 0.500 | 0.750 | 0.600 | 8 |" in card
    assert "| accuracy | 0.625 |  | 0.250 |" in card
