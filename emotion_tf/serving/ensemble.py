"""An ensemble, ready for raw inputs: its members' own functions of raw inputs, and their vote, in one graph."""

from __future__ import annotations

import tensorflow as tf

from emotion_tf.evaluation.votes import FLOOR, Vote
from emotion_tf.serving.predict import Predictor, RawFunction
from emotion_tf.training.ensemble import EnsembleFolder
from emotion_tf.training.run_folder import RunFolder


def predictor_of(run: RunFolder | EnsembleFolder) -> Predictor:
    """A run or an ensemble, ready for raw inputs."""
    return EnsemblePredictor(run) if isinstance(run, EnsembleFolder) else Predictor(run)


class EnsemblePredictor(Predictor):
    """All members of an ensemble, asked together."""

    def __init__(self, run: EnsembleFolder) -> None:
        self.run = run
        self.members = [Predictor(member) for member in run.members]
        # of the lines said before, each member reads as many as it was trained on
        self.context = max(member.context for member in self.members)
        self.speaker = any(member.speaker for member in self.members)
        resources = [resource for member in self.members for resource in member.resources]
        self._serve(voting(run.vote, [member.raw for member in self.members]), resources)


def voting(vote: Vote, functions: list[RawFunction]) -> RawFunction:
    """The vote of functions of the same raw inputs."""

    def probabilities(utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> tf.Tensor:
        return combine(vote, tf.stack([raw(utterance, context, face_jpeg) for raw in functions]))

    return probabilities


def combine(vote: Vote, probabilities: tf.Tensor) -> tf.Tensor:
    """`Vote.combine` in the graph: float32 (M, B, C) -> (B, C)."""
    if vote.weights is not None:
        return tf.tensordot(tf.constant(vote.weights, tf.float32), probabilities, 1)
    coefficients, bias = tf.constant(vote.coefficients, tf.float32), tf.constant(vote.bias, tf.float32)
    return tf.nn.softmax(tf.einsum("mbc,mck->bk", tf.math.log(tf.maximum(probabilities, FLOOR)), coefficients) + bias)
