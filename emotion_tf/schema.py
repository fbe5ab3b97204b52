"""All features: the record writer and parser, `keras.Input`s and serving signatures derive from this module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emotion_tf.modalities import MODALITIES

if TYPE_CHECKING:  # a client has features, but no TensorFlow
    import tensorflow as tf

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Feature:
    """A feature: name, dtype, shape without the batch dimension (`None`: variable length), and description."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    description: str = ""


RECORD = (
    Feature("schema_version", "int64", (), "SCHEMA_VERSION of the program that wrote the record"),
    Feature("dialogue_id", "string", (), "dialogue, unique within a split"),
    Feature("utterance_id", "string", (), "utterance, unique within a dialogue"),
    Feature("speaker", "string", (), "speaker"),
    Feature("utterance", "string", (), "utterance, UTF-8; empty: no text"),
    Feature("tokens", "int64", (None,), "word pieces of the utterance with [CLS] and [SEP], not truncated"),
    Feature("context", "string", (None,), "past utterances of the dialogue, oldest first"),
    Feature("context_speaker", "string", (None,), "their speakers"),
    Feature("future", "string", (None,), "future utterances of the dialogue, in order of speaking"),
    Feature("future_speaker", "string", (None,), "their speakers"),
    Feature("face_jpeg", "string", (None,), "aligned face crops, square JPEG; none: no face"),
    Feature("face_mask", "int64", (None,), "1 for each crop that is a real frame"),
    Feature(
        "clip", "string", (None,), "segments of clips, as PATH or PATH#t=START,END; none: the manifest names images"
    ),
    Feature("face_problem", "string", (), "why there is no face; empty: there is one, or the manifest names images"),
    Feature("face_policy", "string", (), "policy that selected the face in the clip; empty: the manifest names images"),
    Feature("face_score", "float32", (), "score of the face under that policy"),
    Feature("face_margin", "float32", (), "score minus the next best score; infinite: the only face"),
    Feature("face_track_length", "int64", (), "number of sampled frames in the face's track"),
    Feature("face_tracks", "int64", (), "number of tracks that the policy selected from"),
    Feature("face_frames", "int64", (), "number of sampled frames of the clip"),
    Feature("clip_seconds", "float32", (), "time from the first to the last sampled frame"),
    Feature("face_box", "float32", (None,), "left, top, width, height in pixels of the frame, four numbers per crop"),
    Feature("face_time", "float32", (None,), "seconds from the clip's start, of each crop"),
    Feature("face_sharpness", "float32", (None,), "variance of the Laplacian of each crop: low is blurred"),
    Feature("face_height", "float32", (None,), "height of the box in pixels of the frame, of each crop"),
    Feature(
        "face_rivals", "float32", (None,), "boxes of all faces in the frame at face_rivals_time, the selected one first"
    ),
    Feature("face_rivals_time", "float32", (), "seconds from the clip's start"),
    Feature("label", "int64", (), "index into the data set's labels"),
    Feature("weight", "float32", (), "weight of the utterance in loss and metrics"),
)
"""Features of a `tf.train.Example`."""

TEXT_INPUTS = (
    Feature("input_word_ids", "int32", (None,), "word piece ids (TF-Hub's BERT names)"),
    Feature("input_mask", "int32", (None,), "1 for a real word piece"),
    Feature("input_type_ids", "int32", (None,), "segment"),
)
PADDING_ID, UNKNOWN_WORD_ID = 0, 1
WORD_INPUTS = (Feature("word_ids", "int32", (None,), f"word ids; {PADDING_ID} padding, {UNKNOWN_WORD_ID} unknown"),)
CONTEXT_INPUTS = (Feature("context_word_ids", "int32", (None,), "word ids of the context, nearest line first"),)


def face_inputs(face_size: int) -> tuple[Feature, ...]:
    """Returns the face tower's inputs for square crops of `face_size` pixels."""
    return (
        Feature("faces", "uint8", (None, face_size, face_size, 3), "RGB crops (T, H, W, 3)"),
        Feature("face_mask", "bool", (None,), "true for a real crop, false for padding"),
    )


_UTTERANCE = Feature("utterance", "string", (), "UTF-8 text; empty: no text")
_FACE = "JPEG or PNG of an aligned face crop; empty: no face"

SERVING_INPUTS = (_UTTERANCE, Feature("face_jpeg", "string", (), _FACE))
"""`serving_default`. This signature never changes."""

SERVING_BYTES_INPUTS = (_UTTERANCE, Feature("face_jpeg_bytes", "string", (), _FACE))
"""`serve_bytes`: the same, named by TF Serving's rule for binary tensors."""

SERVING_FULL_INPUTS = (
    _UTTERANCE,
    Feature("context", "string", (None,), "previous lines, `Speaker: utterance`, oldest first; empty: none"),
    Feature("face_jpeg", "string", (None,), "JPEGs or PNGs of aligned face crops; empty: none"),
)
"""`serve_full`, and `explain`."""

SERVING_OUTPUTS = (
    Feature("probabilities", "float32", (None,), "calibrated, by class; each row sums to 1"),
    Feature(
        "logits", "float32", (None,), "by class; of an ensemble, the logarithm of its probabilities but for a constant"
    ),
    Feature("label", "string", (), "the predicted class: that with the highest logit"),
    *(Feature(f"{row.name}_present", "bool", (), row.presence) for row in MODALITIES.values()),
)
"""Outputs of these signatures."""

EXPLAIN_OUTPUTS = (
    Feature("words", "string", (None,), "words of the utterance as written, padded with empty strings"),
    Feature("word_attributions", "float32", (None,), "contribution of each word to the label, in nats"),
    Feature("face_attributions", "float32", (None, None, None), "Grad-CAM of each crop, at the size of the crop"),
)
"""Further outputs of `explain`."""


def to_example(values: Mapping[str, Any]) -> bytes:
    """Serialises a record deterministically.

    Args:
        values: name -> value for every feature of `RECORD`; strings may be str or bytes.
    """
    import tensorflow as tf

    features = {f.name: _to_feature(f, values[f.name]) for f in RECORD}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _to_feature(feature: Feature, value: Any) -> tf.train.Feature:
    import tensorflow as tf

    items = list(value) if feature.shape else [value]
    if feature.dtype == "string":
        items = [item.encode() if isinstance(item, str) else item for item in items]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=items))
    if feature.dtype == "float32":
        return tf.train.Feature(float_list=tf.train.FloatList(value=items))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=items))


def parse_examples(serialized: tf.Tensor, names: Iterable[str]) -> dict[str, tf.Tensor]:
    """Parses a batch of records.

    Args:
        serialized: string (B,).
        names: names of the features to parse.

    Returns:
        Tensors (B,), and RaggedTensors (B, None) for features of variable length.
    """
    import tensorflow as tf

    names = set(names)
    spec = {f.name: _parse_spec(f) for f in RECORD if f.name in names}
    return tf.io.parse_example(serialized, spec)


def _parse_spec(feature: Feature) -> Any:
    import tensorflow as tf

    dtype = tf.as_dtype(feature.dtype)
    if feature.shape:
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature((), dtype)


def tensor_spec(feature: Feature) -> tf.TensorSpec:
    """Returns the `tf.TensorSpec` of a batched feature, for signatures."""
    import tensorflow as tf

    return tf.TensorSpec((None, *feature.shape), tf.as_dtype(feature.dtype), name=feature.name)
