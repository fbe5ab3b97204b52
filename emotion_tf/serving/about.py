"""What has to be known of a model to ask it: kept in its export as `assets.extra/model.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_tf.errors import UserError
from emotion_tf.runs.ensemble import Ensemble
from emotion_tf.runs.run import Run

FILE = Path("assets.extra", "model.json")


@dataclass(frozen=True)
class About:
    """Facts of a model.

    Attributes:
        name: of its run; what a server calls it, unless it is told otherwise.
        labels: the C class names, in the order of the probabilities.
        face_size: side of the face crops in pixels.
        max_faces: most crops of one utterance.
        context: how many of the lines said before an utterance are read.
        speaker: whether the utterance is read with its speaker, `Speaker: utterance`.
        crops: the `--faces.*` options that its data set's faces were found with.
    """

    name: str
    labels: tuple[str, ...]
    face_size: int
    max_faces: int
    context: int
    speaker: bool
    crops: dict[str, Any] = field(default_factory=dict)


def about(run: Run | Ensemble) -> About:
    """Facts of a run or an ensemble, without its model being loaded."""
    members = run.members if isinstance(run, Ensemble) else [run]
    texts = [member.config.text for member in members if member.config.uses_text]
    spec = run.spec
    return About(
        run.path.resolve().name,
        tuple(run.labels),
        spec.face_size,
        spec.max_faces,
        # of the lines said before, each member reads as many as it was trained on
        max((text.context for text in texts), default=0),
        any(text.speaker for text in texts),
        dict(spec.crops),
    )


def to_json(facts: About) -> dict[str, Any]:
    """As `read` takes it."""
    return dataclasses.asdict(facts) | {"labels": list(facts.labels)}


def read(export: Path) -> About:
    """Facts of an export. Raises UserError when it is none."""
    try:
        found = json.loads((export / FILE).read_text(encoding="utf-8"))
        given = {one.name: found[one.name] for one in dataclasses.fields(About)}
        return About(**given | {"labels": tuple(found["labels"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"No export at {export}: cannot read {FILE} ({type(error).__name__}: {error}). Expected a folder that "
            "`export` made, as saved_models/RUN/serving/1."
        ) from None
