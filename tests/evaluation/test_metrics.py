"""Metrics by hand and against scikit-learn, the majority floor, and the files that `evaluate` writes."""

from __future__ import annotations

import contextlib
import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from emotion_tf.errors import UserError
from emotion_tf.evaluation import charts, figures, report
from emotion_tf.evaluation.colours import FIRST, MAX_OPACITY
from emotion_tf.evaluation.metrics import metrics, weighted_f1
from emotion_tf.evaluation.timeline import plot_timeline
from emotion_tf.labels import MELD_EMOTIONS

# correct predictions: 2 of 4 for a, 2 of 2 for b, 0 of 1 for c
LABEL = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 2, 1, 1, 0])


def one_hot(predicted, classes=3) -> np.ndarray:
    return (0.9 * np.eye(classes) + 0.1 / classes)[predicted].astype(np.float32)


def test_a_table_by_hand():
    """F1: a 2*2/(4+3) = 4/7, b 2*2/(2+3) = 4/5, c 0."""
    numbers = metrics(LABEL, PREDICTED, one_hot(PREDICTED), ("a", "b", "c"), majority=0)
    assert numbers["confusion"] == [[2, 1, 1], [0, 2, 0], [1, 0, 0]]
    assert numbers["accuracy"] == pytest.approx(4 / 7)
    assert numbers["weighted_f1"] == pytest.approx((4 * 4 / 7 + 2 * 4 / 5) / 7)
    assert numbers["macro_f1"] == pytest.approx((4 / 7 + 4 / 5 + 0) / 3)
    names = ("precision", "recall", "f1", "support", "mean_probability", "calibration_error")
    high, low = 0.9 + 0.1 / 3, 0.1 / 3
    by_hand = {  # the errors: a class is true in so many of the rows where its probability is high, and low
        "a": (2 / 3, 1 / 2, 4 / 7, 4, (3 * high + 4 * low) / 7, (3 * (high - 2 / 3) + 4 * (2 / 4 - low)) / 7),
        "b": (2 / 3, 1, 4 / 5, 2, (3 * high + 4 * low) / 7, (3 * (high - 2 / 3) + 4 * low) / 7),
        "c": (0, 0, 0, 1, (high + 6 * low) / 7, (high + 6 * (1 / 6 - low)) / 7),
    }
    for name, values in by_hand.items():
        assert numbers["per_class"][name] == pytest.approx(dict(zip(names, values, strict=True)), abs=1e-6)
    errors = [values[-1] for values in by_hand.values()]
    assert numbers["classwise_calibration_error"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert numbers["expected_calibration_error"] == pytest.approx(high - 4 / 7, abs=1e-6)
    assert numbers["log_loss"] == pytest.approx(-(4 * np.log(0.9 + 0.1 / 3) + 3 * np.log(0.1 / 3)) / 7, abs=1e-6)
    assert numbers["utterances"] == 7
    assert json.loads(json.dumps(numbers)) == numbers


def test_the_floor_predicts_the_majority_of_training():
    """All a: accuracy 4/7; F1 of a is 2*4/(4+7) = 8/11, weighted by 4/7."""
    numbers = metrics(LABEL, PREDICTED, one_hot(PREDICTED), ("a", "b", "c"), majority=0)["majority_floor"]
    assert numbers == pytest.approx({"label": "a", "accuracy": 4 / 7, "weighted_f1": 4 / 7 * 8 / 11})
    assert (
        metrics(LABEL, PREDICTED, one_hot(PREDICTED), ("a", "b", "c"), majority=2)["majority_floor"]["accuracy"]
        == 1 / 7
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_equal_those_of_scikit_learn(seed, weighted):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 6, 300)  # the seventh class never occurs
    probabilities = rng.dirichlet(np.ones(7), 300).astype(np.float32)
    weight = rng.uniform(0, 2, 300).astype(np.float32) if weighted else None
    predicted = probabilities.argmax(axis=1)
    numbers = metrics(label, predicted, probabilities, MELD_EMOTIONS, 0, weight)
    options = {"sample_weight": weight, "zero_division": 0}
    assert numbers["weighted_f1"] == pytest.approx(reference.f1_score(label, predicted, average="weighted", **options))
    assert numbers["macro_f1"] == pytest.approx(reference.f1_score(label, predicted, average="macro", **options))
    assert numbers["accuracy"] == pytest.approx(np.average(label == predicted, weights=weight))
    of_label = probabilities[np.arange(300), label].astype(float)
    assert numbers["log_loss"] == pytest.approx(np.average(-np.log(of_label), weights=weight), rel=1e-4)
    assert np.sum(numbers["confusion"]) == 300
    assert numbers["per_class"]["fear"]["support"] == 0
    assert sum(row["support"] for row in numbers["per_class"].values()) == pytest.approx(
        300 if weight is None else weight.sum(), rel=1e-5
    )


def test_predictions_need_not_be_the_most_probable_classes():
    """The answer is b both times, with 0.4, and right once; the most probable class, a, is right once as well."""
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4]])
    numbers = metrics(np.array([0, 1]), np.array([1, 1]), probabilities, ("a", "b"), 0)
    assert numbers["confusion"] == [[0, 1], [0, 1]] and numbers["accuracy"] == 0.5
    assert numbers["expected_calibration_error"] == pytest.approx(0.1)
    assert numbers["log_loss"] == pytest.approx(-np.log([0.6, 0.4]).mean())
    table = report.with_predictions(pd.DataFrame({"n": [1, 2]}), ("a", "b"), np.array([1, 0]), probabilities, 0.5)
    assert table["predicted"].tolist() == ["abstained", "a"] and table["p_a"].tolist() == [0.6, 0.6]


