"""A client of TensorFlow Serving, by gRPC or REST, for a model that `export` wrote.

Photos become aligned crops here, by the code of `prepare`; only crops travel. Everything else happens in the served
graph.
"""

from __future__ import annotations

import base64
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from emotion_tf.data import images
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import crop_photo
from emotion_tf.faces.detect import Detector
from emotion_tf.program import program
from emotion_tf.runs.facts import ModelFacts
from emotion_tf.serving import warmup
from emotion_tf.serving.predict import Arrays, Asked, Prediction, full_inputs

BATCH = 32
"""Utterances of one request."""
MOST_BYTES = 64 << 20
"""Of one message."""
CONNECTIONS = 64
TRIES = 4
FIRST_PAUSE = 0.1
SIGNATURE = "serve_full"
Photo = str | Path | bytes


class Client(Asked):
    """A served model, asked as a run is: `predict(utterances, faces, contexts)`. Threads may share it.

    Args:
        address: HOST:PORT for gRPC; http://HOST:PORT or https://HOST:PORT for REST.
        about: of the model that is served there; see `runs.facts.read_facts`.
        model: what the server calls it; empty: as its run.
        timeout: seconds for one answer, all tries together. It is tried again only when the server is UNAVAILABLE
            or the connection fails: whatever else it says, it has worked on it.
        batch: utterances of one request.
        detect: finds faces in photos; without it `predict_photos` cannot be asked.
    """

    def __init__(
        self,
        address: str,
        about: ModelFacts,
        model: str = "",
        timeout: float = 10.0,
        batch: int = BATCH,
        detect: Detector | None = None,
    ) -> None:
        if timeout <= 0 or batch < 1:
            raise UserError(f"Expected a timeout above 0 and a batch of at least 1. Received: {timeout}, {batch}.")
        self.about, self.model, self.timeout, self.batch = about, model or about.name, timeout, batch
        self.where, self._detect = f"The model {self.model} of {address}", detect
        self._transport: Transport = (Rest if "://" in address else Grpc)(address, self.model, timeout)

    def predict_photos(
        self,
        utterances: Sequence[str],
        photos: Sequence[Photo | None],
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Prediction:
        """As `predict`, with a photo of each utterance: the largest face in it is found and aligned. Without one, or
        for None, the text stands alone.

        Raises:
            UserError: as `predict`, a photo cannot be read, or there is no detector.
        """
        return self.predict(utterances, [self._crop(photo) for photo in photos], contexts)

    def _crop(self, photo: Photo | None) -> list[bytes] | None:
        if photo is None:
            return None
        if self._detect is None:
            raise UserError("Client: photos need `detect`, a face detector: see emotion_tf.faces.detect.load_detector.")
        pixels = images.decode_photo(photo) if isinstance(photo, bytes) else images.read_pixels(Path(photo))
        return list(crop_photo(pixels, self._detect, self.about.face_size).jpegs) or None

    def wait_until_ready(self, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
        """Waits until the server says that the model is ready; false when it does not in time, or is not `alive`."""
        end = time.monotonic() + seconds
        while alive() and time.monotonic() < end:
            if self._transport.ready():
                return True
            time.sleep(0.1)
        return False

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def _ask(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        found = []
        for i in range(0, len(utterances), self.batch):
            rows = slice(i, i + self.batch)
            inputs = self._inputs(utterances[rows], contexts[rows], crops[rows])
            found.append(self._checked(self._transport.ask(SIGNATURE, inputs), len(inputs["utterance"])))
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _inputs(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        # always as many lines and crops as the model reads: a server joins requests of several clients into one batch
        # only where their shapes are the same
        count = self.about.context
        said = [[line for line in lines if line] for lines in contexts]
        nearest = [lines[max(0, len(lines) - count) :] for lines in said]
        return full_inputs(utterances, nearest, crops, max(1, count), max(1, self.about.max_faces))

    def _checked(self, found: Arrays, rows: int) -> Arrays:
        """The outputs, if they are those of the model that `about` is of."""
        try:
            p, label = np.asarray(found["probabilities"], np.float32), found["label"]
            present = {name: np.asarray(found[name], bool) for name in ("text_present", "face_present")}
            names = [one.decode() if isinstance(one, bytes) else str(one) for one in np.asarray(label).tolist()]
            expected = [self.about.labels[i] for i in p.argmax(axis=1)]
            fits = p.shape == (rows, len(self.about.labels)) and np.allclose(p.sum(axis=1), 1, atol=1e-3)
            fits = fits and names == expected and all(one.shape == (rows,) for one in present.values())
        except (KeyError, IndexError, ValueError, TypeError, UnicodeDecodeError):
            fits = False
        if not fits:
            raise UserError(
                f"{self.where} is another one than {self.about.name}: its answer does not fit the labels "
                f"{', '.join(self.about.labels)}. Expected an export of that run; --model names it."
            )
        return {"probabilities": p, **present}


class Unavailable(UserError):
    """The server cannot be reached, or says that it cannot answer yet."""


class Transport(ABC):
    """How a server is reached."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        self.address, self.model, self.timeout = address, model, timeout

    def ask(self, signature: str, inputs: Arrays) -> Arrays:
        """Outputs of a signature. Raises UserError."""
        end, pause = time.monotonic() + self.timeout, FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                return self._once(signature, inputs, max(0.001, end - time.monotonic()))
            except Unavailable:
                if not left or time.monotonic() + pause > end:
                    raise
            time.sleep(pause * random.uniform(0.8, 1.2))  # clients that failed together shall not come back together
            pause *= 2
        raise AssertionError("unreachable")

    @abstractmethod
    def _once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        """The same, tried once."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server has the model and would answer."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def _down(self, detail: str) -> Unavailable:
        return Unavailable(
            f"No server answers at {self.address} ({_line(detail)}). Expected TensorFlow Serving; one is started by: "
            f"{program()} serve RUN"
        )

    def _slow(self) -> UserError:
        return UserError(
            f"{self.address} gave no answer within {self.timeout:g} s. Give it more (--timeout), or fewer utterances."
        )

    def _unknown(self, detail: str) -> UserError:
        return UserError(
            f"{self.address} has no model {self.model!r} ({_line(detail)}). Expected its name there: --model NAME."
        )

    def _refused(self, code: str, detail: str) -> UserError:
        return UserError(
            f"{self.address} did not take the request ({code}: {_line(detail)}). Expected an export of this version."
        )


class Grpc(Transport):
    """TensorFlow Serving's gRPC."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        super().__init__(address, model, timeout)
        limits = [(f"grpc.max_{way}_message_length", MOST_BYTES) for way in ("send", "receive")]
        # what is tried again, and how long, is in one place: `Transport.ask`
        self._channel = grpc.insecure_channel(address, [*limits, ("grpc.enable_retries", 0)])
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict
        self._status = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus

    def _once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        """By `PredictionService.Predict`."""
        try:
            answer = self._predict(warmup.fill(PredictRequest(), self.model, signature, inputs), timeout=seconds)
        except grpc.RpcError as error:
            code, detail = error.code(), error.details() or ""
            if code == grpc.StatusCode.UNAVAILABLE:
                raise self._down(detail) from None
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._slow() from None
            raise (
                self._unknown(detail) if code == grpc.StatusCode.NOT_FOUND else self._refused(code.name, detail)
            ) from None
        return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}

    def ready(self) -> bool:
        """By `ModelService.GetModelStatus`."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model
        try:
            found = self._status(request, timeout=1.0).model_version_status
        except grpc.RpcError:
            return False
        return any(one.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE for one in found)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class Rest(Transport):
    """TensorFlow Serving's REST."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        super().__init__(address.rstrip("/"), model, timeout)
        self._url = f"{self.address}/v1/models/{model}"
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))

    def _once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        """By `:predict` in columns; bytes travel as `{"b64": ...}`."""
        columns = {name: _json(value.tolist(), binary="jpeg" in name) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns})
        try:
            answer = self._session.post(f"{self._url}:predict", data=body, timeout=seconds)
        except requests.ReadTimeout:
            raise self._slow() from None
        except requests.RequestException as error:
            raise self._down(str(error)) from None
        try:
            found = answer.json()
        except ValueError:
            found = None
        found = found if isinstance(found, dict) else {"error": answer.text}
        if answer.status_code == 200 and isinstance(found.get("outputs"), dict):
            return {name: np.array(value) for name, value in found["outputs"].items()}
        detail = str(found.get("error", found))
        if answer.status_code == 503:
            raise self._down(detail)
        raise self._unknown(detail) if answer.status_code == 404 else self._refused(str(answer.status_code), detail)

    def ready(self) -> bool:
        """By the model status API."""
        try:
            found = self._session.get(self._url, timeout=1.0).json()["model_version_status"]
            return any(one["state"] == "AVAILABLE" for one in found)
        except (requests.RequestException, ValueError, KeyError, TypeError):
            return False

    def close(self) -> None:
        """Closes all connections."""
        self._session.close()


def _json(value: Any, binary: bool) -> Any:
    """Nested lists of bytes as TensorFlow Serving's REST takes them."""
    if isinstance(value, list):
        return [_json(one, binary) for one in value]
    return {"b64": base64.b64encode(value).decode()} if binary else value.decode()


def _line(detail: str) -> str:
    return " ".join(detail.split())[:200]
