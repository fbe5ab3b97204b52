"""Fitting a run: epochs that follow from (seed, epoch), the best by validation, a checkpoint after each."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import files
from emotion_tf.config import Config
from emotion_tf.data import context, pipeline, records
from emotion_tf.data.augment import augment_faces
from emotion_tf.data.embeddings import Embeddings, coverage, read_embeddings
from emotion_tf.data.pipeline import Rows
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, read_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.models.cut import Cut, cut_model
from emotion_tf.models.two_tower import build_model, learning_rates, pretrained_layers, set_trained
from emotion_tf.training.evaluate import calibrate, check_context, check_tokenizer
from emotion_tf.training.feature_cache import FeatureCache
from emotion_tf.training.fitting import Average, FitModel, with_heads
from emotion_tf.training.history import epoch_line, keep_epoch
from emotion_tf.training.init import start_towers, start_words
from emotion_tf.training.losses import balance, build_loss
from emotion_tf.training.optimizers import build_optimizer
from emotion_tf.training.outputs import collect
from emotion_tf.training.phase import Phase, State
from emotion_tf.training.precision import chosen, computing_in
from emotion_tf.training.progress import EpochProgress
from emotion_tf.training.run_folder import RunFolder, load_state, read_state, save_state
from emotion_tf.training.schedules import WarmupSchedule

Say = Callable[[str], None]


class Trainer:
    """Trains one run.

    Args:
        config: the configuration.
        run: the run's folder; made anew, or the one to resume.
        info: the data set's `dataset_info.json`, its shards verified.
        encoder: path of the TF-Hub SavedModel of the bert branch.
        say: where progress lines go.
        face_files: paths of the networks of the face branches fer and encoder.
        rows: utterances to train on, and those by which the epoch is chosen; None: the splits train and dev.
    """

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        info: dict[str, Any],
        encoder: str | None,
        say: Say = print,
        face_files: Mapping[str, str] | None = None,
        rows: tuple[Rows, Rows] | None = None,
    ) -> None:
        self.config, self.run, self.info, self.say = config, run, info, say
        self.spec = records.data_spec(info)
        self.encoder, self.face_files = encoder, face_files
        data = Path(config.data)
        self.train_rows, self.dev_rows = rows or (
            pipeline.split_rows(data, info, "train"),
            pipeline.split_rows(data, info, "dev"),
        )
        known = list(pipeline.read_rows(self.train_rows))
        self.texts = [row["utterance"] for row in known]
        text = config.text
        names = text.context or text.future or text.speaker
        # what the word branches read: with speakers, where the model is given them
        self.said = [context.line(row["speaker"], row["utterance"]) for row in known] if names else self.texts
        self.counts = np.bincount([row["label"] for row in known], minlength=len(self.spec.labels))
        self.state = State()

    def start(self, command: str, overwrite: bool = False) -> None:
        """Makes the run's folder: configuration, labels, vocabularies."""
        keras.utils.set_random_seed(self.config.train.seed)
        pieces = read_vocabulary(Path(self.config.data) / records.VOCABULARY)
        self._check_texts()
        self.words = WordVocabulary.from_utterances(self.said, self.config.text.vocabulary_size)
        check_tokenizer(self.config, self.spec, self.encoder)
        check_context(self.config, data=Path(self.config.data), kept=self.spec.context)
        vectors = self._embeddings()
        self._build()
        if vectors is not None:
            start_words(self.model, vectors)
        self._start_towers()
        self.run.create(
            self.config,
            self.spec,
            pieces,
            self.words,
            command,
            int(self.counts.argmax()),
            overwrite,
            self.model.count_params(),
        )

    def _check_texts(self) -> None:
        if self.config.uses_text and not any(text.strip() for text in self.texts):
            raise UserError(f"{self.config.data} has no text to learn from. Expected --towers face with such data.")

    def _embeddings(self) -> Embeddings | None:
        """The published word embeddings to start from; the configuration takes over their width."""
        text = self.config.text
        if not (text.embeddings and self.config.uses_text):
            return None
        found = read_embeddings(Path(text.embeddings), self.words.words)
        self.say(f"Word embeddings of {text.embeddings}: {coverage(found.known, self.words.counts(self.said))}")
        self.config = dataclasses.replace(self.config, text=dataclasses.replace(text, word_dim=found.vectors.shape[1]))
        return found

    def resume(self) -> None:
        """Takes up the last finished epoch. Raises UserError when the data changed or nothing is there to resume."""
        if self.run.spec != self.spec:
            raise UserError(
                f"{self.run.path} was trained on other data than {self.config.data} holds now. Resume "
                "needs the same data set; train anew with --overwrite."
            )
        # the run's word embedding is as wide as the file that it started from, whatever was asked for
        text = dataclasses.replace(self.config.text, word_dim=self.run.config.text.word_dim)
        self.config = dataclasses.replace(self.config, text=text)
        keras.utils.set_random_seed(self.config.train.seed)
        self.words = WordVocabulary(read_vocabulary(self.run.path / "words.txt"))
        self._build()
        last = self.run.checkpoints / "last.npz"
        if last.exists():
            self.state = State(**read_state(last))
            return
        if self.config.text.embeddings and self.config.uses_text:
            start_words(self.model, read_embeddings(Path(self.config.text.embeddings), self.words.words))
        self._start_towers()

    def _start_towers(self) -> None:
        start_towers(self.model, self.config, self.spec, self.words, self.say)
        self._reseed()  # among an encoder's weights is the state of its dropout

    def _reseed(self) -> None:
        if self.config.uses_bert:
            self.model.get_layer("text_tower").get_layer("bert").reseed(self.config.train.seed)

    def _build(self) -> None:
        if self.config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        precision, why = chosen(self.config)
        if why:
            self.say(f"Precision {precision}: {why}")
        with computing_in(precision):
            self.model = build_model(self.config, self.spec, len(self.words), self.encoder, self.face_files)
        self.pretrained = list(pretrained_layers(self.model, self.config))
        for layer in self.pretrained:
            list(learning_rates(layer, self.config))  # what cannot be had is told before hours of frozen epochs
        self._reseed()
        pieces = WordPieceTokenizer(read_vocabulary(Path(self.config.data) / records.VOCABULARY), self.spec.lower_case)
        self.preprocess = Preprocessor(self.model.input, self.spec.face_size, self.config.text, pieces, self.words)
        self.row_loss = build_loss(self.config.train, self.counts)
        self.whole = with_heads(self.model, self.config.train, len(self.spec.labels))
        self.average = Average(self.model, self.config.train.ema) if self.config.train.ema else None
        self.class_weights = tf.constant(balance(self.counts))
        # validation is by plain cross-entropy, whatever training minimises: so runs can be compared
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.say(_parameters(self.model, self.config))

    def fit(self) -> None:
        """Trains to the end (or the last epoch worth it), keeps the best epoch as `model.keras`."""
        self.fit_epochs()
        self._finish()

    def fit_epochs(self, until: int = 0) -> None:
        """Trains and keeps checkpoints alone: for a score, which needs no model.

        Args:
            until: stop after so many epochs in all, at a checkpoint that `resume` goes on from; 0: at the end.
        """
        train, first = self.config.train, self.state.epoch
        self.run.checkpoints.mkdir(exist_ok=True)
        between = bool(first and self.pretrained and first == train.freeze_epochs)
        if between:  # the last checkpoint is of the phase before, whose optimizer ended with it
            self._load_start(0)
            load_state(self.run.checkpoints / "last.npz", self._variables, None)
        self.phase = self._begin(first)
        if first and not between:
            load_state(self.run.checkpoints / "last.npz", self._variables, self.phase.optimizer)
        if first:
            self.say(
                f"Resumed after epoch {first} (best validation weighted F1 {self.state.best:.3f} in epoch "
                f"{self.state.best_epoch + 1})"
            )
        for epoch in range(first, train.epochs):
            if self._finished():
                break
            if epoch == until != 0:
                break
            if epoch == train.freeze_epochs and epoch > first:
                self.phase = self._begin(epoch)
            line = self._epoch(epoch)
            self._save("last.npz", self.phase.optimizer)
            self.say(line)  # said when it is kept

    @property
    def _variables(self) -> list[Any]:
        """All that training goes on with: the model's, the auxiliary heads', the averages."""
        return [*self.whole.variables, *(self.average.variables if self.average else [])]

    def _save(self, name: str, optimizer: keras.Optimizer | None) -> None:
        """Keeps what the phase changes; what it does not is in the file of its start."""
        only = self.phase.changing(self.average)
        save_state(self.run.checkpoints / name, self._variables, optimizer, vars(self.state), only)

    def _load_start(self, first: int) -> None:
        """The weights that a phase began with, if it keeps features, which are those of these weights."""
        if self._start_file(first).exists():
            load_state(self._start_file(first), self._variables, None)

    def _start_file(self, first: int) -> Path:
        return self.run.checkpoints / f"start-{first}.npz"

    def _finished(self) -> bool:
        waited = self.state.epoch - 1 - self.state.best_epoch
        if self.state.epoch and waited >= self.config.train.patience:
            self.say(f"Stopped early: {waited} epochs without a better validation weighted F1")
            return True
        return False

    def _begin(self, epoch: int) -> Phase:
        """Readies the phase (frozen or not) that holds `epoch`; each has its own optimizer and schedule."""
        train = self.config.train
        frozen = epoch < train.freeze_epochs and bool(self.pretrained)
        first = 0 if frozen or not self.pretrained else train.freeze_epochs
        self._load_start(first)
        for layer in self.pretrained:
            set_trained(layer, not frozen, self.config)
        epochs = (
            min(train.freeze_epochs, train.epochs)
            if frozen
            else train.epochs - (train.freeze_epochs if self.pretrained else 0)
        )
        steps = max(1, epochs) * self.steps
        schedule = WarmupSchedule(train.schedule, train.learning_rate, int(train.warmup * steps), steps)
        slower = [] if frozen else [pair for layer in self.pretrained for pair in learning_rates(layer, self.config)]
        cache = self._cache(max(1, epochs))
        graph = cache.rest if cache else self.whole
        fitted = FitModel.of(graph, train, self.row_loss, self.average)
        if self.average:
            self.average.follow(graph)
        optimizer = build_optimizer(train, fitted.trainable_variables, slower, schedule)
        fitted.compile(optimizer, jit_compile=False)
        if cache and not self._start_file(first).exists():
            save_state(self._start_file(first), self._variables, None, {})
        if train.freeze_epochs and self.pretrained:
            self.say(
                f"Pretrained branches {'frozen' if frozen else 'trained'} from epoch {epoch + 1}: "
                f"{_parameters(self.model, self.config)}"
            )
        if cache is None:
            return Phase(first, fitted, optimizer, self.preprocess, None, None, None)
        train_features, dev_features = (
            cache.read(rows, self._shards(rows)) for rows in (self.train_rows, self.dev_rows)
        )
        reads = self.preprocess.reading(cache.reads)
        return Phase(first, fitted, optimizer, reads, train_features, dev_features, cache)

    def _cache(self, epochs: int) -> FeatureCache | None:
        """The features of the model's frozen networks, where keeping them is right and pays."""
        if not self.config.train.cache_features:
            return None
        changing = ["faces"] if self.config.uses_face and self.config.face.augment else []
        cut = cut_model(self.whole, changing)
        if changing and _reads_faces(cut_model(self.whole)) and not _reads_faces(cut):
            self.say("The frozen face network runs in every epoch: --face.augment true changes the crops each time")
        if cut is None:
            return None
        cache = FeatureCache(cut, self.preprocess, self.say)
        shards = {**self._shards(self.train_rows), **self._shards(self.dev_rows)}
        pays = epochs * self.steps * self.rows >= len(self.texts)
        return cache if pays or cache.holds(shards) else None

    def _shards(self, rows: Rows) -> dict[str, str]:
        """sha256 of the shards of some rows, by their paths."""
        every = [shard for split in self.info["splits"].values() for shard in split["shards"]]
        sha256 = {str(Path(self.config.data) / shard["file"]): shard["sha256"] for shard in every}
        return {path: sha256[path] for path in rows.paths}

    @property
    def steps(self) -> int:
        """Updates of an epoch."""
        whole = math.ceil(len(self.texts) / self.rows)
        return min(whole, self.config.train.steps_per_epoch or whole)

    @property
    def rows(self) -> int:
        """Utterances of an update."""
        return self.config.train.batch_size * self.config.train.accumulate

    def _epoch(self, epoch: int) -> str:
        train = self.config.train
        began = time.monotonic()
        order = pipeline.Order(train.seed, epoch)
        phase, face = self.phase, self.config.face
        augment = partial(augment_faces, erase=face.erase) if face.augment else None
        data = pipeline.train_batches(self.train_rows, phase.preprocess, self.rows, order, augment, phase.train)
        data = data.take(self.steps).apply(tf.data.experimental.assert_cardinality(self.steps))
        if train.class_weights == "balanced":
            data = data.map(self._weigh)
        progress = EpochProgress(epoch, train.epochs, self.steps, self.rows)
        try:
            fitted = phase.fitted.fit(
                data, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0, callbacks=[progress]
            ).history
        finally:
            progress.bar.stop()
        fit_seconds = time.monotonic() - began
        if self.average:
            self.average.swap()
        numbers = {"loss": fitted["loss"][0], "accuracy": fitted["accuracy"][0], **self._validate()}
        line = self._record(epoch, numbers, fit_seconds, time.monotonic() - began)
        if self.state.best_epoch == epoch:
            self._save("best.npz", None)
        if self.average:
            self.average.swap()
        return line

    def _validate(self) -> dict[str, float]:
        phase = self.phase
        data = pipeline.eval_batches(self.dev_rows, phase.preprocess, 2 * self.config.train.batch_size, phase.dev)
        logits, label, weight = collect(phase.infer, data)
        predicted = logits.argmax(axis=1)
        return {
            "dev_loss": float(self.loss(label, logits, sample_weight=weight)),
            "dev_accuracy": float(np.average(predicted == label, weights=weight)),
            "dev_weighted_f1": weighted_f1(label, predicted, weight),
        }

    def _record(self, epoch: int, numbers: dict[str, float], fit_seconds: float, seconds: float) -> str:
        """Updates state and history; returns the epoch's line."""
        if not math.isfinite(numbers["loss"]):
            raise UserError(
                f"The loss became {numbers['loss']} in epoch {epoch + 1}. Lower --train.learning-rate (now "
                f"{self.config.train.learning_rate})."
            )
        state = self.state
        if numbers["dev_weighted_f1"] > state.best:
            state.best, state.best_epoch = numbers["dev_weighted_f1"], epoch
            state.best_start = -1 if self.phase.train is None else self.phase.first
        state.epoch, state.seconds = epoch + 1, state.seconds + seconds
        rate = self.steps * self.rows / fit_seconds
        numbers = {"epoch": epoch + 1, **numbers, "seconds": round(seconds, 2), "utterances_per_second": round(rate, 1)}
        keep_epoch(self.run, numbers)
        return epoch_line(numbers, state, self.config.train.epochs)

    def _finish(self) -> None:
        self._load_start(self.state.best_start)
        load_state(self.run.checkpoints / "best.npz", self._variables, None)
        for layer in self.pretrained:
            set_trained(layer, True, self.config)
        traced = self.phase.infer if self.phase.train is None else None  # else it reads kept features
        calibrate(self.run.path, self.model, self.preprocess, self.dev_rows, traced)
        with files.new_file(self.run.model_path) as temporary:
            self.model.save(temporary)
        shutil.rmtree(self.run.checkpoints)

    def _weigh(self, inputs: Any, label: tf.Tensor, weight: tf.Tensor) -> Any:
        return inputs, label, weight * tf.gather(self.class_weights, label)


def _reads_faces(cut: Cut | None) -> bool:
    return cut is not None and any("faces" in part.model.input for part in cut.parts)


def _parameters(model: keras.Model, config: Config) -> str:
    trainable, total = (sum(math.prod(v.shape) for v in vs) for vs in (model.trainable_weights, model.weights))
    text = f"{total:,} parameters, {trainable:,} trained"
    if config.uses_bert:
        bert = model.get_layer("text_tower").get_layer("bert")
        trained = bert.trainable_weights
        text += f" (BERT: {sum(math.prod(v.shape) for v in trained):,} in {len(trained)} variables)"
    return text
