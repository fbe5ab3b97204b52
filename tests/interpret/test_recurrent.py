"""A recurrent branch step by step and as a graph."""

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.interpret import recurrent
from emotion_tf.models.word_branches import RecurrentBranch


def test_a_graph_takes_over_with_the_same_outputs_and_gradients(monkeypatch):
    monkeypatch.setattr(recurrent, "EAGER_STEPS", 4)
    branch, rng = RecurrentBranch("gru", 3), np.random.default_rng(0)
    embedded = tf.constant(rng.normal(size=(2, 4, 5)), tf.float32)
    mask = tf.constant([[True] * 4, [True, True, False, False]])
    branch([embedded, mask])
    lazy, results = recurrent.LazyGraph(branch), []
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(embedded)
            outputs = lazy([embedded, mask])
        results.append([*outputs, tape.gradient(outputs, embedded)])
    assert lazy._graph is not None
    for step_by_step, as_graph in zip(*results, strict=True):
        np.testing.assert_allclose(as_graph, step_by_step, atol=1e-6)
    shorter = [embedded[:1, :2], mask[:1, :2]]
    with monkeypatch.context() as patch:
        patch.setattr(branch, "call", pytest.fail)  # traced once, for all lengths
        np.testing.assert_allclose(lazy(shorter)[0], RecurrentBranch.call(branch, shorter)[0], atol=1e-6)
