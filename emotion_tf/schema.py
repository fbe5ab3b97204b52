"""Every feature once: the record's writer and parser, `keras.Input`s and the serving signature derive from here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Feature:
    """One feature: its name, dtype and shape without the batch; `None` is a length that varies."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    about: str = ""


RECORD = (
    Feature("schema_version", "int64", (), "SCHEMA_VERSION of the program that wrote the record"),
    Feature("dialogue_id", "string", (), "dialogue, unique inside a split"),
    Feature("utterance_id", "string", (), "utterance, unique inside a dialogue"),
    Feature("speaker", "string", (), "who speaks"),
    Feature("utterance", "string", (), "what is said, UTF-8; empty: no text"),
    Feature("tokens", "int64", (None,), "word pieces of the utterance with [CLS] and [SEP], not cut"),
    Feature("context", "string", (None,), "past utterances of the dialogue, oldest first"),
    Feature("context_speaker", "string", (None,), "who said them"),
    Feature("future", "string", (None,), "utterances after it, in order of speaking"),
    Feature("future_speaker", "string", (None,), "who says them"),
    Feature("face_jpeg", "string", (None,), "aligned face crops, square JPEG; none: no face"),
    Feature("face_mask", "int64", (None,), "1 for each crop that is a real frame"),
    Feature("clip", "string", (None,), "film of the utterance, as PATH or PATH#t=START,END; none: pictures were given"),
    Feature("face_problem", "string", (), "why there is no face; empty with a face or when pictures were given"),
    Feature("face_policy", "string", (), "what chose the face among those of the clip; empty: it was given"),
    Feature("face_score", "float32", (), "of the chosen face under that policy"),
    Feature("face_margin", "float32", (), "its lead over the next best; infinite: there was no other"),
    Feature("face_track_length", "int64", (), "sampled frames that the face was followed through"),
    Feature("face_tracks", "int64", (), "faces of the clip that there were to choose from"),
    Feature("face_frames", "int64", (), "sampled frames of the clip"),
    Feature("clip_seconds", "float32", (), "from the first to the last sampled frame"),
    Feature("face_box", "float32", (None,), "left, top, width, height in the frame's pixels, four numbers a crop"),
    Feature("face_time", "float32", (None,), "seconds from the clip's start, of each crop"),
    Feature("face_sharpness", "float32", (None,), "variance of the Laplacian of each crop: low is blurred"),
    Feature("face_height", "float32", (None,), "height of the box in the frame's pixels, of each crop"),
    Feature("face_rivals", "float32", (None,), "boxes of all faces in the frame at face_rivals_time, the chosen first"),
    Feature("face_rivals_time", "float32", (), "seconds from the clip's start"),
    Feature("label", "int64", (), "index into the data set's labels"),
    Feature("weight", "float32", (), "weight of the utterance in loss and metrics"),
)
"""What one `tf.train.Example` holds."""

TEXT_INPUTS = (
    Feature("input_word_ids", "int32", (None,), "word piece ids (TF-Hub's BERT names)"),
    Feature("input_mask", "int32", (None,), "1 for a real word piece"),
    Feature("input_type_ids", "int32", (None,), "segment"),
)
WORD_INPUTS = (Feature("word_ids", "int32", (None,), "word ids; 0 padding, 1 unknown"),)
CONTEXT_INPUTS = (Feature("context_word_ids", "int32", (None,), "word ids of the lines around it, nearest first"),)


def face_inputs(face_size: int) -> tuple[Feature, ...]:
    """The face tower's inputs for square crops of `face_size` pixels."""
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
    Feature("context", "string", (None,), "lines said before, `Speaker: utterance`, oldest first; empty: none"),
    Feature("face_jpeg", "string", (None,), "JPEGs or PNGs of aligned face crops; empty: none"),
)
"""`serve_full`, and `explain`."""

SERVING_OUTPUTS = (
    Feature("probabilities", "float32", (None,), "calibrated, by class; each row sums to 1"),
    Feature("logits", "float32", (None,), "what they are made of, by class; of an ensemble their logarithms"),
    Feature("label", "string", (), "the most probable class"),
    Feature("text_present", "bool", (), "whether a text was read: the utterance, or lines said before it"),
    Feature("face_present", "bool", (), "whether a face was read; false where no picture could be decoded"),
)
"""What each of them gives."""

EXPLAIN_OUTPUTS = (
    Feature("words", "string", (None,), "the words of the utterance, as they are written; padded with empty ones"),
    Feature("word_attributions", "float32", (None,), "how much each speaks for the label, in nats"),
    Feature("face_attributions", "float32", (None, None, None), "Grad-CAM of each crop, as large as the crop"),
)
"""What `explain` gives besides."""


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data: kept with the data set and with every run.

    Attributes:
        labels: class names; the order is that of the logits.
        face_size: side of the square face crops in pixels.
        max_faces: most crops of one utterance.
        lower_case: whether the word-piece tokenizer folds case and accents.
        tokenizer: what `prepare --tokenizer` named.
        tokenizer_sha256: of the tokenizer's vocabulary and case.
        data_sha256: of the data set's shards, all together.
        crops: the `--faces.*` options that its faces were found with; empty: they were given as pictures.
        context: most past, and most future, utterances kept with each.
    """

    labels: tuple[str, ...]
    face_size: int
    max_faces: int
    lower_case: bool
    tokenizer: str
    tokenizer_sha256: str
    data_sha256: str = ""
    crops: dict[str, Any] = field(default_factory=dict)
    context: int = 0


def to_example(values: Mapping[str, Any]) -> bytes:
    """Serialises one record (deterministically). `values` has every name of `RECORD`; strings may be str or bytes."""
    features = {f.name: _to_feature(f, values[f.name]) for f in RECORD}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _to_feature(feature: Feature, value: Any) -> tf.train.Feature:
    items = list(value) if feature.shape else [value]
    if feature.dtype == "string":
        items = [item.encode() if isinstance(item, str) else item for item in items]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=items))
    if feature.dtype == "float32":
        return tf.train.Feature(float_list=tf.train.FloatList(value=items))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=items))


def parse_examples(serialized: tf.Tensor, names: Iterable[str]) -> dict[str, tf.Tensor]:
    """Parses a batch of records at once.

    Args:
        serialized: string (B,).
        names: the features wanted.

    Returns:
        Tensors (B,), and RaggedTensors (B, None) for features whose length varies.
    """
    wanted = set(names)
    spec = {f.name: _parse_spec(f) for f in RECORD if f.name in wanted}
    return tf.io.parse_example(serialized, spec)


def _parse_spec(feature: Feature) -> Any:
    dtype = tf.as_dtype(feature.dtype)
    if feature.shape:
        return tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature((), dtype)


def tensor_spec(feature: Feature) -> tf.TensorSpec:
    """The batched `tf.TensorSpec` of a feature, for signatures."""
    return tf.TensorSpec((None, *feature.shape), tf.as_dtype(feature.dtype), name=feature.name)
