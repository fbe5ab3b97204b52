"""Facts of a model that clients need; an export stores them in `assets.extra/model.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from emotion_tf import documents, files
from emotion_tf.documents import Count, Labels, Length, Name, Sha256, Side
from emotion_tf.errors import UserError
from emotion_tf.folders import check_entries
from emotion_tf.run_info import Crops
from emotion_tf.runs.export_files import check_files

if TYPE_CHECKING:  # a client without TensorFlow reads the facts of an export
    from emotion_tf.runs.ensemble import Ensemble
    from emotion_tf.runs.run import Run

FILE = Path("assets.extra", "model.json")
GRAPH = "saved_model.pb"


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

    name: Name
    labels: Labels
    face_size: Side
    max_faces: Annotated[Length, Field(ge=1)]
    context: Length
    speaker: bool
    crops: Crops = field(default_factory=Crops)


@dataclass(frozen=True, kw_only=True)
class ExportFacts(ModelFacts):
    """The document `model.json` of an export.

    Attributes:
        most_text_bytes: longest text that the graph reads, in bytes.
        most_pixels: largest picture that the graph reads.
        weights_bytes: size of the weights.
        versions: library -> version.
        model_sha256: hash of the graph with its signatures, and of the labels in their order (`hash_model`).
    """

    most_text_bytes: Count = 0
    most_pixels: Count = 0
    weights_bytes: Count = 0
    versions: dict[str, Name] = field(default_factory=dict)
    model_sha256: Sha256 = ""


def facts_of(run: Run | Ensemble) -> ModelFacts:
    """Returns the facts of a run or an ensemble, without loading its model."""
    from emotion_tf.runs.ensemble import Ensemble

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
        spec.crops,
    )


def is_export(path: Path) -> bool:
    """Returns whether a folder holds an export."""
    return (path / GRAPH).is_file()


def read_facts(path: Path) -> ModelFacts:
    """Returns the facts of a run, an ensemble or an export, or of the `model.json` of an export alone.

    Raises:
        UserError: `path` is none of them; files of the export have changed.
    """
    if path.name == FILE.name:
        return _read_document(path, f"No facts of a model at {path}. Expected `{FILE}` of an export.")
    if not is_export(path):
        from emotion_tf.runs.ensemble import open_run

        return facts_of(open_run(path))
    facts = read_exported(path)
    check_files(path)
    check_model(path, facts)
    return facts


def read_exported(export: Path) -> ExportFacts:
    """Reads the facts of an export.

    Raises:
        UserError: there is no export, it has entries that are no files, or its facts are invalid.
    """
    check_entries(export, export)
    missing = f"No export at {export}: {FILE} does not exist. Expected a folder that `export` made, as "
    return _read_document(export / FILE, f"{missing}saved_models/RUN/serving/1.")


def _read_document(path: Path, missing: str) -> ExportFacts:
    return documents.read(path, ExportFacts, "Copy the export again, or export the run again.", missing)


def check_model(export: Path, facts: ExportFacts) -> None:
    """Raises UserError if the facts of an export are those of another graph, or its labels were changed."""
    if (received := hash_model(export, facts.labels)) != facts.model_sha256:
        raise UserError(
            f"{export / FILE}: Its labels or its graph have changed. Expected `model_sha256` "
            f"{facts.model_sha256[:12]}... Received: {received[:12]}... Copy the export again, or export the run again."
        )


def hash_model(export: Path, labels: Sequence[str]) -> str:
    """Returns the SHA-256 of the graph of an export, with its signatures, and of the labels in their order."""
    graph = export / GRAPH
    return hashlib.sha256("\n".join([files.sha256(graph) if graph.exists() else "", *labels]).encode()).hexdigest()


def write_exported(export: Path, facts: ModelFacts, **more: Any) -> None:
    """Writes the facts, and further ones of `ExportFacts`, to an export whose graph is written."""
    values = ExportFacts(**vars(facts), **more, model_sha256=hash_model(export, facts.labels))
    (export / FILE).write_text(documents.to_json(values), encoding="utf-8")
