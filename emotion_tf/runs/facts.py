"""Facts of a model that clients need; an export stores them in `assets.extra/model.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_tf.errors import UserError
from emotion_tf.folders import check_entries
from emotion_tf.runs.ensemble import Ensemble, open_run
from emotion_tf.runs.run import Run

FILE = Path("assets.extra", "model.json")
_VALID = {
    "name": (str, 1, 1000),
    "labels": (list, 1, 10_000),
    "face_size": (int, 1, 1024),
    "max_faces": (int, 1, 10_000),
    "context": (int, 0, 10_000),
    "crops": (dict, 0, 1000),
}
"""Type of each fact, and the limits of its value or length: clients allocate what the facts of an export say."""


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model.

    Attributes:
        name: name of the run, and by default of the served model.
        labels: the C class names, in the order of the probabilities.
        face_size: side of the face crops in pixels.
        max_faces: largest number of crops of an utterance.
        context: number of previous lines that the model reads.
        speaker: whether the model reads `Speaker: utterance`.
        crops: the `--faces.*` options of the data set.
    """

    name: str
    labels: tuple[str, ...]
    face_size: int
    max_faces: int
    context: int
    speaker: bool
    crops: dict[str, Any] = field(default_factory=dict)


def facts_of(run: Run | Ensemble) -> ModelFacts:
    """Returns the facts of a run or an ensemble, without loading its model."""
    members = run.members if isinstance(run, Ensemble) else [run]
    texts = [member.config.text for member in members if member.config.uses_text]
    spec = run.spec
    return ModelFacts(
        run.path.resolve().name,
        tuple(run.labels),
        spec.face_size,
        spec.max_faces,
        # each member reads the number of previous lines that it was trained on
        max((text.context for text in texts), default=0),
        any(text.speaker for text in texts),
        dict(spec.crops),
    )


def is_export(path: Path) -> bool:
    """Returns whether a folder holds an export."""
    return (path / "saved_model.pb").is_file()


def read_facts(path: Path) -> ModelFacts:
    """Returns the facts of a run, an ensemble or an export. Raises UserError if `path` is none of them."""
    return read_exported(path) if is_export(path) else facts_of(open_run(path))


def read_exported(export: Path) -> ModelFacts:
    """Reads the facts of an export. Raises UserError if there is no export, or it has entries that are no files."""
    check_entries(export, export)
    try:
        values = json.loads((export / FILE).read_text(encoding="utf-8"))
        for name, (kind, least, most) in _VALID.items():
            size = values[name] if kind is int else len(values[name])
            if type(values[name]) is not kind or not least <= size <= most:
                raise ValueError(f"invalid {name}")
        if not all(isinstance(label, str) for label in values["labels"]):
            raise ValueError("invalid labels")
        fields = {row.name: values[row.name] for row in dataclasses.fields(ModelFacts)}
        return ModelFacts(**fields | {"labels": tuple(values["labels"]), "speaker": bool(values["speaker"])})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"No export at {export}: cannot read {FILE} ({type(error).__name__}: {error}). Expected a folder that "
            "`export` made, as saved_models/RUN/serving/1."
        ) from None


def write_exported(export: Path, facts: ModelFacts, **more: Any) -> None:
    """Writes the facts and further values to an export."""
    values = dataclasses.asdict(facts) | more
    (export / FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
