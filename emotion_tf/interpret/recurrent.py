"""Recurrent branches outside of a graph, where each step of a GRU is some twenty operations that start one by one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from emotion_tf.models.word_branches import RecurrentBranch

EAGER_STEPS = 100
"""Number of steps that take about as long as tracing the branch and its gradient: a few short utterances."""


class LazyGraph:
    """Calls a recurrent branch in inference mode: step by step at first, as a graph after `EAGER_STEPS`.

    Both return the same numbers. One explanation of a short utterance would not repay the tracing; a page or a data set
    does.

    Args:
        branch: the branch.
    """

    def __init__(self, branch: RecurrentBranch) -> None:
        self.branch, self._call = branch, branch.call
        self._steps = 0
        self._graph: Any = None

    def __call__(self, inputs: list[tf.Tensor]) -> Any:
        """Returns the outputs of the branch for its inputs, embedded words (B, W, E) and mask (B, W)."""
        embedded, mask = inputs
        if self._graph is None and self._steps >= EAGER_STEPS:
            self._graph = tf.function(
                lambda embedded, mask: self._call([embedded, mask], training=False),
                input_signature=[
                    tf.TensorSpec((None, None, embedded.shape[-1]), embedded.dtype),
                    tf.TensorSpec((None, None), mask.dtype),
                ],
                autograph=False,
            )
        if self._graph is not None:
            return self._graph(embedded, mask)
        self._steps += int(embedded.shape[1])
        return self._call(inputs, training=False)