def test_equal_weights_change_nothing_and_zero_weights_exclude():
    label, predicted = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    assert weighted_f1(label, predicted, np.full(4, 3.0)) == pytest.approx(weighted_f1(label, predicted))
    assert weighted_f1(label, predicted, np.array([1.0, 1, 0, 0])) == 1


def test_all_correct_all_wrong_and_a_single_row():
    assert weighted_f1(LABEL, LABEL) == 1
    assert weighted_f1(LABEL, (LABEL + 1) % 3) == 0
    numbers = metrics(np.array([1]), np.array([1]), one_hot(np.array([1]), 2), ("no", "yes"), 0)
    assert numbers["weighted_f1"] == numbers["macro_f1"] == numbers["accuracy"] == 1
    assert numbers["majority_floor"]["weighted_f1"] == 0


def test_weights_that_are_all_zero_raise():
    """There is nothing to average, so there must not be a number."""
    with pytest.raises((UserError, ZeroDivisionError, ValueError)):
        metrics(LABEL, PREDICTED, one_hot(PREDICTED), ("a", "b", "c"), 0, np.zeros(7))


def test_metrics_json_keeps_other_splits(tmp_path):
    path = tmp_path / "metrics.json"
    report.write_metrics(path, "dev", {"accuracy": 0.5})
    report.write_metrics(path, "test", {"accuracy": 0.25})
    report.write_metrics(path, "dev", {"accuracy": 0.75})
    assert json.loads(path.read_text()) == {"dev": {"accuracy": 0.75}, "test": {"accuracy": 0.25}}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_predictions_csv(tmp_path):
    text = 'He said "no",\nthen 😀'
    rows = [{"dialogue_id": "007", "utterance": text, "label": i} for i in (1, 0)]
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    report.write_predictions(tmp_path / "p.csv", rows, ("no", "yes"), np.array([1, 0]), probabilities)
    read = pd.read_csv(tmp_path / "p.csv", dtype={"dialogue_id": str})
    assert read["dialogue_id"].tolist() == ["007"] * 2 and read["utterance"][0] == text
    assert read["emotion"].tolist() == ["yes", "no"] and read["predicted"].tolist() == ["yes", "no"]
    assert read[["p_no", "p_yes"]].to_numpy().tolist() == [[0.25, 0.75], [0.5, 0.5]]


