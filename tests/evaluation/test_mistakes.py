"""The most confident mistakes and their explanations."""

import numpy as np

from emotion_tf.evaluation.mistakes import Explanation, worst_mistakes


def test_worst_mistakes_are_the_most_confident():
    confidence, correct = np.array([0.9, 0.6, 0.8, 0.7, 0.9]), np.array([False, False, False, True, True])
    weight = np.ones(5)
    assert worst_mistakes(correct, confidence, weight) == [0, 2, 1]
    assert worst_mistakes(correct, confidence, weight, 2) == [0, 2]
    assert worst_mistakes(correct, confidence, np.array([0, 1, 0.5, 1, 1])) == [2, 1]
    assert Explanation([("a", -2.0), ("b", 1.0)]).shades == [("a", -1), ("b", 0.5)]
    assert Explanation([("a", 0.0)]).shades == [("a", 0)]
