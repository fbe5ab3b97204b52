"""Frozen dataclasses: the configuration, the command line of `train` and `config.json` are all this one thing."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from emotion_tf.errors import UserError, nearest

TOWERS = ("text", "face", "both")
TEXT_BRANCHES = ("bert", "gru")
FACE_BRANCHES = ("resnet50", "cnn")
TEXT_POOLINGS = ("mean", "cls")
FACE_WEIGHTS = ("imagenet", "none")
CLASS_WEIGHTS = ("none", "balanced")
FUSIONS = ("concat", "sum", "weighted", "gated", "lowrank")
FACE_DETECTORS = ("yunet", "mtcnn")
FACE_POLICIES = ("speaking", "largest", "centre", "longest", "boxes")


@dataclass(frozen=True)
class CropConfig:
    """How the face that an utterance belongs to is found in a clip: the `--faces.*` options."""

    detector: str = "yunet"
    """yunet (fast; fetched once), or mtcnn (slow; its weights come with the package)."""
    detector_model: str = ""
    """YuNet's ONNX file, in place of the one that `weights fetch yunet` keeps."""
    rate: float = 8.0
    """Sampled frames a second."""
    most_frames: int = 240
    """At most so many frames of a clip; a longer one is sampled more thinly."""
    policy: str = "speaking"
    """Which face: speaking (the mouth that moves), largest, centre, longest, boxes (given ones)."""
    crops: int = 4
    """At most so many crops of an utterance, sharp ones spread over its time."""
    seconds: float = 120.0
    """A clip that takes longer is given up; its utterance keeps its text."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        _one_of("faces.detector", self.detector, FACE_DETECTORS)
        _one_of("faces.policy", self.policy, FACE_POLICIES)
        _number("faces.rate", self.rate, 0, open_below=True)
        _number("faces.seconds", self.seconds, 0, open_below=True)
        _number("faces.most_frames", self.most_frames, 1)
        _number("faces.crops", self.crops, 1)


@dataclass(frozen=True)
class TextConfig:
    """The text tower: branches side by side, concatenated."""

    branches: tuple[str, ...] = ("gru",)
    """Parts of the tower: bert (a TF-Hub BERT), gru (word embedding and bidirectional GRU, from scratch)."""
    encoder: str = "minilm"
    """BERT of the bert branch: a tfhub.dev or Kaggle handle, a local SavedModel, or a name of `weights list`."""
    train_encoder: bool = True
    """Fine-tune the encoder; false keeps its weights bit-identical."""
    pooling: str = "mean"
    """From the token sequence to one vector: mean (over real tokens) or cls (the first token)."""
    max_tokens: int = 64
    """Word pieces of an utterance that BERT reads, [CLS] and [SEP] included; the rest is cut."""
    max_words: int = 48
    """Words of an utterance that the GRU reads; the rest is cut."""
    vocabulary_size: int = 8000
    """Most frequent words of the training split that get an embedding; all others share the unknown word."""
    word_dim: int = 64
    """Width of a word embedding."""
    gru_units: int = 64
    """Units of the GRU in each direction."""
    dropout: float = 0.2
    """Share of the word embedding's and of the branch outputs' units dropped in training."""
    init: str = ""
    """Run whose trained text tower this one starts from, as a pretrained branch; empty: none."""


@dataclass(frozen=True)
class FaceConfig:
    """The face tower: branches side by side, concatenated, then the mean over the real crops."""

    branches: tuple[str, ...] = ("cnn",)
    """Parts of the tower: resnet50 (Keras Applications), cnn (small, for crops of 48-112 px)."""
    weights: str = "imagenet"
    """Weights that resnet50 starts from: imagenet (downloaded by Keras) or none (random)."""
    train_backbone: bool = True
    """Train resnet50; false keeps its weights and statistics as they are."""
    cnn_filters: tuple[int, ...] = (16, 32, 64, 128)
    """Filters of the cnn, one stage (convolutions, then halving) each."""
    dropout: float = 0.2
    """Share of the branch outputs' units dropped in training."""
    augment: bool = True
    """Flip, turn, shift, zoom and relight the crops in training."""
    init: str = ""
    """Run whose trained face tower this one starts from, as a pretrained branch; empty: none."""


