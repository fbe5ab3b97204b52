"""The search space: the options that can be searched around a configuration, their domains, and how they are sampled.

Pure functions, without training or TensorFlow. `hp` is KerasTuner's `HyperParameters`, or any object with its `Choice`,
`Float` and `conditional_scope`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from emotion_tf.config import CHOICES, Config, TrainConfig
from emotion_tf.config.face import BACKBONES
from emotion_tf.config.train import EFFECTIVE
from emotion_tf.modalities import FACE, TEXT

PRETRAINED = ("train.pretrained_rate", "train.freeze_epochs")
"""Options with an effect only if a pretrained part trains."""
DIGITS = 4
"""Significant digits of a sampled number, which is the same in every file and message."""


class DatasetFacts(NamedTuple):
    """Properties of the data set: stored utterances of context, and the maximum number of crops of an utterance."""

    context: int
    crops: int


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, sampled uniformly or, with `log`, uniformly in the logarithm."""

    low: float
    high: float
    log: bool = False


Domain = Range | tuple[Any, ...]


@dataclass(frozen=True)
class Parameter:
    """An option that can be searched.

    Attributes:
        option: `section.field` of the configuration.
        domain: its range or its choices.
        condition: another option, and for which of its values this one has an effect; None: always.
    """

    option: str
    domain: Domain
    condition: tuple[str, Callable[[Any], bool]] | None = None


def parameters(base: Config, facts: DatasetFacts) -> list[Parameter]:
    """Returns the options with an effect in a configuration. The domains contain its own values."""
    space = [
        *_training(base),
        *(_text(base, facts) if base.uses_text else ()),
        *(_face(base, facts) if base.uses_face else ()),
        *_fusion(base),
    ]
    return [
        dataclasses.replace(parameter, domain=_include(parameter.domain, value_of(base, parameter.option)))
        for parameter in space
    ]


def _training(base: Config) -> Iterator[Parameter]:
    yield Parameter("train.learning_rate", Range(1e-4, 1e-2, log=True))
    yield Parameter("train.batch_size", (16, 32, 64))
    # at rates of the others, or 30 times theirs, SGD with clipped gradients learns next to nothing in a trial
    yield Parameter("train.optimizer", tuple(name for name in CHOICES["train.optimizer"] if name != "sgd"))
    yield Parameter("train.momentum", Range(0.8, 0.98), _effect("momentum"))
    yield Parameter("train.weight_decay", Range(1e-4, 0.1, log=True), _effect("weight_decay"))
    yield Parameter("train.schedule", tuple(CHOICES["train.schedule"]))
    yield Parameter("train.warmup", Range(0.0, 0.3))
    yield Parameter("train.loss", tuple(CHOICES["train.loss"]))
    yield Parameter("train.focal_gamma", Range(0.5, 4.0), _effect("focal_gamma"))
    yield Parameter("train.label_smoothing", Range(0.0, 0.2), _effect("label_smoothing"))


def _effect(option: str) -> tuple[str, Callable[[Any], bool]]:
    parent, names = EFFECTIVE[option]
    return f"train.{parent}", lambda value: value in names


def _text(base: Config, facts: DatasetFacts) -> Iterator[Parameter]:
    text = base.text
    if not text.init:  # an initialised tower has the shape of its run
        branches = (("gru",), ("lstm",), ("cnn",), ("gru", "cnn"))
        if base.uses_bert:
            beside_bert = (*branches[:3], *(() if text.embeddings else ((),)))
            branches = tuple(("bert", *names) for names in beside_bert)  # type: ignore
        yield Parameter("text.branches", branches)
        for branch in ("gru", "lstm"):
            yield Parameter(f"text.{branch}_units", (32, 64, 128), ("text.branches", _holds(branch)))
        yield Parameter("text.cnn_filters", (32, 64, 128), ("text.branches", _holds("cnn")))
        if base.uses_bert:
            yield Parameter("text.pooling", tuple(CHOICES["text.pooling"]))
        contexts = tuple(n for n in (0, 1, 3) if n <= facts.context)
        if len(contexts) > 1:
            yield Parameter("text.context", contexts)
    yield Parameter("text.dropout", Range(0.0, 0.5))
    if base.uses_bert and text.train_encoder and text.train_tower:
        yield Parameter("text.train_encoder", (True, False))
    yield from _unfreezing(base)


