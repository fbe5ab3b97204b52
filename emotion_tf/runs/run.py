"""A run's folder: what is in it and how it is read. It holds all that `predict` needs, on any machine."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from emotion_tf import config as configuration
from emotion_tf import files
from emotion_tf.config import Config
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, read_vocabulary, write_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Calibration, read_calibration
from emotion_tf.folders import ENSEMBLE
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.program import program
from emotion_tf.schema import DataSpec


@dataclasses.dataclass(frozen=True)
class Run:
    """Paths and contents of `saved_models/RUN`."""

    path: Path

    @property
    def model_path(self) -> Path:
        """The trained model, for inference."""
        return self.path / "model.keras"

    @property
    def checkpoints(self) -> Path:
        """Where an unfinished training keeps its state."""
        return self.path / "checkpoint"

    @property
    def history(self) -> Path:
        """One line an epoch."""
        return self.path / "history.csv"

    def create(
        self,
        config: Config,
        spec: DataSpec,
        model: keras.Model,
        *,
        majority: str,
        pieces: Sequence[str],
        words: Sequence[str],
        word_dim: int,
        command: str,
        overwrite: bool,
    ) -> None:
        """Creates the folder of a run that is about to train.

        Args:
            config: its configuration.
            spec: of its data.
            model: untrained; only its parameters are counted.
            majority: the most frequent class in training.
            pieces: the word pieces, in the order of their ids.
            words: the word vocabulary, in the order of its ids.
            word_dim: width of the word embedding.
            command: the command line that trains it.
            overwrite: replace the folder if it exists.

        Raises:
            UserError: the folder exists, or cannot be written.
        """
        about = {
            **dataclasses.asdict(spec),
            "majority": majority,
            "command": command,
            "parameters": model.count_params(),
            "word_dim": word_dim,
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
        }
        with files.new_folder(self.path, overwrite) as folder:
            (folder / "checkpoint").mkdir()
            (folder / "config.json").write_text(configuration.to_json(config), encoding="utf-8")
            write_vocabulary(folder / "vocab.txt", pieces)
            write_vocabulary(folder / "words.txt", words)
            (folder / "run.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @cached_property
    def about(self) -> dict[str, Any]:
        """Contents of `run.json`. Raises UserError when this is no run."""
        try:
            return json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            if (self.path / ENSEMBLE).is_file():
                raise UserError(
                    f"{self.path} is an ensemble. Expected a single run, such as one of its members; predict, export, "
                    "compare and runs take ensembles, too."
                ) from None
            raise UserError(
                f"No run at {self.path}: run.json is not there or not readable. Expected a folder that "
                f"`train` made; see: {program()} runs"
            ) from None

    @cached_property
    def config(self) -> Config:
        """The run's configuration."""
        _ = self.about
        return configuration.read_config(self.path / "config.json")

    @cached_property
    def spec(self) -> DataSpec:
        """What the run knows of its data."""
        names = [f.name for f in dataclasses.fields(DataSpec) if f.name in self.about]
        missing = [f.name for f in dataclasses.fields(DataSpec) if f.name not in (*names, "crops", "context")]
        if missing:
            raise UserError(f"{self.path / 'run.json'}: No {missing[0]!r}. Expected the run.json that `train` wrote.")
        return DataSpec(**{name: self.about[name] for name in names} | {"labels": tuple(self.about["labels"])})

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.spec.labels

    @property
    def word_dim(self) -> int:
        """Width of the word embedding: a file of vectors sets its own, whatever the configuration says."""
        return int(self.about["word_dim"])

    @property
    def majority(self) -> int:
        """Index of the class most frequent in training."""
        return self.labels.index(self.about["majority"])

    @cached_property
    def calibration(self) -> Calibration:
        """Temperatures and thresholds; of a run without them temperature 1 and none."""
        return read_calibration(self.path)

    def check_finished(self) -> None:
        """Raises UserError when this is no run, or one without a trained model."""
        if not self.model_path.is_file():
            _ = self.about  # a folder that is no run at all is told as such
            more = "continue it with --resume" if self.checkpoints.is_dir() else "train it again"
            raise UserError(f"{self.path}: The run has no model.keras: its training did not end. To use it, {more}.")

    @cached_property
    def model(self) -> TwoTower:
        """The trained model, for inference. Raises UserError when the run is unfinished."""
        self.check_finished()
        try:
            return keras.saving.load_model(self.model_path, compile=False)
        except Exception as error:
            # whatever a damaged zip, HDF5 or JSON raises inside Keras
            raise UserError(
                f"Cannot load {self.model_path}: {str(error).splitlines()[0][:200]}. Copy the run anew or "
                "train it again."
            ) from None

    def preprocessor(self, model: keras.Model) -> Preprocessor:
        """Raw strings and JPEGs to this model's inputs."""
        pieces = WordPieceTokenizer(read_vocabulary(self.path / "vocab.txt"), self.spec.lower_case)
        words = WordVocabulary(read_vocabulary(self.path / "words.txt"))
        return Preprocessor(model.input, self.spec.face_size, self.config.text, pieces, words)
