"""Temperatures and thresholds: planted temperatures are recovered; the file and its damage."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from emotion_tf.errors import UserError
from emotion_tf.evaluation import calibration
from emotion_tf.evaluation.calibration import Calibration, Outputs, Temperatures, fit_temperatures
from emotion_tf.evaluation.class_bias import fit_biases, select_biases
from emotion_tf.evaluation.reliability import calibration_error, class_calibration_errors, confidence_of
from emotion_tf.evaluation.selective import PRECISIONS, Threshold
from emotion_tf.evaluation.temperature import fit_temperature


def planted(count, temperature, seed=0, classes=5):
    """Labels drawn from softmax(z), and logits z * temperature, which this temperature calibrates."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes))
    label = (rng.random((count, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return label, logits * temperature


def outputs(parts):
    """Concatenates (pattern, label, logits) into `Outputs`."""
    label = np.concatenate([label for _, label, _ in parts])
    pattern = np.concatenate([np.full(len(label), pattern) for pattern, label, _ in parts])
    return Outputs(np.concatenate([logits for *_, logits in parts]), label, np.ones(len(label)), pattern)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_recovered(temperature):
    label, logits = planted(20_000, temperature)
    assert fit_temperature(label, logits) == pytest.approx(temperature, rel=0.03)
    twice = np.concatenate([label, label]), np.concatenate([logits, 9 * logits])
    weight = np.repeat([1.0, 0.0], len(label))  # rows of weight 0 do not count
    assert fit_temperature(*twice, weight) == pytest.approx(fit_temperature(label, logits), rel=1e-4)


def test_no_other_temperature_has_less_cross_entropy():
    label, logits = planted(500, 1.7, seed=3)
    fitted = fit_temperature(label, logits)

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(500), label].mean()

    grid = [loss(t) for t in np.geomspace(0.05, 20, 400)]
    assert loss(fitted) <= min(grid) + 1e-6


def test_frequent_patterns_have_their_own_temperature_and_rare_ones_the_pooled():
    dev = outputs([(3, *planted(8000, 3.0)), (1, *planted(8000, 0.5, 1)), (2, *planted(99, 0.5, 2))])
    fitted = fit_temperatures(dev)
    assert fitted.own == pytest.approx({"text and face": 3.0, "text only": 0.5}, rel=0.05)
    assert fitted.pooled == pytest.approx(fit_temperature(dev.label, dev.logits))
    assert fitted.values.tolist() == pytest.approx(
        [fitted.pooled, fitted.own["text only"], fitted.pooled, 3.0], rel=0.05
    )
    assert fitted.fitted_on["face only"][0] == 99 and fitted.fitted_on["all"][0] == 16_099
    after = fitted.probabilities(dev.logits, dev.pattern)
    np.testing.assert_allclose(after[0], softmax(dev.logits[0] / fitted.own["text and face"]), rtol=1e-5)
    assert (after.argmax(axis=1) == dev.logits.argmax(axis=1)).all()
    errors = [
        calibration_error(dev.predicted == dev.label, confidence_of(p, dev.predicted))
        for p in (after, softmax(dev.logits, axis=1))
    ]
    assert errors[0] < 0.02 < errors[1]


def test_no_temperature_is_fitted_with_too_few_errors():
    """Without any error the likelihood is highest at temperature 0."""
    logits = np.eye(3)[np.arange(300) % 3] * 4
    dev = Outputs(logits, np.arange(300) % 3, np.ones(300), np.full(300, 3))
    assert fit_temperatures(dev).values.tolist() == [1, 1, 1, 1]
    few = Outputs(*(column[:50] for column in outputs([(3, *planted(50, 2.0))])))
    assert fit_temperatures(few).values.tolist() == [1, 1, 1, 1]


def test_fitting_takes_one_split():
    """No function that fits has a parameter for a second split."""
    names = ["dev", "dialogue", "shift", "has_class_weights"]
    assert list(inspect.signature(calibration.fit_calibration).parameters) == names
    assert list(inspect.signature(fit_temperatures).parameters) == ["dev", "biases"]
    dev = outputs([(3, *planted(2000, 2.0))])
    fitted = calibration.fit_calibration(dev, np.arange(2000) // 8)
    assert (fitted.utterances, fitted.dialogues) == (2000, 250) and fitted.temperatures.pooled == pytest.approx(
        2.0, rel=0.1
    )
    calibrated = fitted.temperatures.probabilities(dev.logits, dev.pattern)
    assert [row.target for row in fitted.thresholds] == list(PRECISIONS)
    promised = [row for row in fitted.thresholds if row.threshold is not None]
    assert 0 < len(promised) < len(PRECISIONS) and promised[0].threshold == 0
    for row in promised:
        answered = calibrated.max(axis=1) >= row.threshold
        assert np.mean(calibrated.argmax(axis=1)[answered] == dev.label[answered]) == pytest.approx(row.precision)
        assert row.precision > row.target and answered.mean() == pytest.approx(row.coverage)


def test_fractional_weights_void_the_promise_and_rows_of_weight_0_do_not_count():
    dev, dialogue = outputs([(3, *planted(600, 2.0))]), np.arange(600) // 8
    assert calibration.fit_calibration(dev, dialogue).unpromised.endswith(
        "cannot be promised with 600 validation utterances in 75 dialogues."
    )
    half = calibration.fit_calibration(dev._replace(weight=np.full(600, 0.5)), dialogue)
    assert half.thresholds == () and "weights other than 0 and 1" in half.unpromised
    first = calibration.fit_calibration(dev._replace(weight=(np.arange(600) < 400).astype(float)), dialogue)
    assert (first.utterances, first.dialogues) == (400, 50)
    assert "has no thresholds" in Calibration().unpromised
    assert first == calibration.fit_calibration(Outputs(*(column[:400] for column in dev)), dialogue[:400])
    few = calibration.fit_calibration(dev._replace(weight=(np.arange(600) < 99).astype(float)), dialogue)
    assert few.utterances == few.temperatures.fitted_on["all"][0] == 99 and few.temperatures.own == {}  # too few
    none = calibration.fit_calibration(dev._replace(weight=np.zeros(600)), dialogue, has_class_weights=True)
    assert none == Calibration() and "has no thresholds" in none.unpromised


@pytest.mark.parametrize(
    "targets, sentence",
    [((), ""), ((0.9,), "A precision of 0.9 cannot"), ((0.8, 0.9, 0.95), "A precision of 0.8, 0.9 and 0.95 cannot")],
)
def test_precisions_that_cannot_be_promised_in_words(targets, sentence):
    rows = (Threshold(0.6, 0.0, 1.0, 0.7), *(Threshold(target) for target in targets))
    words = Calibration(thresholds=rows, utterances=1109, dialogues=114).unpromised
    assert words == (f"{sentence} be promised with 1,109 validation utterances in 114 dialogues." if targets else "")


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    assert calibration.read_calibration(tmp_path) == Calibration()
    dev = outputs([(3, *planted(400, 2.0)), (1, *planted(30, 2.0))])
    fitted = calibration.fit_calibration(dev, np.arange(430) // 5)
    calibration.write_calibration(tmp_path, fitted)
    assert calibration.read_calibration(tmp_path) == fitted and fitted.thresholds
    rows = json.loads((tmp_path / "calibration.json").read_text())["thresholds"]
    assert rows[-1] == {"target": 0.99, "threshold": None, "coverage": 0.0, "precision": None}
    biased = calibration.fit_calibration(dev, np.arange(430) // 5, np.float32([0.1, -0.2, 0, 0, 0.3]))
    calibration.write_calibration(tmp_path, biased)
    assert calibration.read_calibration(tmp_path) == biased and len(biased.temperatures.biases) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    assert isinstance(calibration.read_calibration(tmp_path).thresholds[0], Threshold)


def row(**values):
    """A threshold as JSON, with other values."""
    return {**Threshold(0.8, 0.5, 0.4, 0.9)._asdict(), **values}


@pytest.mark.parametrize(
    "change",
    [
        lambda values: "{",
        lambda values: "[]",
        lambda values: json.dumps({**values, "thresholds": [{"target": 1}]}),
        lambda values: json.dumps({**values, "thresholds": [[0.9, 0.5, 0.4, 0.95]]}),
        lambda values: json.dumps({**values, "utterances": -3}),
        lambda values: json.dumps({**values, "dialogues": 11}),
        lambda values: json.dumps({**values, "thresholds": [row(), row()]}),
        lambda values: json.dumps({**values, "thresholds": [row(threshold=float("nan"))]}),
        lambda values: json.dumps({**values, "thresholds": [row(threshold=1.5)]}),
        lambda values: json.dumps({**values, "thresholds": [row(precision=None)]}),
        lambda values: json.dumps({**values, "thresholds": [row(threshold=None)]}),
        lambda values: json.dumps({**values, "thresholds": [row(coverage=None)]}),
        lambda values: json.dumps({**values, "thresholds": [row(target=float("inf"))]}),
        lambda values: json.dumps({name: value for name, value in values.items() if name != "confidence"}),
        lambda values: json.dumps({**values, "confidence": 0.5}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "pooled": 0}}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "own": {"texts": 1.0}}}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "pooled": "NaN"}}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "biases": ["NaN"]}}),
    ],
)
def test_a_damaged_calibration_is_one_line(change, tmp_path):
    calibration.write_calibration(tmp_path, Calibration(calibration.NONE, (), 10))
    path = tmp_path / "calibration.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UserError, match=r"calibration\.json: .*Remove the file"):
        calibration.read_calibration(tmp_path)