def _unfreezing(base: Config) -> Iterator[Parameter]:
    """Yields how pretrained branches are trained, if there are any."""
    text_waits, face_waits, init = _pretrained_parts(base)
    condition = None
    if text_waits != face_waits and not init:
        condition = ("text.train_encoder" if text_waits else "face.train_backbone", bool)
    if text_waits or face_waits or init:
        yield Parameter("train.pretrained_rate", Range(0.01, 0.3, log=True), condition)
        epochs = tuple(n for n in (0, 1, 2) if n < base.train.epochs)
        if len(epochs) > 1:
            yield Parameter("train.freeze_epochs", epochs, condition)


def _pretrained_parts(config: Config) -> tuple[bool, bool, bool]:
    """Returns whether pretrained parts train: the encoder, a network of the face tower, an initialised tower."""
    text, face = config.text, config.face
    is_published = config.uses_face and any(map(face.is_published, face.networks))
    return (
        config.uses_bert and text.train_encoder and text.train_tower,
        is_published and face.train_backbone and face.train_tower,
        any(tower.init and tower.train_tower for tower in (getattr(config, name) for name in config.towers)),
    )


def _face(base: Config, facts: DatasetFacts) -> Iterator[Parameter]:
    face = base.face
    if not face.init:
        if face.networks:
            yield Parameter("face.branches", (face.networks, (*face.networks, "cnn")))
            fully_connected = {layer for backbone in BACKBONES.values() for layer in backbone.fully_connected}
            if set(face.networks) <= set(BACKBONES) and not fully_connected & set(face.layer):
                yield Parameter("face.pooling", ("avg", "max", "avgmax", "attention"))
        sizes = tuple(tuple(max(1, int(n * factor)) for n in face.cnn_filters) for factor in (0.5, 1))
        yield Parameter("face.cnn_filters", sizes, ("face.branches", _holds("cnn")))
        if facts.crops > 1:
            yield Parameter("face.frames", ("mean", "max", "attention"))
    yield Parameter("face.dropout", Range(0.0, 0.5))
    if face.networks and face.train_backbone and face.train_tower:
        yield Parameter("face.train_backbone", (True, False))
        backbone = BACKBONES.get(face.networks[0])
        if len(face.networks) == 1 and backbone and backbone.late_layers and not face.layer:
            yield Parameter("face.unfreeze_from", ("", *backbone.late_layers), ("face.train_backbone", bool))
    if not base.uses_text:
        yield from _unfreezing(base)


def _fusion(base: Config) -> Iterator[Parameter]:
    fusion = base.fusion
    if len(base.towers) > 1:
        # the heads are not searched, and divide the width
        divides = fusion.width % fusion.heads == 0
        kinds = tuple(kind for kind in CHOICES["fusion.kind"] if divides or kind != "cross_attention")
        yield Parameter("fusion.kind", kinds)
        widths = tuple(n for n in (64, 128, 256) if n % fusion.heads == 0) or (fusion.width,)
        yield Parameter("fusion.width", widths, ("fusion.kind", lambda kind: kind not in ("concat", "weighted")))
        yield Parameter("fusion.rank", (2, 4, 8), ("fusion.kind", lambda kind: kind == "lowrank"))
        yield Parameter("fusion.modality_dropout", Range(0.0, 0.3))
    yield Parameter("fusion.dense_units", ((), (64,), (128,), (256,), (128, 64)))
    yield Parameter("fusion.dropout", Range(0.0, 0.5))


def _holds(branch: str) -> Callable[[Any], bool]:
    return lambda branches: branch in branches


