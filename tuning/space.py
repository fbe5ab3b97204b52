"""The search space: which options of a configuration are searched, where, and what a draw makes of it.

Pure: no training and no TensorFlow. `hp` is KerasTuner's `HyperParameters`, or anything with its `Choice`, `Float` and
`conditional_scope`.
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

DIGITS = 4
"""Of a number that is drawn: enough to tell two apart, and the same in every file and message."""


class Facts(NamedTuple):
    """What the space must know of the data set: utterances of context that it keeps, most crops of an utterance."""

    context: int
    crops: int


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; drawn evenly, or evenly in the logarithm."""

    low: float
    high: float
    log: bool = False


Domain = Range | tuple[Any, ...]


@dataclass(frozen=True)
class Parameter:
    """An option that is searched.

    Attributes:
        option: `part.field` of the configuration.
        domain: where it is searched.
        under: another option, and for which of its values this one acts; None: always.
    """

    option: str
    domain: Domain
    under: tuple[str, Callable[[Any], bool]] | None = None


def parameters(base: Config, facts: Facts) -> list[Parameter]:
    """All that can be searched around a configuration: what acts in it. Its own values are always among the values."""
    found = [
        *_training(base),
        *(_text(base, facts) if base.uses_text else ()),
        *(_face(base, facts) if base.uses_face else ()),
        *_fusion(base),
    ]
    return [dataclasses.replace(one, domain=_with(one.domain, value_of(base, one.option))) for one in found]


def _training(base: Config) -> Iterator[Parameter]:
    names = CHOICES["train.optimizer"], CHOICES["train.loss"]
    yield Parameter("train.learning_rate", Range(1e-4, 1e-2, log=True))
    yield Parameter("train.batch_size", (16, 32, 64))
    yield Parameter("train.optimizer", tuple(names[0]))
    yield Parameter("train.momentum", Range(0.8, 0.98), _acts("momentum"))
    yield Parameter("train.weight_decay", Range(1e-4, 0.1, log=True), _acts("weight_decay"))
    yield Parameter("train.schedule", tuple(CHOICES["train.schedule"]))
    yield Parameter("train.warmup", Range(0.0, 0.3))
    yield Parameter("train.loss", tuple(names[1]))
    yield Parameter("train.focal_gamma", Range(0.5, 4.0), _acts("focal_gamma"))
    yield Parameter("train.label_smoothing", Range(0.0, 0.2), _acts("label_smoothing"))


def _acts(option: str) -> tuple[str, Callable[[Any], bool]]:
    choice, names = EFFECTIVE[option]
    return f"train.{choice}", lambda value: value in names


def _text(base: Config, facts: Facts) -> Iterator[Parameter]:
    text = base.text
    if not text.init:  # a tower that starts from a run's has that run's shape
        words = (("gru",), ("lstm",), ("cnn",), ("gru", "cnn"))
        if base.uses_bert:
            words = tuple(("bert", *some) for some in (*words[:3], *(() if text.embeddings else ((),))))  # type: ignore
        yield Parameter("text.branches", words)
        for branch in ("gru", "lstm"):
            yield Parameter(f"text.{branch}_units", (32, 64, 128), ("text.branches", _holds(branch)))
        yield Parameter("text.cnn_filters", (32, 64, 128), ("text.branches", _holds("cnn")))
        if base.uses_bert:
            yield Parameter("text.pooling", tuple(CHOICES["text.pooling"]))
        kept = tuple(n for n in (0, 1, 3) if n <= facts.context)
        if len(kept) > 1:
            yield Parameter("text.context", kept)
    yield Parameter("text.dropout", Range(0.0, 0.5))
    if base.uses_bert and text.train_encoder and text.train_tower:
        yield Parameter("text.train_encoder", (True, False))
    yield from _unfreezing(base)


def _unfreezing(base: Config) -> Iterator[Parameter]:
    """How pretrained branches are trained, where there are any."""
    face = base.face
    text_waits = base.uses_bert and base.text.train_encoder and base.text.train_tower
    face_waits = base.uses_face and bool(face.networks) and face.train_backbone and face.train_tower
    init = any(tower.init and tower.train_tower for tower in (getattr(base, name) for name in base.towers))
    under = None
    if text_waits != face_waits and not init:
        under = ("text.train_encoder" if text_waits else "face.train_backbone", bool)
    if text_waits or face_waits or init:
        yield Parameter("train.pretrained_rate", Range(0.01, 0.3, log=True), under)
        waits = tuple(n for n in (0, 1, 2) if n < base.train.epochs)
        if len(waits) > 1:
            yield Parameter("train.freeze_epochs", waits, under)