def test_thresholds_without_a_promise_are_not_read_as_one(tmp_path):
    """A file that does not state its confidence may have thresholds that only reached the precision on dev."""
    calibration.write_calibration(tmp_path, Calibration(thresholds=(Threshold(0.8, 0.5, 0.4, 0.9),), utterances=9))
    assert calibration.read_calibration(tmp_path).thresholds
    path = tmp_path / "calibration.json"
    values = json.loads(path.read_text())
    assert values.pop("confidence") == 0.9
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"No `confidence`.*Remove the file and run `evaluate --report`"):
        calibration.read_calibration(tmp_path)


def test_tensors_are_scaled_as_arrays_are():
    import tensorflow as tf

    temperatures = Temperatures(3.0, {"text only": 2.0, "text and face": 0.5}, {}, (0.5, 0, 0, -2.0, 1.0))
    logits, pattern = planted(8, 1.0)[1].astype(np.float32), np.arange(8) % 4
    scaled = temperatures.scale(tf.constant(logits), tf.constant(pattern), tf.gather)
    np.testing.assert_array_equal(scaled, temperatures.scale(logits, pattern))
    biased = logits + np.float32(temperatures.biases)
    np.testing.assert_array_equal(scaled, biased / np.float32([3, 2, 3, 0.5])[pattern][:, None])
    without = Temperatures(3.0, {"text only": 2.0, "text and face": 0.5}, {})
    np.testing.assert_array_equal(without.scale(logits, pattern), logits / np.float32([3, 2, 3, 0.5])[pattern][:, None])