def _include(domain: Domain, value: Any) -> Domain:
    """Returns the domain, extended to contain the value."""
    if isinstance(domain, Range):
        low = domain.low if domain.log and value <= 0 else min(domain.low, value)
        return dataclasses.replace(domain, low=low, high=max(domain.high, value))
    if value in domain:
        return domain
    return tuple(sorted((*domain, value))) if isinstance(value, int) else (value, *domain)


def value_of(config: Config, option: str) -> Any:
    """Returns the value of the option `section.field`."""
    section, field = option.split(".")
    return getattr(getattr(config, section), field)


def label(value: Any) -> str | int | float:
    """Returns a value as KerasTuner, tables and --search have it: `bert+gru`, `128-64`, `true`, `none`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ("+" if value and isinstance(value[0], str) else "-").join(map(str, value)) or "none"
    return value or "none" if isinstance(value, str) else value


def declare(hp: Any, searched: Sequence[Parameter], base: Config) -> dict[str, Any]:
    """Declares the space to `hp` and returns the sampled values: option -> value, of the active options."""
    parents = {parameter.option: parameter for parameter in searched}
    values: dict[str, Any] = {}
    for parameter in searched:
        scope: contextlib.AbstractContextManager = contextlib.nullcontext()
        if parameter.condition is not None and parameter.condition[0] in parents:
            option, holds = parameter.condition
            scope = hp.conditional_scope(option, [label(v) for v in choices(parents[option]) if holds(v)])
        with scope:
            value = _declare_parameter(hp, parameter, value_of(base, parameter.option))
        if value is not None:
            values[parameter.option] = value
    if not any(_pretrained_parts(apply(base, values))):  # KerasTuner has no condition on one of two options
        values = {option: value for option, value in values.items() if option not in PRETRAINED}
    return values


def _declare_parameter(hp: Any, parameter: Parameter, default: Any) -> Any:
    if isinstance(parameter.domain, Range):
        low, high = parameter.domain.low, parameter.domain.high
        sampling = "log" if parameter.domain.log else "linear"
        value = hp.Float(parameter.option, low, high, sampling=sampling, default=min(max(default, low), high))
        return None if value is None else float(f"{value:.{DIGITS}g}")
    labels = {label(value): value for value in parameter.domain}
    first = label(default) if label(default) in labels else next(iter(labels))
    value = hp.Choice(parameter.option, list(labels), default=first)
    return None if value is None else labels[value]


def choices(parameter: Parameter) -> tuple[Any, ...]:
    """Returns the values of an option that others depend on."""
    if isinstance(parameter.domain, Range):
        raise TypeError(f"{parameter.option} has a range, on which no other option can depend")
    return parameter.domain


def draw(hp: Any, searched: Sequence[Parameter], base: Config) -> Config:
    """Returns a sampled configuration: `base` with the values of `hp`."""
    return apply(base, declare(hp, searched, base))


def apply(base: Config, values: Mapping[str, Any]) -> Config:
    """Returns `base` with other values. Options that lose their effect get their defaults, as `Config` requires."""
    fields = [field.name for field in dataclasses.fields(base)]
    changes: dict[str, dict[str, Any]] = {name: {} for name in fields if dataclasses.is_dataclass(getattr(base, name))}
    for option, value in values.items():
        section, field = option.split(".")
        changes[section][field] = value
    for field, (parent, names) in EFFECTIVE.items():
        if changes["train"].get(parent, getattr(base.train, parent)) not in names:
            changes["train"][field] = getattr(TrainConfig, field)
    if changes[TEXT].get("train_encoder") is False:
        changes[TEXT] |= {"layer_decay": 1.0, "freeze_embeddings": False}
    if changes[FACE].get("train_backbone") is False:
        changes[FACE]["unfreeze_from"] = ""
    sections: dict[str, Any] = {
        name: dataclasses.replace(getattr(base, name), **values) for name, values in changes.items()
    }
    return dataclasses.replace(base, **sections)
