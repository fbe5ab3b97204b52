"""One SavedModel that takes raw strings and JPEG bytes, for TF Serving."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import tensorflow as tf

from emotion_tf import files, schema
from emotion_tf.serving.predict import raw_function
from emotion_tf.training.run_folder import RunFolder


def export(run: RunFolder) -> Path:
    """Writes `serving/<next version>/` of a run and returns its path.

    The signature `serving_default` takes utterance string (B,) and face_jpeg string (B,), and gives probabilities
    float32 (B, C) and label string (B,). An empty string is an absent modality. `assets.extra/model.json` holds the
    labels in order and the size of the face crops.

    Raises:
        UserError: the run has no model, or there is no room.
    """
    # ExportArchive and not tf.saved_model.save: only the former can be run by TF Serving's C++ loader.
    model = run.model
    preprocess = run.preprocessor(model)
    raw = raw_function(model, preprocess)
    labels = tf.constant(run.labels)

    def serving_default(utterance: tf.Tensor, face_jpeg: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = raw(utterance, face_jpeg[:, tf.newaxis])
        return {"probabilities": probabilities, "label": tf.gather(labels, tf.argmax(probabilities, axis=1))}

    archive = keras.export.ExportArchive()
    archive.track(
        preprocess
    )  # the model's variables come in with the endpoint; tracked too, they would be stored twice
    archive.add_endpoint("serving_default", serving_default, [schema.tensor_spec(f) for f in schema.SERVING_INPUTS])
    out = run.path / "serving" / str(_next_version(run.path / "serving"))
    with files.new_folder(out) as folder:
        archive.write_out(str(folder), verbose=False)
        extra = folder / "assets.extra"
        extra.mkdir()
        about = {"labels": list(run.labels), "face_size": run.spec.face_size, "max_faces": run.spec.max_faces}
        (extra / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return out


def _next_version(serving: Path) -> int:
    versions = [int(p.name) for p in serving.glob("*") if p.name.isdigit()]
    return max(versions, default=0) + 1