PRIOR = np.array([0.47, 0.17, 0.12, 0.11, 0.08, 0.031, 0.019])
"""About the shares of the emotions in MELD; disgust has 0.031."""


def favoured(count, seed, tau=1.0, temperature=1.5):
    """Labels, and logits of a model whose training favoured rare classes by tau * log(frequency).

    x ~ N(1.2 * one_hot(label), 1), so that log p(label | x) is log prior + 1.2 * x, plus a constant. The model is too
    sure, by the factor `temperature`, and tau * log(frequency) is missing, which logit adjustment added in the loss.
    Class weights of 1 / frequency change a well-fitted model in the same way.
    """
    rng = np.random.default_rng(seed)
    label = rng.choice(len(PRIOR), count, p=PRIOR)
    evidence = rng.normal(0, 1, (count, len(PRIOR))) + 1.2 * np.eye(len(PRIOR))[label]
    posterior = log_softmax(np.log(PRIOR) + 1.2 * evidence, axis=1)
    logits = temperature * posterior - tau * np.log(PRIOR)
    return Outputs(logits.astype(np.float32), label, np.ones(count), np.full(count, 3))


def dialogues(count):
    return np.arange(count) // 9


def classwise(split, probabilities):
    return class_calibration_errors(split.label, probabilities).mean()


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logit_adjustment_has_a_closed_form(tau):
    """The share of each class is restored, and of the 100,000 predictions none changes."""
    dev, test = favoured(1109, 0, tau), favoured(100_000, 1, tau)
    shift = (tau * np.log(PRIOR)).astype(np.float32)
    fitted = calibration.fit_calibration(dev, dialogues(1109), shift).temperatures
    assert fitted.biases == pytest.approx(shift.tolist()) and fitted.pooled == pytest.approx(1.5, rel=0.1)
    probabilities = fitted.probabilities(test.logits, test.pattern)
    np.testing.assert_allclose(probabilities.mean(axis=0), PRIOR, atol=0.006)
    without = fit_temperatures(dev).probabilities(test.logits, test.pattern)
    assert without.mean(axis=0)[5] > 1.4 * PRIOR[5]
    assert classwise(test, probabilities) < 0.006 < 0.02 < classwise(test, without)
    correct, confidence = test.predicted == test.label, confidence_of(probabilities, test.predicted)
    assert (
        calibration_error(correct, confidence) < 0.02
    )  # of the answers, which are not always the most probable classes
    assert (probabilities.argmax(axis=1) != test.predicted).mean() > 0.05


