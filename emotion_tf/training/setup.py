"""The set-up of a training run: everything that does not change from epoch to epoch, built once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.config import SMOKE_ROWS, Config
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.embeddings import Embeddings, format_coverage, read_embeddings
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.rows import Rows
from emotion_tf.data.share import Share
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary
from emotion_tf.errors import UserError
from emotion_tf.modalities import TEXT
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.models.two_tower import TwoTower, build_model
from emotion_tf.progress import stage
from emotion_tf.run_info import DataSpec
from emotion_tf.runs.run import Run
from emotion_tf.training.auxiliary import auxiliary_loss, build_heads, training_network
from emotion_tf.training.average import Average
from emotion_tf.training.dropout_seeds import reseed_encoders, separate_seeds
from emotion_tf.training.evaluate import check_context, check_tokenizer
from emotion_tf.training.initialize import initialize_towers, initialize_words
from emotion_tf.training.losses import RowLoss, build_loss, class_counts
from emotion_tf.training.outputs import Infer, inference
from emotion_tf.training.precision import choose_precision, computing_in
from emotion_tf.training.replicas import check_same, this_host
from emotion_tf.training.statistics import collect_statistics
from emotion_tf.wording import plural

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingData:
    """The utterances of a training run.

    Attributes:
        dataset: the data set, its shards verified.
        train, dev: utterances to train on, and utterances to select the best epoch by.
        service: address of a tf.data service that makes the training batches; empty: this process does.
    """

    dataset: Dataset
    train: Rows
    dev: Rows
    service: str = ""

    @classmethod
    def of_splits(cls, dataset: Dataset, smoke: bool = False, service: str = "") -> TrainingData:
        """Returns train and dev of a data set, with `smoke` a few rows of dev. Raises UserError if one is missing."""
        dev = dataset.sample("dev", SMOKE_ROWS) if smoke else dataset.rows("dev")
        return cls(dataset, dataset.rows("train"), dev, service)

    @property
    def spec(self) -> DataSpec:
        """Labels and sizes."""
        return self.dataset.spec

    def shards(self, rows: Rows) -> dict[str, str]:
        """Returns the sha256 of the shards of some rows, by their paths."""
        hashes = self.dataset.hashes
        return {path: hashes[path] for path in rows.paths}


@dataclass(frozen=True)
class Setup:
    """A training run, ready to begin.

    Attributes:
        config: the configuration.
        data: the utterances.
        utterances: rows of an epoch, without the limit of `--train.steps-per-epoch`.
        counts: weighted number of training rows of each class, float64 (C,); see `losses.class_counts`.
        pieces, words: the vocabularies.
        embedding_shape: rows and width of the word embedding. A file of vectors sets the width.
        model: the model, which is saved.
        heads: auxiliary heads, modality -> layer; none without `--train.auxiliary-weight`.
        network: the model with its auxiliary heads.
        preprocess: computes the inputs of the model.
        loss: loss of each row.
        average: moving average of the weights; None without `--train.ema`.
        variables: variables of a checkpoint, without the optimizer, in an order that does not depend on freezing.
        absent_shares: for each modality, the weighted share of the training rows that lack it, or lose it to modality
            dropout.
        say: receives lines of progress.
    """

    config: Config
    data: TrainingData
    utterances: int
    counts: np.ndarray
    pieces: list[str]
    words: WordVocabulary
    embedding_shape: tuple[int, int]
    model: TwoTower
    heads: Mapping[str, keras.layers.Layer]
    network: keras.Model
    preprocess: Preprocessor
    loss: RowLoss
    average: Average | None
    variables: Sequence[Any]
    absent_shares: Mapping[str, float]
    say: Say = field(repr=False)

    @property
    def update_rows(self) -> int:
        """Rows per update."""
        return self.config.train.batch_size * self.config.train.accumulate

    @property
    def part_rows(self) -> int:
        """Rows that pass through the network of a replica at once, at most."""
        host, accumulate = this_host(), self.config.train.accumulate
        of_device = -(-host.share.size(self.update_rows) // host.devices)
        return -(-of_device // accumulate)

    @property
    def steps(self) -> int:
        """Updates per epoch."""
        steps = math.ceil(self.utterances / self.update_rows)
        return min(steps, self.config.train.steps_per_epoch or steps)

    @cached_property
    def infer(self) -> Infer:
        """The function from the inputs of the model to its outputs, traced once for all phases and the calibration."""
        return inference(self.model)

    def objective(self, y_true: tf.Tensor, outputs: Mapping[str, Any]) -> tf.Tensor:
        """Returns the loss of each row, float32 (B,): that of the logits plus the auxiliary loss."""
        weight = self.config.train.auxiliary_weight
        return self.loss(y_true, outputs["logits"]) + weight * auxiliary_loss(self.loss, y_true, outputs)


def create_run(run: Run, setup: Setup, command: str, overwrite: bool, initial: Sequence[str] = ()) -> None:
    """Creates the folder of the run that a set-up trains. Raises UserError if it exists, unless `overwrite`."""
    spec = setup.data.spec
    run.create(
        setup.config,
        spec,
        setup.model,
        counts=setup.counts.tolist(),
        pieces=setup.pieces,
        words=setup.words.words,
        word_dim=setup.embedding_shape[1],
        command=command,
        overwrite=overwrite,
        initial=initial,
        absent_shares=setup.absent_shares,
    )


def build_setup(
    config: Config,
    data: TrainingData,
    pretrained: PretrainedFiles,
    say: Say,
    resumed_width: int | None = None,
) -> Setup:
    """Builds the model and everything around it. The same seed gives the same weights.

    Args:
        config: the configuration.
        data: the utterances.
        pretrained: local files of pretrained networks.
        say: receives lines of progress.
        resumed_width: width of the word embedding, if a checkpoint is going to replace all weights. None: the weights
            are initialised, from files and other runs if the configuration names any.

    Raises:
        UserError: the data have no text for a text tower, or do not fit the encoder or the options; or an initial file
            or run does not fit.
    """
    spec, train = data.spec, config.train
    _check_batch(config)
    check_tokenizer(config, spec, pretrained.encoder)
    check_context(config, data.dataset)
    with stage("counting words and classes"):
        statistics = collect_statistics(config, pipeline.read_rows(data.train))
    words = statistics.words
    vectors = _read_vectors(config, words, say) if resumed_width is None else None
    width = resumed_width or (config.text.word_dim if vectors is None else vectors.vectors.shape[1])
    counts = class_counts(statistics.label, statistics.weight, len(spec.labels))
    pieces = data.dataset.read_vocabulary()

    keras.utils.set_random_seed(train.seed)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    precision, reason = choose_precision(config)
    check_same(f"--train.precision {precision}", hashlib.sha256(precision.encode()).hexdigest())
    if reason:
        say(f"Precision {precision}: {reason}")
    with stage("building the model"), computing_in(precision):
        model = build_model(
            config, spec, (len(words), width), pretrained.encoder, pretrained.face_networks, words.frequencies
        )
    heads = build_heads(model.towers, len(spec.labels)) if train.auxiliary_weight else {}
    network = training_network(model.input, model.output, heads)
    if vectors is not None:
        initialize_words(model.towers[TEXT], vectors)
    if resumed_width is None:
        initialize_towers(model, config, spec, words, say)
    separate_seeds(network)
    reseed_encoders(model, train.seed)
    average = Average(model.weights) if train.ema else None
    say(parameter_line(model))
    return Setup(
        config=config,
        data=data,
        utterances=len(statistics.label),
        counts=counts,
        pieces=pieces,
        words=words,
        embedding_shape=(len(words), width),
        model=model,
        heads=heads,
        network=network,
        preprocess=Preprocessor(
            model.input, spec.face_size, config.text, WordPieceTokenizer(pieces, spec.lower_case), words
        ),
        loss=build_loss(train, counts),
        average=average,
        variables=(*network.variables, *(mean for mean, _ in average.pairs)) if average else tuple(network.variables),
        absent_shares=statistics.absent_shares(config),
        say=say,
    )


def _check_batch(config: Config) -> None:
    replicas, train = this_host().replicas, config.train
    if train.batch_size < replicas:
        raise UserError(
            f"Invalid `train.batch_size`. Expected at least {replicas}, one utterance for each device of all hosts. "
            f"Received: {train.batch_size}."
        )


def replica_line(setup: Setup) -> str:
    """Returns a line about the replicas: the global batch, the share of each host, and the learning rate."""
    host, rows = this_host(), setup.update_rows
    sizes = sorted({Share(i, host.count).size(rows) for i in range(host.count)})
    hosts, devices = plural(host.count, "host"), plural(host.devices, "device")
    share = " or ".join(map(str, sizes))
    return (
        f"{hosts} with {devices} each: an update of {plural(rows, 'utterance')} is {share} on each host, learning rate "
        f"{setup.config.train.learning_rate:g} for the whole update"
    )


def _read_vectors(config: Config, words: WordVocabulary, say: Say) -> Embeddings | None:
    """Returns the published word vectors of the file that the configuration names, if any."""
    if not (config.text.embeddings and config.uses_text):
        return None
    embeddings = read_embeddings(Path(config.text.embeddings), words.words)
    coverage = format_coverage(embeddings.known, np.array(words.frequencies, np.int64))
    say(f"Word embeddings of {config.text.embeddings}: {coverage}")
    return embeddings


def parameter_line(model: TwoTower) -> str:
    """Returns a line with the number of parameters, of trainable ones, and of trainable ones of BERT."""
    trainable, total = (sum(math.prod(v.shape) for v in vs) for vs in (model.trainable_weights, model.weights))
    line = f"{total:,} parameters, {trainable:,} trained"
    for encoder in model.towers[TEXT].layers_of(HubEncoder) if TEXT in model.towers else ():
        weights = encoder.trainable_weights
        line += f" (BERT: {sum(math.prod(v.shape) for v in weights):,} in {len(weights)} variables)"
    return line
