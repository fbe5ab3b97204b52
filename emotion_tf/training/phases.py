"""The phases of a training run: consecutive epochs that train the same variables with one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.data import pipeline
from emotion_tf.data.augment import augment_faces
from emotion_tf.data.batches import Batches
from emotion_tf.data.cached_features import CachedFeatures
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.service import ServiceBatches, service_batches
from emotion_tf.evaluation.calibration import Outputs
from emotion_tf.features.boundary import FrozenPart, connect_rest, frozen_parts, rest_inputs
from emotion_tf.features.cache import FeatureCache
from emotion_tf.progress import track
from emotion_tf.training.auxiliary import training_network
from emotion_tf.training.average import Pair
from emotion_tf.training.checkpoint import Checkpoints
from emotion_tf.training.optimizers import build_optimizer
from emotion_tf.training.outputs import Infer, collect_outputs, inference, input_spec, join_hosts
from emotion_tf.training.precision import choose_xla
from emotion_tf.training.replicas import all_hosts, batches_for_all, of_first_replica, rows_of_replica, this_host
from emotion_tf.training.schedules import WarmupSchedule
from emotion_tf.training.setup import Setup, parameter_line
from emotion_tf.training.step import Sums, Update, zero_sums


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `end` - 1, in which pretrained layers are frozen or train."""

    first: int
    end: int
    frozen: bool


def phases(setup: Setup) -> tuple[Phase, ...]:
    """Returns the phases of a training run: the first `--train.freeze-epochs` epochs freeze pretrained layers.

    A new phase has a new optimizer and schedule, so there is one only if other variables train from then on.
    """
    train = setup.config.train
    frozen = min(train.freeze_epochs, train.epochs) if _has_effect(setup) else 0
    candidates = (Phase(0, frozen, True), Phase(frozen, train.epochs, False))
    return tuple(phase for phase in candidates if phase.first < phase.end)


def _has_effect(setup: Setup) -> bool:
    """Whether freezing the pretrained layers changes which variables train. Leaves these layers trainable."""
    layers = list(setup.model.pretrained)
    for layer in layers:
        layer.set_trainable(True)
    return any(layer.layer.trainable_variables for layer in layers)


@dataclass(frozen=True)
class Stage:
    """A phase, ready to train.

    Attributes:
        setup: set-up of the training run.
        network: the network that trains: the whole one, or its part that reads cached features of frozen trunks.
        optimizer: optimizer of this phase.
        update: applies a batch to the weights. Takes the sums of the epoch so far, returns those with the batch.
        infer: function from the inputs of the network to the outputs of the model.
        preprocess: computes the inputs that are read from records.
        train, dev: cached features of frozen trunks; None: the trunks run.
        average: the weights that the phase changes, with their means.
        base: first epoch of the phase, if its checkpoints hold only the variables in `trained`.
        trained: `id` of the variables in its checkpoints; None: all.
    """

    setup: Setup
    network: keras.Model
    optimizer: keras.Optimizer
    update: Callable[..., Sums] = field(repr=False)
    infer: Infer
    preprocess: Preprocessor
    train: CachedFeatures | None
    dev: CachedFeatures | None
    average: list[Pair]
    base: int | None
    trained: set[int] | None

    def train_batches(self, epoch: int) -> Iterable[Any]:
        """Returns the batches of one epoch: inputs, labels and weights, in the order of (seed, epoch)."""
        order = pipeline.EpochOrder(self.setup.config.train.seed, epoch)
        batches = self._epochs(order)
        if this_host().count == 1:
            return batches.take(self.setup.steps)
        return batches_for_all(batches, self.setup.steps, input_spec(self.network))

    @cached_property
    def _epochs(self) -> Callable[[pipeline.EpochOrder], Batches | ServiceBatches]:
        setup, face = self.setup, self.setup.config.face
        augment = partial(augment_faces, erase=face.erase) if face.augment else None
        if setup.data.service and self.train is None:
            return service_batches(setup.data.train, self.preprocess, setup.update_rows, augment, setup.data.service)
        return pipeline.train_batches(
            setup.data.train, self.preprocess, setup.update_rows, augment, self.train, this_host().share
        )

    @cached_property
    def dev_batches(self) -> Batches:
        """The batches of this host's share of dev, of similar length; their pipeline is traced once for all epochs."""
        size = 2 * self.setup.config.train.batch_size
        dev, share = self.setup.data.dev, this_host().share
        if share.hosts > 1:
            positions = pipeline.Examples(self.preprocess, self.dev).positions(dev)
            begin, end = share.bounds(len(positions))
            dev = dev.select(positions[begin:end])
        return pipeline.sorted_batches(dev, self.preprocess, size, self.dev)