def test_the_error_of_a_failed_write_names_the_cause(tmp_path):
    nowhere = tmp_path / "none" / "p.csv"
    with pytest.raises(UserError, match=r"Cannot write .*p\.csv: (?!None)"):
        report.write_predictions(nowhere, [{"utterance": "a"}], ("no", "yes"), np.array([0]), np.array([[1.0, 0.0]]))


def test_confusion_is_drawn(tmp_path):
    figures.plot_confusion(tmp_path / "c.png", [[3, 0], [0, 0]], ("no", "yes"), "a class without any utterance")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["c.png"]
    pixels = matplotlib.image.imread(tmp_path / "c.png")[..., :3]
    full = 1 - MAX_OPACITY * (1 - np.array(matplotlib.colors.to_rgb(FIRST)))  # the hue of the report, on white
    assert (np.abs(pixels - full) < 0.01).all(axis=-1).mean() > 0.05
    assert (pixels[..., 2] <= pixels[..., 1] + 0.01).all()  # nothing is blue


def test_the_table_on_the_terminal(capsys):
    numbers = metrics(LABEL, PREDICTED, one_hot(PREDICTED), ("a", "b", "c"), majority=0)
    report.print_table("run on test", numbers, {"both": 0.975})
    printed = capsys.readouterr().out
    for part in ("run on test", "0.5714", "always a", "best possible accuracy: both", "0.9750"):
        assert part in printed


def test_texts_in_pictures_are_no_formulas(tmp_path):
    """Matplotlib reads what stands between two dollar signs as a formula, and fails if it is none."""
    labels, probabilities = ("$\\bad$", "b$"), np.array([[0.9, 0.1], [0.2, 0.8]])
    figures.plot_confusion(tmp_path / "c.png", [[1, 0], [0, 1]], labels, "$\\run$")
    plot_timeline(
        tmp_path / "t.png", np.array([(0, 1), (1, 2)]), labels, np.array([0, 1]), probabilities, "$\\film$", 0.0
    )
    assert "image/svg" in charts.precision_recall(np.array([0, 1]), probabilities, labels, np.ones(2))


def test_the_timeline_says_what_its_shades_and_dots_mean(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **_: figures.append(figure))
    monkeypatch.setattr("emotion_tf.files.new_file", contextlib.nullcontext)
    spans, probabilities = np.array([(0, 1), (1, 2)]), np.array([[0.9, 0.1], [0.2, 0.8]])
    plot_timeline(tmp_path / "t.png", spans, ("a", "b"), np.array([0, 1]), probabilities, "film", 0.85)
    (legend,) = figures[0].legends
    assert legend.get_title().get_text() == "probability"
    assert [text.get_text() for text in legend.get_texts()][:3] == ["25 %", "50 %", "75 %"]
    assert legend.get_texts()[-1].get_text() == "predicted,\nabove the threshold"


def test_a_weight_counts_as_copies_in_a_precision_recall_chart():
    label, weight = np.array([0, 0, 1, 1, 0, 1]), np.array([2, 0, 1, 3, 1, 2])
    probabilities = np.linspace([0.9, 0.1], [0.3, 0.7], 6)
    copies = tuple(np.repeat(x, weight, axis=0) for x in (label, probabilities, np.ones(6)))
    with matplotlib.rc_context({"svg.hashsalt": "the same names of parts"}):
        weighted, copied = (
            charts.precision_recall(x, p, ("a", "b"), w) for x, p, w in ((label, probabilities, weight), copies)
        )
    assert weighted == copied


@pytest.mark.parametrize("weighted", [False, True])
def test_the_log_loss_is_that_of_scikit_learn(weighted):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3) / 4, 200).astype(np.float32)
    probabilities[0] = [0, 1, 0]
    label, weight = np.append(0, rng.integers(0, 3, 199)), rng.random(200) if weighted else None
    exact = probabilities.astype(np.float64) / probabilities.sum(axis=1, dtype=np.float64, keepdims=True)
    expected = reference.log_loss(label, exact, labels=range(3), sample_weight=weight)
    numbers = metrics(label, probabilities.argmax(axis=1), probabilities, ("a", "b", "c"), 0, weight)
    assert numbers["log_loss"] == pytest.approx(expected, rel=1e-6)