def _face(base: Config, facts: Facts) -> Iterator[Parameter]:
    face = base.face
    if not face.init:
        if face.networks:
            yield Parameter("face.branches", (face.networks, (*face.networks, "cnn")))
            fully = {layer for row in BACKBONES.values() for layer in row.fully_connected}
            if set(face.networks) <= set(BACKBONES) and not fully & set(face.layer):
                yield Parameter("face.pooling", ("avg", "max", "avgmax", "attention"))
        sizes = tuple(tuple(max(1, int(n * by)) for n in face.cnn_filters) for by in (0.5, 1))
        yield Parameter("face.cnn_filters", sizes, ("face.branches", _holds("cnn")))
        if facts.crops > 1:
            yield Parameter("face.frames", ("mean", "max", "attention"))
    yield Parameter("face.dropout", Range(0.0, 0.5))
    if face.networks and face.train_backbone and face.train_tower:
        yield Parameter("face.train_backbone", (True, False))
        row = BACKBONES.get(face.networks[0])
        late = row.late_layers if row else ()
        if len(face.networks) == 1 and late and not face.layer:
            yield Parameter("face.unfreeze_from", ("", *late), ("face.train_backbone", bool))
    if not base.uses_text:
        yield from _unfreezing(base)


def _fusion(base: Config) -> Iterator[Parameter]:
    fusion = base.fusion
    if len(base.towers) > 1:
        # heads share the width; they are not searched
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


def _with(domain: Domain, value: Any) -> Domain:
    """The domain, widened or lengthened where the value is not in it."""
    if isinstance(domain, Range):
        low = domain.low if domain.log and value <= 0 else min(domain.low, value)
        return dataclasses.replace(domain, low=low, high=max(domain.high, value))
    if value in domain:
        return domain
    return tuple(sorted((*domain, value))) if isinstance(value, int) else (value, *domain)


def value_of(config: Config, option: str) -> Any:
    """The value of `part.field`."""
    part, field = option.split(".")
    return getattr(getattr(config, part), field)


def label(value: Any) -> str | int | float:
    """A value as KerasTuner, tables and the command line have it: `bert+gru`, `128-64`, `true`, `none`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ("+" if value and isinstance(value[0], str) else "-").join(map(str, value)) or "none"
    return value or "none" if isinstance(value, str) else value


def declare(hp: Any, searched: Sequence[Parameter], base: Config) -> dict[str, Any]:
    """Declares the space and returns this draw: option -> value of those that are active."""
    names = {one.option for one in searched}
    drawn: dict[str, Any] = {}
    for one in searched:
        scope: contextlib.AbstractContextManager = contextlib.nullcontext()
        if one.under is not None and one.under[0] in names:
            parent = next(other for other in searched if other.option == one.under[0])
            scope = hp.conditional_scope(parent.option, [label(v) for v in listed(parent) if one.under[1](v)])
        with scope:
            value = _declare_one(hp, one, value_of(base, one.option))
        if value is not None:
            drawn[one.option] = value
    return drawn


def _declare_one(hp: Any, one: Parameter, default: Any) -> Any:
    if isinstance(one.domain, Range):
        low, high = one.domain.low, one.domain.high
        sampling = "log" if one.domain.log else "linear"
        value = hp.Float(one.option, low, high, sampling=sampling, default=min(max(default, low), high))
        return None if value is None else float(f"{value:.{DIGITS}g}")
    labels = {label(value): value for value in one.domain}
    first = label(default) if label(default) in labels else next(iter(labels))
    value = hp.Choice(one.option, list(labels), default=first)
    return None if value is None else labels[value]


def listed(one: Parameter) -> tuple[Any, ...]:
    """The values of an option that others depend on."""
    if isinstance(one.domain, Range):
        raise TypeError(f"{one.option} has no list of values that another option could depend on")
    return one.domain


def draw(hp: Any, searched: Sequence[Parameter], base: Config) -> Config:
    """The configuration of a draw: `base` with the values that `hp` gives."""
    return apply(base, declare(hp, searched, base))


def apply(base: Config, values: Mapping[str, Any]) -> Config:
    """`base` with other values. What they leave without an effect goes back to its default, as `Config` wants it."""
    fields = [field.name for field in dataclasses.fields(base)]
    parts: dict[str, dict[str, Any]] = {name: {} for name in fields if dataclasses.is_dataclass(getattr(base, name))}
    for option, value in values.items():
        part, field = option.split(".")
        parts[part][field] = value
    for field, (choice, names) in EFFECTIVE.items():
        if parts["train"].get(choice, getattr(base.train, choice)) not in names:
            parts["train"][field] = getattr(TrainConfig, field)
    if parts[TEXT].get("train_encoder") is False:
        parts[TEXT] |= {"layer_decay": 1.0, "freeze_embeddings": False}
    if parts[FACE].get("train_backbone") is False:
        parts[FACE]["unfreeze_from"] = ""
    changed: dict[str, Any] = {part: dataclasses.replace(getattr(base, part), **some) for part, some in parts.items()}
    return dataclasses.replace(base, **changed)
