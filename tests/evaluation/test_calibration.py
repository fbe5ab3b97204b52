"""Calibration error by hand and on simulations; temperatures that were planted; what is chosen, and by what alone."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from emotion_tf.errors import UserError
from emotion_tf.evaluation import calibration
from emotion_tf.evaluation.calibration import Calibration, Outputs, Temperatures, fit_temperature, fit_temperatures
from emotion_tf.evaluation.reliability import calibration_error, reliability
from emotion_tf.evaluation.selective import Threshold


def planted(count, temperature, seed=0, classes=5):
    """Labels that are drawn from softmax(z), and logits z times `temperature`: scaling by it is right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes))
    label = (rng.random((count, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return label, logits * temperature


def outputs(parts):
    """`Outputs` of (pattern, label, logits) one behind the other."""
    label = np.concatenate([label for _, label, _ in parts])
    pattern = np.concatenate([np.full(len(label), pattern) for pattern, label, _ in parts])
    return Outputs(np.concatenate([logits for *_, logits in parts]), label, np.ones(len(label)), pattern)


def test_calibration_error_by_hand():
    """Bins of a quarter: two of 0.5 to 0.75 (0.6 right, 0.7 wrong), two above (0.9 right, 0.8 right)."""
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]])
    label = np.array([0, 1, 1, 1])
    low, high = reliability(label, probabilities, bins=4)
    assert low == pytest.approx((0.5, 0.75, 2, 0.65, 0.5)) and high == pytest.approx((0.75, 1, 2, 0.85, 1))
    assert calibration_error(label, probabilities, bins=4) == pytest.approx((2 * 0.15 + 2 * 0.15) / 4)
    weight = np.array([1.0, 1, 6, 2])
    assert calibration_error(label, probabilities, weight, bins=4) == pytest.approx((2 * 0.15 + 8 * 0.125) / 10)


def test_certainty_and_its_edges():
    sure = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert [(b.low, b.high) for b in reliability(np.array([0, 0]), sure, bins=2)] == [(0, 0.5), (0.5, 1)]
    assert calibration_error(np.array([0]), sure[:1]) == 0 and calibration_error(np.array([1]), sure[:1]) == 1


def test_a_calibrated_simulation_has_almost_no_error_and_a_sharpened_one_has():
    label, logits = planted(40_000, 1.0)
    assert calibration_error(label, softmax(logits, axis=1)) < 0.01
    assert calibration_error(label, softmax(3 * logits, axis=1)) > 0.1


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found(temperature):
    label, logits = planted(20_000, temperature)
    assert fit_temperature(label, logits) == pytest.approx(temperature, rel=0.03)
    twice = np.concatenate([label, label]), np.concatenate([logits, 9 * logits])
    weight = np.repeat([1.0, 0.0], len(label))  # what weighs nothing is as if it were not there
    assert fit_temperature(*twice, weight) == pytest.approx(fit_temperature(label, logits), rel=1e-4)


def test_no_other_temperature_has_less_cross_entropy():
    label, logits = planted(500, 1.7, seed=3)
    found = fit_temperature(label, logits)

    def loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(500), label].mean()

    grid = [loss(t) for t in np.geomspace(0.05, 20, 400)]
    assert loss(found) <= min(grid) + 1e-6


def test_each_pattern_has_its_own_temperature_and_the_rare_one_that_of_all():
    dev = outputs([(3, *planted(8000, 3.0)), (1, *planted(8000, 0.5, 1)), (2, *planted(99, 0.5, 2))])
    found = fit_temperatures(dev)
    assert found.own == pytest.approx({"text and face": 3.0, "text only": 0.5}, rel=0.05)
    assert found.pooled == pytest.approx(fit_temperature(dev.label, dev.logits))
    assert found.values.tolist() == pytest.approx([found.pooled, found.own["text only"], found.pooled, 3.0], rel=0.05)
    assert found.fitted_on["face only"][0] == 99 and found.fitted_on["all"][0] == 16_099
    after = found.probabilities(dev.logits, dev.pattern)
    np.testing.assert_allclose(after[0], softmax(dev.logits[0] / found.own["text and face"]), rtol=1e-5)
    assert (after.argmax(axis=1) == dev.logits.argmax(axis=1)).all()
    assert calibration_error(dev.label, after) < 0.02 < calibration_error(dev.label, softmax(dev.logits, axis=1))


def test_where_almost_nothing_is_wrong_no_temperature_is_fitted():
    """The likelihood of what is all right is best at temperature 0."""
    logits = np.eye(3)[np.arange(300) % 3] * 4
    dev = Outputs(logits, np.arange(300) % 3, np.ones(300), np.full(300, 3))
    assert fit_temperatures(dev).values.tolist() == [1, 1, 1, 1]
    few = Outputs(*(column[:50] for column in outputs([(3, *planted(50, 2.0))])))
    assert fit_temperatures(few).values.tolist() == [1, 1, 1, 1]


def test_what_chooses_is_given_one_split():
    """Structure, not good will: no function that selects has a place for a second split."""
    assert list(inspect.signature(calibration.fit_calibration).parameters) == ["dev"]
    assert list(inspect.signature(fit_temperatures).parameters) == ["dev"]
    dev = outputs([(3, *planted(2000, 2.0))])
    found = calibration.fit_calibration(dev)
    assert found.utterances == 2000 and found.temperatures.pooled == pytest.approx(2.0, rel=0.1)
    calibrated = found.temperatures.probabilities(dev.logits, dev.pattern)
    for one in found.thresholds:
        kept = calibrated.max(axis=1) >= one.threshold
        assert np.mean(calibrated.argmax(axis=1)[kept] == dev.label[kept]) == pytest.approx(one.precision)
        assert one.precision >= one.wanted and kept.mean() == pytest.approx(one.coverage)


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    assert calibration.read_calibration(tmp_path) == Calibration()
    made = calibration.fit_calibration(outputs([(3, *planted(400, 2.0)), (1, *planted(30, 2.0))]))
    calibration.write_calibration(tmp_path, made)
    assert calibration.read_calibration(tmp_path) == made and made.thresholds
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    assert isinstance(calibration.read_calibration(tmp_path).thresholds[0], Threshold)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: "{",
        lambda values: "[]",
        lambda values: json.dumps({**values, "thresholds": [{"wanted": 1}]}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "pooled": 0}}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "own": {"texts": 1.0}}}),
        lambda values: json.dumps({**values, "temperatures": {**values["temperatures"], "pooled": "NaN"}}),
    ],
)
def test_a_damaged_calibration_is_one_line(change, tmp_path):
    calibration.write_calibration(tmp_path, Calibration(calibration.NONE, (), 10))
    path = tmp_path / "calibration.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UserError, match=r"Cannot read .*calibration\.json.*Remove it"):
        calibration.read_calibration(tmp_path)


def test_tensors_are_scaled_as_arrays_are():
    import tensorflow as tf

    temperatures = Temperatures(3.0, {"text only": 2.0, "text and face": 0.5}, {})
    logits, pattern = planted(8, 1.0)[1].astype(np.float32), np.arange(8) % 4
    scaled = temperatures.scale(tf.constant(logits), tf.constant(pattern), tf.gather)
    np.testing.assert_array_equal(scaled, temperatures.scale(logits, pattern))
    np.testing.assert_array_equal(scaled, logits / np.float32([3, 2, 3, 0.5])[pattern][:, None])
