"""A client of TensorFlow Serving, by gRPC or REST, for models that `export` wrote.

The client crops and aligns faces with the code of `prepare`, and sends only the crops. The served graph does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.faces.crops import crop_photo
from emotion_tf.faces.detect import Detector
from emotion_tf.runs.facts import ModelFacts
from emotion_tf.serving.predictor import Arrays, Prediction, Predictor, check_answer, full_inputs
from emotion_tf.serving.transport import Server, connect

BATCH = 32
"""Utterances per request."""
SIGNATURE = "serve_full"
Photo = str | Path | bytes


class Client(Predictor):
    """Predictions of a model on a server. Threads may share an instance.

    Args:
        address: HOST:PORT for gRPC, grpcs://HOST:PORT with TLS; http://HOST:PORT or https://HOST:PORT for REST.
        facts: facts of the served model; see `runs.facts.read_facts`.
        model: name of the model on the server. Default: the name of its run.
        timeout: seconds to wait for a response, all attempts together. A request is sent again only if the server is
            UNAVAILABLE (by REST 429, 502, 503 or 504) or the connection fails. After any other error the server may
            have processed it already.
        batch: utterances per request.
        detect: face detector for `predict_photos`, which needs one.
        ca: PEM file of the certificates that sign the server's, for TLS. Default: those that gRPC and requests trust.
        authorization: value of the header `authorization`, such as "Bearer TOKEN". It is not sent in the clear to
            another machine.

    Raises:
        UserError: an argument is invalid; see `transport.Server`.
    """

    def __init__(
        self,
        address: str,
        facts: ModelFacts,
        model: str = "",
        timeout: float = 10.0,
        batch: int = BATCH,
        detect: Detector | None = None,
        ca: Path | None = None,
        authorization: str = "",
    ) -> None:
        if not timeout > 0 or batch < 1:  # nor nan
            raise UserError(f"Expected a timeout above 0 and a batch of at least 1. Received: {timeout}, {batch}.")
        self.facts, self.model, self.timeout, self.batch = facts, model or facts.name, timeout, batch
        self.address, self._detect = address, detect
        self.source = f"The model {self.model} of {address}"
        self._transport = connect(Server(address, self.model, timeout, ca, authorization))

    def predict_photos(
        self,
        utterances: Sequence[str],
        photos: Sequence[Photo | None],
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Prediction:
        """Predicts the emotion of each utterance from its text and a photo.

        The largest face in the photo is found and aligned. A photo without a face, or None, leaves the text.

        Raises:
            UserError: as for `predict`; a photo cannot be read; the client has no detector.
        """
        return self.predict(utterances, [self._crop(photo) for photo in photos], contexts)

    def _crop(self, photo: Photo | None) -> list[bytes] | None:
        if photo is None:
            return None
        if self._detect is None:
            raise UserError("`predict_photos` needs a face detector. Expected one as `detect`. Received: None.")
        pixels = encode.decode_photo(photo) if isinstance(photo, bytes) else encode.read_pixels(Path(photo))
        return list(crop_photo(pixels, self._detect, self.facts.face_size).jpegs) or None

    def wait_until_ready(self, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
        """Waits until the model is ready. Returns whether it became ready in time and before `alive` returned false."""
        end = time.monotonic() + seconds
        while alive() and time.monotonic() < end:
            if self._transport.is_ready():
                return True
            time.sleep(0.1)
        return False

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _predict_batch(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        batches = []
        for i in range(0, len(utterances), self.batch):
            rows = slice(i, i + self.batch)
            inputs = self._inputs(utterances[rows], contexts[rows], crops[rows])
            outputs = self._transport.call(SIGNATURE, inputs)
            batches.append(check_answer(outputs, inputs, self.facts, self.source))
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _inputs(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        # Pads to a fixed number of lines and crops: a server batches requests of several clients only if their shapes
        # are equal.
        count = self.facts.context
        lines = [[line for line in context if line] for context in contexts]
        nearest = [context[max(0, len(context) - count) :] for context in lines]
        return full_inputs(utterances, nearest, crops, max(1, count), max(1, self.facts.max_faces))
