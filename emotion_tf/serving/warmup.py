"""Warm-up requests of an export, `assets.extra/tf_serving_warmup_requests`.

A server runs them before it reports that it is ready, so the first user does not wait. Each request is stored with the
outputs of the Keras model, which `export --verify` compares with the export's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from emotion_tf.data.verify import CRC, HEADER
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.serving.graph import ServingGraph
from emotion_tf.serving.messages import fill_request, read_tensor
from emotion_tf.serving.predictor import Arrays, byte_strings, full_inputs

FILE = Path("assets.extra", "tf_serving_warmup_requests")
TEXTS = ("Yes, no!", "", "I did not expect that, and I am glad that you came all this way to tell me.", "Well?")
LINES = ("Ada: You did it!", "Ben: Did I?")
BATCHES = (1, 4)
MAX_BYTES = 1 << 28
"""Largest file."""


def example_requests(graph: ServingGraph) -> Iterator[tuple[str, Arrays]]:
    """Yields signature and inputs of each request: every signature, with batches of one and of several utterances."""
    pixels = _gradient(graph.face_size)
    crop, png = encode.encode_crop(pixels, graph.face_size), tf.io.encode_png(pixels).numpy()
    pictures = [crop, crop, b"", png[: len(png) // 2]]
    for size in BATCHES:
        texts, faces = list(TEXTS[:size]), pictures[:size]
        default = {"utterance": byte_strings([text.encode() for text in texts]), "face_jpeg": byte_strings(faces)}
        full = full_inputs(texts, [list(LINES)] * size, [[face, crop] for face in faces])
        tensors, _ = graph.inputs({name: tf.constant(value) for name, value in full.items()})
        yield "serving_default", default
        yield "serve_bytes", {"utterance": default["utterance"], "face_jpeg_bytes": default["face_jpeg"]}
        yield "serve_full", full
        yield "explain", full
        yield "serve_tensors", {name: value.numpy() for name, value in tensors.items()}


def _gradient(side: int) -> np.ndarray:
    """Returns a vertical gradient, uint8 (side, side, 3), in place of a face."""
    rows = np.linspace(200, 60, side).astype(np.uint8)
    return np.broadcast_to(rows[:, None, None], (side, side, 3)).copy()


def write_requests(path: Path, name: str, requests: Sequence[tuple[str, Arrays, Mapping[str, Any]]]) -> None:
    """Writes requests with their outputs.

    Args:
        path: the file.
        name: name of the model.
        requests: signature, inputs and outputs of each request.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs, outputs in requests:
            log = PredictionLog()
            fill_request(log.predict_log.request, name, signature, inputs)
            log.predict_log.response.model_spec.CopyFrom(log.predict_log.request.model_spec)
            for key, value in outputs.items():
                log.predict_log.response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString(deterministic=True))


def read_requests(path: Path) -> list[tuple[str, Arrays, Arrays]]:
    """Returns signature, inputs and outputs of each request. Raises UserError if there is none, or one is invalid."""
    try:
        logs = [PredictionLog.FromString(record).predict_log for record in _records(path)]
        requests = [
            (
                log.request.model_spec.signature_name,
                {key: read_tensor(value) for key, value in log.request.inputs.items()},
                {key: read_tensor(value) for key, value in log.response.outputs.items()},
            )
            for log in logs
        ]
    except (OSError, DecodeError, ValueError, TypeError) as error:
        raise UserError(f"Cannot read the warm-up requests {path}: {str(error)[:200]}. Export the run again.") from None
    if not requests:
        raise UserError(f"{path}: No warm-up requests. Expected those that `export` writes. Export the run again.")
    return requests


def _records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file. TensorFlow's own reader crashes on a length that is too large."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    content, start = path.read_bytes(), 0
    while start < len(content):
        length = HEADER.unpack_from(content, start)[0] if len(content) - start >= HEADER.size else len(content)
        end = start + HEADER.size + length
        if end + CRC.size > len(content):
            raise ValueError(f"it is cut, or no TFRecord file, at byte {start}")
        yield content[start + HEADER.size : end]
        start = end + CRC.size
