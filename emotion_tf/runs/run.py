"""The folder of a run: its contents and how they are read. It is self-contained: `predict` needs nothing else."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import __version__, documents, files, provenance, run_info
from emotion_tf import config as configuration
from emotion_tf.config import Config
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import (
    WordPieceTokenizer,
    WordVocabulary,
    hash_vocabulary,
    hash_words,
    read_vocabulary,
    write_vocabulary,
)
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import FILE as CALIBRATION
from emotion_tf.evaluation.calibration import Calibration, read_calibration
from emotion_tf.folders import ENSEMBLE, RUN, missing_run
from emotion_tf.modalities import MIN_ABSENT_SHARE
from emotion_tf.models.keras_file import load_keras_file
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.run_info import DataSpec, RunInfo, read_run_info


@dataclasses.dataclass(frozen=True)
class Run:
    """The run in `saved_models/RUN`."""

    path: Path

    @property
    def model_path(self) -> Path:
        """Path of the trained model."""
        return self.path / "model.keras"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoint of an unfinished training."""
        return self.path / "checkpoint"

    @property
    def history(self) -> Path:
        """Path of the training history, one line per epoch."""
        return self.path / "history.csv"

    def create(
        self,
        config: Config,
        spec: DataSpec,
        model: keras.Model,
        *,
        counts: Sequence[float],
        pieces: Sequence[str],
        words: Sequence[str],
        word_dim: int,
        command: str,
        overwrite: bool,
        initial: Sequence[str] = (),
        absent_shares: Mapping[str, float] | None = None,
    ) -> None:
        """Creates the folder of a run before training.

        Args:
            config: the configuration.
            spec: properties of the data set.
            model: the untrained model, whose parameters are counted.
            counts: weighted number of training rows of each class, in the order of the labels.
            pieces: the word pieces, in the order of their ids.
            words: the words, in the order of their ids.
            word_dim: width of the word embedding.
            command: the command line of the training.
            overwrite: whether to replace the folder if it exists.
            initial: sentences about the runs whose towers it starts from (`check_unseen`).
            absent_shares: for each modality, the share of the training rows without it; None if unknown.

        Raises:
            UserError: the folder exists, or cannot be written.
        """
        info = RunInfo(
            **vars(spec),
            majority=spec.labels[int(np.argmax(counts))],
            class_counts=tuple(float(count) for count in counts),
            command=command,
            parameters=model.count_params(),
            word_dim=word_dim,
            words_sha256=hash_words(words),
            initial=tuple(initial),
            absent_shares=absent_shares if absent_shares is None else dict(absent_shares),
            versions={
                "emotion_tf": __version__,
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            date=provenance.now(),
            machine={**provenance.machine(), "gpus": str(len(tf.config.list_physical_devices("GPU")))},
            commit=provenance.commit(),
        )
        with files.new_folder(self.path, RUN, overwrite) as folder:
            (folder / "checkpoint").mkdir()
            (folder / "config.json").write_text(configuration.to_json(config), encoding="utf-8")
            write_vocabulary(folder / "vocab.txt", pieces)
            write_vocabulary(folder / "words.txt", words)
            (folder / run_info.FILE).write_text(documents.to_json(info), encoding="utf-8")

    def record_duration(self, seconds: float) -> None:
        """Writes the duration of the training into `run.json`."""
        self._record(seconds=round(seconds, 2))

    def record_service(self) -> None:
        """Writes into `run.json` that a tf.data service made batches, whose order does not follow from the seed."""
        self._record(seeded_order=False)

    def _record(self, **values: Any) -> None:
        info = dataclasses.replace(self.info, **values)
        files.write_text(self.path / run_info.FILE, documents.to_json(info))
        self.__dict__.pop("info")  # the cached one

    def delete_checkpoints(self) -> None:
        """Deletes the checkpoints of a finished training, if there are any; a kill leaves all or none."""
        files.delete(self.checkpoints)

    @cached_property
    def info(self) -> RunInfo:
        """Contents of `run.json`. Raises UserError if there is no run."""
        files.restore_missing(self.path, RUN)
        if os.path.isfile(self.path / ENSEMBLE) and not os.path.exists(self.path / run_info.FILE):
            raise UserError(
                f"{self.path} is an ensemble. Expected a single run, such as one of its members; predict, export, "
                "compare and runs take ensembles, too."
            )
        if documents.is_missing(self.path / run_info.FILE):
            raise missing_run(self.path)
        return read_run_info(self.path)

    @cached_property
    def config(self) -> Config:
        """The run's configuration."""
        _ = self.info
        return configuration.read_config(self.path / "config.json")

    @cached_property
    def spec(self) -> DataSpec:
        """Properties of the data set that the run was trained on."""
        return self.info.spec

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.spec.labels

    @property
    def word_dim(self) -> int:
        """Width of the word embedding. A file of word vectors overrides the configuration."""
        return self.info.word_dim

    @property
    def class_counts(self) -> np.ndarray:
        """Weighted number of training rows of each class, float64 (C,)."""
        return np.array(self.info.class_counts, np.float64)

    @property
    def majority(self) -> int:
        """Index of the most frequent class in training."""
        return self.labels.index(self.info.majority)

    @property
    def never_absent(self) -> tuple[str, ...]:
        """The modalities that training hardly ever lacked, so that what stands in for an absent one is untrained."""
        shares = self.info.absent_shares or {}
        return tuple(name for name, share in shares.items() if share < MIN_ABSENT_SHARE)

    @cached_property
    def calibration(self) -> Calibration:
        """Biases, temperatures and thresholds; temperature 1 and no others for a run without a calibration.

        Raises:
            UserError: the file cannot be read, or is not of this run.
        """
        calibration = read_calibration(self.path)
        biases = calibration.temperatures.biases
        if biases and len(biases) != len(self.labels):
            raise UserError(
                f"{self.path / CALIBRATION}: Invalid biases. Expected {len(self.labels)}, one for each class. "
                f"Received: {len(biases)}. Remove the file and run `evaluate --report` to calibrate again."
            )
        return calibration

    def check_finished(self) -> None:
        """Raises UserError if there is no run, or its training has not finished."""
        files.restore_missing(self.path, RUN)
        if not os.path.isfile(self.model_path):
            _ = self.info  # raises if the folder is no run
            fix = "continue it with --resume" if self.checkpoints.is_dir() else "train it again"
            old = files.replaced_folder(self.path)
            kept = f" The run that it replaces is kept in {old}." if RUN.is_finished(old) else ""
            raise UserError(
                f"{self.path}: The run has no model.keras: its training has not finished. To use it, {fix}.{kept}"
            )

    @cached_property
    def model(self) -> TwoTower:
        """The trained model, for inference.

        Raises:
            UserError: the training has not finished, the file is damaged, it may do harm (see `check_keras_file`), or
                `run.json` describes another model.
        """
        self.check_finished()
        try:
            model = load_keras_file(self.model_path)
        except UserError:
            raise
        except Exception as error:
            # a damaged zip, HDF5 or JSON raises various exceptions in Keras
            raise UserError(
                f"Cannot load {self.model_path}: {str(error).splitlines()[0][:200]}. Copy the run again or "
                "train it again."
            ) from None
        self._check_info(model)
        return model

    def _check_info(self, model: TwoTower) -> None:
        """Raises UserError if `run.json` describes another model."""
        faces = model.input.get("faces")
        rules = {"labels": getattr(model, "labels", None)}
        if faces is not None:
            rules["face_size"] = faces.shape[-2]
        for name, expected in rules.items():
            if (received := getattr(self.info, name)) != expected:
                raise UserError(
                    f"{self.path / run_info.FILE}: Invalid `{name}`. Expected {expected!r}, as in model.keras. "
                    f"Received: {received!r}. Copy the run again, or train it again."
                )

    def preprocessor(self, model: keras.Model) -> Preprocessor:
        """Returns the preprocessor for the inputs of a model of this run."""
        pieces, words = self._read_vocabularies()
        return Preprocessor(
            model.input,
            self.spec.face_size,
            self.config.text,
            WordPieceTokenizer(pieces, self.spec.lower_case),
            WordVocabulary(words),
        )

    def _read_vocabularies(self) -> tuple[list[str], list[str]]:
        """Returns word pieces and words. Raises UserError if they are not those that the model was trained with."""
        pieces, words = (read_vocabulary(self.path / name) for name in ("vocab.txt", "words.txt"))
        for name, received, expected in (
            ("vocab.txt", hash_vocabulary(pieces, self.spec.lower_case), self.info.tokenizer_sha256),
            ("words.txt", hash_words(words), self.info.words_sha256),
        ):
            if received != expected:
                raise UserError(
                    f"{self.path / name}: The vocabulary is not the one of {run_info.FILE}. Expected SHA-256 "
                    f"{expected[:12]}... Received: {received[:12]}... Copy the run again, or train it again."
                )
        return pieces, words
