"""One SavedModel that takes raw strings and JPEG bytes, for TF Serving."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import tensorflow as tf

from emotion_tf import files, schema
from emotion_tf.evaluation import model_card
from emotion_tf.serving.ensemble import predictor_of
from emotion_tf.training.ensemble import EnsembleFolder
from emotion_tf.training.run_folder import RunFolder


def export(run: RunFolder | EnsembleFolder) -> Path:
    """Writes `serving/<next version>/` of a run, or of an ensemble with all its members, and returns its path.

    The signature `serving_default` takes utterance string (B,) and face_jpeg string (B,); `serve_full` takes utterance
    (B,), context (B, N) and face_jpeg (B, K): the lines said before, `Speaker: utterance`, oldest first, and several
    crops. Both give calibrated probabilities float32 (B, C) and label string (B,). An empty string is an absent
    modality. `assets.extra/model.json` holds the labels in order, the size of the face crops, and how many lines of
    context the model reads; beside it lies the model card.

    Raises:
        UserError: the run has no model, a member of the ensemble is gone or has changed, or there is no room.
    """
    predictor = predictor_of(run)
    labels = tf.constant(predictor.labels)

    def serve_full(utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = predictor.raw(utterance, context, face_jpeg)
        return {"probabilities": probabilities, "label": tf.gather(labels, tf.argmax(probabilities, axis=1))}

    def serving_default(utterance: tf.Tensor, face_jpeg: tf.Tensor) -> dict[str, tf.Tensor]:
        return serve_full(utterance, tf.zeros_like(utterance)[:, tf.newaxis], face_jpeg[:, tf.newaxis])

    # ExportArchive and not tf.saved_model.save: only the former can be run by TF Serving's C++ loader.
    archive = keras.export.ExportArchive()
    # the models' variables come in with the endpoints; tracked too, they would be stored twice
    for resource in predictor.resources:
        archive.track(resource)
    for serve, inputs in ((serving_default, schema.SERVING_INPUTS), (serve_full, schema.SERVING_FULL_INPUTS)):
        archive.add_endpoint(serve.__name__, serve, [schema.tensor_spec(f) for f in inputs])
    out = run.path / "serving" / str(_next_version(run.path / "serving"))
    with files.new_folder(out) as folder:
        archive.write_out(str(folder), verbose=False)
        extra = folder / "assets.extra"
        extra.mkdir()
        about = {"labels": list(run.labels), "face_size": run.spec.face_size, "max_faces": run.spec.max_faces}
        about["context"] = predictor.context
        (extra / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        cards = [run.path, *(one.path for one in run.members)] if isinstance(run, EnsembleFolder) else [run.path]
        (extra / model_card.NAME).write_text("\n".join(map(model_card.text, cards)), encoding="utf-8")
    return out


def _next_version(serving: Path) -> int:
    versions = [int(p.name) for p in serving.glob("*") if p.name.isdigit()]
    return max(versions, default=0) + 1
