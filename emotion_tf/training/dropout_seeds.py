"""Seeds of dropout, which differ between replicas: each drops other units."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from emotion_tf.models.devices import this_replica
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.training.replicas import this_host

STRIDE = 7919
"""Difference between the seeds of two replicas."""


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A seed generator whose seeds differ by replica. Its state is the same on all, as a checkpoint needs it."""

    def next(self, ordered: bool = True) -> Any:
        """Returns the next seed of the replica that is being traced, integers (2,)."""
        seed = super().next(ordered)
        if tf.distribute.get_replica_context() is None:
            return seed
        return seed + tf.constant([this_replica() * STRIDE, 0], seed.dtype)


def separate_seeds(network: keras.Model) -> None:
    """Lets the layers of a network draw other seeds on each replica; changes nothing if there is one replica.

    It changes the generators in place, since the layers have created them.
    """
    if this_host().replicas == 1:
        return
    for layer in network._flatten_layers():
        for generator in layer._seed_generators:
            if type(generator) is keras.random.SeedGenerator:
                generator.__class__ = ReplicaSeedGenerator


def reseed_encoders(model: TwoTower, seed: int) -> None:
    """Seeds the dropout inside TF-Hub encoders, whose state may have been copied from another run with the weights."""
    host = this_host()
    for tower in model.towers.values():
        for encoder in tower.layers_of(HubEncoder):
            encoder.reseed(seed, host.index * host.devices)