def begin_phase(setup: Setup, phase: Phase, checkpoints: Checkpoints) -> Stage:
    """Freezes or unfreezes the pretrained layers, and builds network, optimizer and update of a phase.

    With cached features it writes the base of the phase, the only checkpoint that contains the frozen networks.
    """
    train, model = setup.config.train, setup.model
    for layer in model.pretrained:
        layer.set_trainable(not phase.frozen)
    if phase.frozen or phase.first:
        state = "frozen" if phase.frozen else "trained"
        setup.say(f"Pretrained branches {state} from epoch {phase.first + 1}: {parameter_line(model)}")
    cache = _feature_cache(setup, phase)
    network = setup.network if cache is None else _rest_network(setup, cache.parts)
    rates = [pair for layer in model.pretrained for pair in layer.learning_rates(train.pretrained_rate)]
    steps = (phase.end - phase.first) * setup.steps
    schedule = WarmupSchedule(train.schedule, train.learning_rate, int(train.warmup * steps), steps)
    optimizer = build_optimizer(train, network.trainable_variables, rates, schedule)
    average = setup.average.pairs_of(network.weights) if setup.average else []
    part_size = setup.part_rows if train.accumulate > 1 else None
    parts = train.accumulate if part_size and this_host().replicas > 1 else None
    first_step = phase.first * setup.steps
    update = Update(
        network, setup.objective, optimizer, train.clip_norm, part_size, average, train.ema, first_step, parts
    )
    # XLA does not compile reductions over replicas
    xla = this_host().replicas == 1 and choose_xla(setup.config, network, setup.data.spec.max_faces)
    preprocess, features = setup.preprocess, []
    if cache is not None:
        checkpoints.save_base(phase.first)
        preprocess = preprocess.for_inputs(
            name for name in network.input if name in model.input and name not in cache.columns
        )
        features = [cache.read(rows, setup.data.shards(rows)) for rows in (setup.data.train, setup.data.dev)]
    return Stage(
        setup=setup,
        network=network,
        optimizer=optimizer,
        update=compile_update(update, xla),
        infer=setup.infer if cache is None else inference(network),
        preprocess=preprocess,
        train=features[0] if features else None,
        dev=features[1] if features else None,
        average=average,
        base=phase.first if features else None,
        trained={id(v) for v in (*network.variables, *(mean for mean, _ in average))} if features else None,
    )


def collect_dev(stage: Stage) -> Outputs:
    """Returns the outputs on dev, in the order of the records. Each host computes its share; all have the result."""
    host = this_host()
    if host.count == 1:
        return collect_outputs(stage.infer, track(stage.dev_batches, None, "validating on dev", "batches"))
    rows = len(pipeline.Examples(stage.preprocess, stage.dev).positions(stage.setup.data.dev))
    own = collect_outputs(stage.infer, stage.dev_batches) if host.share.size(rows) else None
    return join_hosts(own, rows, len(stage.setup.data.spec.labels))


def compile_update(update: Update, xla: bool = False) -> Callable[..., Sums]:
    """Returns the update as a graph that also adds up the sums: eager additions take longer than a small update.

    With `xla`, XLA compiles it; see `choose_xla`.
    """
    strategy = tf.distribute.get_strategy()

    def run(sums: Sums, *batch: Any) -> Sums:
        of_batch = of_first_replica(strategy.run(lambda: update(rows_of_replica(batch))))
        return tf.nest.map_structure(tf.add, sums, of_batch)

    sums_spec = tf.nest.map_structure(tf.TensorSpec.from_tensor, zero_sums())
    batch_spec = (input_spec(update.network), tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.float32))
    return tf.function(run, input_signature=(sums_spec, *batch_spec), autograph=False, jit_compile=xla or None)


def _feature_cache(setup: Setup, phase: Phase) -> FeatureCache | None:
    """Returns the cache for the features of frozen trunks; None if caching is not possible or does not pay."""
    if not setup.config.train.cache_features:
        return None
    augmented = ["faces"] if setup.config.uses_face and setup.config.face.augment else []
    parts = frozen_parts(setup.model, augmented)
    if {part.modality for part in frozen_parts(setup.model)} > {part.modality for part in parts}:
        setup.say("The frozen face network runs in every epoch: --face.augment changes the crops each time")
    if not parts:
        return None
    cache = FeatureCache(parts, setup.preprocess, setup.say)
    shards = {**setup.data.shards(setup.data.train), **setup.data.shards(setup.data.dev)}
    pays = (phase.end - phase.first) * setup.steps * setup.update_rows >= setup.utterances
    return cache if pays or all_hosts(cache.holds(shards)) else None


def _rest_network(setup: Setup, parts: tuple[FrozenPart, ...]) -> keras.Model:
    inputs = rest_inputs(setup.model, parts)
    return training_network(inputs, connect_rest(setup.model, parts, inputs), setup.heads)