@dataclass(frozen=True)
class FusionConfig:
    """How the towers are joined; then dropout, dense layers, logits."""

    kind: str = "concat"
    """concat, sum, weighted (late: a learned mean of each tower's logits), gated (Arevalo 2017), lowrank (Liu 2018)."""
    width: int = 128
    """Width that sum, gated and lowrank bring both towers to."""
    rank: int = 4
    """Rank of lowrank."""
    modality_dropout: float = 0.0
    """Share of utterances whose text, and whose face, training takes for absent; only with both towers."""
    dense_units: tuple[int, ...] = (128,)
    """Width of each dense layer after the towers are joined (weighted: of each tower's own); none: logits at once."""
    dropout: float = 0.3
    """Share of units dropped before each dense layer and before the logits."""


@dataclass(frozen=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: int = 15
    """Most passes over the training split."""
    batch_size: int = 32
    """Utterances in a batch."""
    learning_rate: float = 1e-3
    """Peak learning rate of everything that starts from scratch."""
    pretrained_rate: float = 0.05
    """Pretrained branches learn at this multiple of the learning rate."""
    warmup: float = 0.1
    """Share of all steps in which the rate rises from 0; after it, it falls linearly to 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay (not on biases, norms and embeddings' scale)."""
    clip_norm: float = 1.0
    """Global norm that gradients are clipped to."""
    class_weights: str = "none"
    """none, or balanced (weight of a class inverse to its frequency)."""
    freeze_epochs: int = 0
    """First epochs in which pretrained branches stay frozen."""
    patience: int = 4
    """Stop after so many epochs without a better validation weighted F1."""
    steps_per_epoch: int = 0
    """End an epoch after so many batches; 0: the whole split."""
    seed: int = 0
    """Seed of weights, dropout, order and augmentation."""
    deterministic: bool = False
    """Repeat bit for bit (TensorFlow's op determinism; slower)."""


@dataclass(frozen=True)
class Config:
    """Everything that makes a run what it is."""

    data: str = "tfrecords/demo"
    """Data set, as `prepare` wrote it."""
    towers: str = "both"
    """text, face, or both."""
    text: TextConfig = field(default_factory=TextConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Refuses what makes no sense, whichever way the configuration came in."""
        _one_of("towers", self.towers, TOWERS)
        _branches("text.branches", self.text.branches, TEXT_BRANCHES)
        _branches("face.branches", self.face.branches, FACE_BRANCHES)
        _one_of("text.pooling", self.text.pooling, TEXT_POOLINGS)
        _one_of("face.weights", self.face.weights, FACE_WEIGHTS)
        _one_of("fusion.kind", self.fusion.kind, FUSIONS)
        _share("fusion.modality_dropout", self.fusion.modality_dropout)
        if self.fusion.modality_dropout and self.towers != "both":
            raise UserError(
                "Invalid `fusion.modality_dropout`. Expected 0 with one tower: without its only modality an utterance "
                f"teaches nothing. Received: {self.fusion.modality_dropout}."
            )
        _one_of("train.class_weights", self.train.class_weights, CLASS_WEIGHTS)
        for part, names in _AT_LEAST_ONE.items():
            for name in names:
                _number(f"{part}.{name}", getattr(getattr(self, part), name), 1)
        _number("text.max_tokens", self.text.max_tokens, 3)  # [CLS], a word piece, [SEP]
        for name in ("learning_rate", "clip_norm"):
            _number(f"train.{name}", getattr(self.train, name), 0, open_below=True)
        for part in ("text", "face", "fusion"):
            _share(f"{part}.dropout", getattr(self, part).dropout)
        for name in ("pretrained_rate", "warmup"):
            _share(f"train.{name}", getattr(self.train, name), closed=True)
        for name in ("weight_decay", "freeze_epochs", "steps_per_epoch", "seed"):
            _number(f"train.{name}", getattr(self.train, name), 0)
        if self.train.seed >= 2**32:
            raise UserError(f"Invalid `train.seed`. Expected a number below 2**32. Received: {self.train.seed}.")
        for name, units in (
            ("face.cnn_filters", self.face.cnn_filters),
            ("fusion.dense_units", self.fusion.dense_units),
        ):
            for unit in units:
                _number(name, unit, 1)
        if not self.face.cnn_filters:
            raise UserError("Invalid `face.cnn_filters`. Expected at least one number of filters. Received: none.")

    @property
    def uses_text(self) -> bool:
        """Whether the model has a text tower."""
        return self.towers != "face"

    @property
    def uses_face(self) -> bool:
        """Whether the model has a face tower."""
        return self.towers != "text"

    @property
    def uses_bert(self) -> bool:
        """Whether the model has a BERT branch."""
        return self.uses_text and "bert" in self.text.branches


_AT_LEAST_ONE = {
    "text": ("max_words", "vocabulary_size", "word_dim", "gru_units"),
    "fusion": ("width", "rank"),
    "train": ("epochs", "batch_size", "patience"),
}


def to_json(config: Config) -> str:
    """The text of `config.json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def read_config(path: Path) -> Config:
    """Reads a `config.json`. Raises UserError for no file, no JSON, or a key or value that does not belong there."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No configuration at {path}. Expected the config.json of a run in saved_models/.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot read the configuration {path}: {error}. Expected JSON as a run's config.json."
        ) from None
    return _from_dict(Config, values, str(path))


def _from_dict(kind: type, values: Any, where: str) -> Any:
    """Builds a dataclass from JSON values; unknown keys and wrong types are refused."""
    if not isinstance(values, dict):
        raise UserError(
            f"Invalid {where}. Expected an object with keys {', '.join(_names(kind))}. Received: {values!r}."
        )
    for key in values:
        if key not in _names(kind):
            raise UserError(
                f"Unknown key {key!r} in {where}. Expected: {', '.join(_names(kind))}.{nearest(key, _names(kind))}"
            )
    hints = get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _from_dict(kind, value, where)  # type: ignore[arg-type]
    if isinstance(value, list) and str(kind).startswith("tuple"):
        return tuple(_value(kind.__args__[0], item, where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(kind, type) or type(value) is not kind:
        raise UserError(f"Invalid {where}. Expected {getattr(kind, '__name__', kind)}. Received: {value!r}.")
    return value


def _names(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(
            f"Invalid `{name}`. Expected one of: {', '.join(valid)}. Received: {value!r}.{nearest(value, valid)}"
        )


def _branches(name: str, values: tuple[str, ...], valid: tuple[str, ...]) -> None:
    for value in values:
        _one_of(name, value, valid)
    if not values or len(set(values)) < len(values):
        raise UserError(
            f"Invalid `{name}`. Expected one or more different of: {', '.join(valid)}. Received: {list(values)}."
        )


def _number(name: str, value: float, least: float, open_below: bool = False) -> None:
    if not least <= value < float("inf") or (open_below and value == least):
        rule = "above" if open_below else "of at least"
        raise UserError(f"Invalid `{name}`. Expected a finite number {rule} {least}. Received: {value}.")


def _share(name: str, value: float, closed: bool = False) -> None:
    if not (0 <= value < 1 or (closed and value == 1)):
        raise UserError(
            f"Invalid `{name}`. Expected a number from 0 to {'1' if closed else 'below 1'}. Received: {value}."
        )


PRESETS: dict[str, Config] = {
    # The drawn faces vary by themselves: more augmentation only slows the fit.
    "demo": Config(
        face=FaceConfig(cnn_filters=(8, 16, 32, 64), dropout=0.1, augment=False),
        fusion=FusionConfig(dropout=0.2),
        train=TrainConfig(epochs=10, learning_rate=3e-3),
    ),
    "minilm": Config(
        text=TextConfig(branches=("bert", "gru")),
        train=TrainConfig(epochs=3, patience=3),
    ),
    "base": Config(
        text=TextConfig(
            branches=("bert", "gru"), encoder="https://tfhub.dev/tensorflow/bert_en_uncased_L-12_H-768_A-12/4"
        ),
        face=FaceConfig(branches=("resnet50", "cnn")),
        train=TrainConfig(epochs=4, patience=4, learning_rate=6e-4),
    ),
}
"""Named starting points: demo (seconds on a CPU), minilm (minutes), base (the full design; wants a GPU)."""


def preset(name: str) -> Config:
    """The named configuration. Raises UserError for an unknown name."""
    if name not in PRESETS:
        raise UserError(
            f"Invalid `--preset`. Expected one of: {', '.join(PRESETS)}. Received: {name!r}.{nearest(name, PRESETS)}"
        )
    return PRESETS[name]


def smoke(config: Config) -> Config:
    """The same run cut to seconds: one epoch of four small batches."""
    train = dataclasses.replace(config.train, epochs=1, steps_per_epoch=4, batch_size=8, freeze_epochs=0)
    return dataclasses.replace(config, train=train)