def test_class_weights_have_fitted_biases():
    dev, test = favoured(1109, 0), favoured(100_000, 1)
    fitted = calibration.fit_calibration(dev, dialogues(1109), has_class_weights=True).temperatures
    assert np.ptp(np.subtract(fitted.biases, np.log(PRIOR))) < 0.7  # about those of the closed form
    probabilities = fitted.probabilities(test.logits, test.pattern)
    np.testing.assert_allclose(probabilities.mean(axis=0), PRIOR, atol=0.03)
    assert probabilities.mean(axis=0)[5] == pytest.approx(PRIOR[5], abs=0.01)
    without = fit_temperatures(dev).probabilities(test.logits, test.pattern)
    assert classwise(test, probabilities) < 0.012 < 0.04 < classwise(test, without)
    few, dialogue = Outputs(*(column[:99] for column in dev)), dialogues(99)
    assert calibration.fit_calibration(few, dialogue, has_class_weights=True).temperatures.biases == ()
    one = np.zeros(1109)  # dialogue: nothing to cross-validate
    assert calibration.fit_calibration(dev, one, has_class_weights=True).temperatures.biases == ()


def test_biases_that_do_not_help_are_left_out():
    """Class weights that changed nothing: of 6 validation splits most keep the temperature alone."""
    kept = [
        select_biases(*favoured(400, seed, tau=0.0)[1::-1], np.ones(400), dialogues(400)).any() for seed in range(6)
    ]
    assert sum(kept) <= 2


def test_biases_minimise_the_penalised_cross_entropy():
    """The gradient at the minimum, by finite differences, is 0."""
    label, logits, weight = *favoured(300, 2)[1::-1], np.random.default_rng(0).uniform(0, 2, 300)
    temperature, biases = fit_biases(label, logits, weight, 0.01)

    def loss(temperature, biases):
        logs = log_softmax((logits + biases) / temperature, axis=1)[np.arange(300), label]
        return -np.average(logs, weights=weight) + 0.005 * biases @ biases

    step = 1e-4
    for direction in np.eye(7) * step:
        assert loss(temperature, biases + direction) == pytest.approx(loss(temperature, biases - direction), abs=1e-8)
    assert loss(temperature + step, biases) == pytest.approx(loss(temperature - step, biases), abs=1e-8)
    assert biases.mean() == pytest.approx(0, abs=1e-6)
