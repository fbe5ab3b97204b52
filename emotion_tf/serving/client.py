"""A client of TensorFlow Serving, by gRPC or REST, for models that `export` wrote.

The client crops and aligns faces with the code of `prepare`, and sends only the crops. The served graph does the rest.
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
import urllib3
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from typing_extensions import TypedDict

from emotion_tf import documents
from emotion_tf.data import images
from emotion_tf.documents import Name, Text
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import crop_photo
from emotion_tf.faces.detect import Detector
from emotion_tf.program import program
from emotion_tf.runs.facts import ModelFacts
from emotion_tf.serving import warmup
from emotion_tf.serving.confined import read_tensor
from emotion_tf.serving.predict import Arrays, Prediction, Predictor, check_answer, full_inputs

BATCH = 32
"""Utterances per request."""
MAX_MESSAGE_BYTES = 64 << 20
MAX_CONNECTIONS = 64
ATTEMPTS = 4
FIRST_DELAY = 0.1
"""Seconds before the second attempt; it doubles with each one."""
SIGNATURE = "serve_full"
Photo = str | Path | bytes


class Client(Predictor):
    """Predictions of a model on a server. Threads may share an instance.

    Args:
        address: HOST:PORT for gRPC; http://HOST:PORT or https://HOST:PORT for REST.
        facts: facts of the served model; see `runs.facts.read_facts`.
        model: name of the model on the server. Default: the name of its run.
        timeout: seconds to wait for a response, all attempts together. A request is sent again only if the server is
            UNAVAILABLE or the connection fails. After any other error the server may have processed it already.
        batch: utterances per request.
        detect: face detector for `predict_photos`, which needs one.
    """

    def __init__(
        self,
        address: str,
        facts: ModelFacts,
        model: str = "",
        timeout: float = 10.0,
        batch: int = BATCH,
        detect: Detector | None = None,
    ) -> None:
        if timeout <= 0 or batch < 1:
            raise UserError(f"Expected a timeout above 0 and a batch of at least 1. Received: {timeout}, {batch}.")
        self.facts, self.model, self.timeout, self.batch = facts, model or facts.name, timeout, batch
        self.source, self._detect = f"The model {self.model} of {address}", detect
        self._transport: Transport = (Rest if "://" in address else Grpc)(address, self.model, timeout)

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
        pixels = images.decode_photo(photo) if isinstance(photo, bytes) else images.read_pixels(Path(photo))
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


class Unavailable(UserError):
    """The server cannot be reached, or cannot answer yet."""


class Transport(ABC):
    """A protocol to reach a server."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        self.address, self.model, self.timeout = address, model, timeout

    def call(self, signature: str, inputs: Arrays) -> Arrays:
        """Returns the outputs of a signature. Raises UserError if the server gives none."""
        end, delay = time.monotonic() + self.timeout, FIRST_DELAY
        for remaining in reversed(range(ATTEMPTS)):
            try:
                return self._call_once(signature, inputs, max(0.001, end - time.monotonic()))
            except Unavailable:
                if not remaining or time.monotonic() + delay > end:
                    raise
            time.sleep(delay * random.uniform(0.8, 1.2))  # jitter: clients that failed together retry apart
            delay *= 2
        raise AssertionError("unreachable")

    @abstractmethod
    def _call_once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        """Calls a signature once. Raises `Unavailable` if another attempt may help."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Returns whether the server has loaded the model."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def _unavailable(self, detail: str) -> Unavailable:
        return Unavailable(
            f"No server answers at {self.address} ({_one_line(detail)}). Expected TensorFlow Serving. Start it with: "
            f"{program()} serve RUN"
        )

    def _timed_out(self) -> UserError:
        return UserError(
            f"{self.address} gave no answer within {self.timeout:g} s. Raise --timeout, or send fewer utterances."
        )

    def _not_found(self, detail: str) -> UserError:
        return UserError(
            f"{self.address} has no model {self.model!r} ({_one_line(detail)}). Expected its name there: --model NAME."
        )

    def _rejected(self, code: str, detail: str) -> UserError:
        return UserError(
            f"{self.address} rejected the request ({code}: {_one_line(detail)}). Expected an export of this version."
        )


class Grpc(Transport):
    """TensorFlow Serving's gRPC API."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        super().__init__(address, model, timeout)
        limits = [(f"grpc.max_{way}_message_length", MAX_MESSAGE_BYTES) for way in ("send", "receive")]
        # `Transport.call` alone decides what is sent again
        self._channel = grpc.insecure_channel(address, [*limits, ("grpc.enable_retries", 0)])
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict
        self._status = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus

    def _call_once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        try:
            request = warmup.fill_request(PredictRequest(), self.model, signature, inputs)
            response = self._predict(request, timeout=seconds)
        except grpc.RpcError as error:
            code, detail = error.code(), error.details() or ""
            if code == grpc.StatusCode.UNAVAILABLE:
                raise self._unavailable(detail) from None
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._timed_out() from None
            if code == grpc.StatusCode.NOT_FOUND:
                raise self._not_found(detail) from None
            raise self._rejected(code.name, detail) from None
        try:
            return {name: read_tensor(value) for name, value in response.outputs.items()}
        except (ValueError, TypeError) as error:
            raise self._rejected("invalid answer", str(error)) from None

    def is_ready(self) -> bool:
        """Queries `ModelService.GetModelStatus`."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model
        try:
            versions = self._status(request, timeout=1.0).model_version_status
        except grpc.RpcError:
            return False
        return any(version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE for version in versions)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class Answer(TypedDict, total=False):
    """An answer of the REST API: the outputs by column, or an error."""

    outputs: dict[str, list[Any]]
    error: Text


class VersionStatus(TypedDict):
    """The state of a version of a model."""

    state: Name


class Status(TypedDict):
    """The answer of the model status API."""

    model_version_status: list[VersionStatus]


class Rest(Transport):
    """TensorFlow Serving's REST API."""

    def __init__(self, address: str, model: str, timeout: float) -> None:
        super().__init__(address.rstrip("/"), model, timeout)
        self._url = f"{self.address}/v1/models/{model}"
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))

    def _call_once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        # column format, in which bytes are {"b64": ...}
        columns = {name: _to_json(value.tolist(), binary="jpeg" in name) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns})
        try:
            end = time.monotonic() + seconds
            with self._session.post(f"{self._url}:predict", data=body, timeout=seconds, stream=True) as response:
                content = _read(response, end)
        except requests.ReadTimeout:
            raise self._timed_out() from None
        except requests.RequestException as error:
            raise self._unavailable(str(error)) from None
        try:
            answer = documents.parse_answer(content, Answer, self.address)
        except UserError as error:
            answer = {"error": str(error) if response.status_code == 200 else content.decode(errors="replace")[:200]}
        if response.status_code == 200 and "outputs" in answer:
            try:
                return {name: np.array(value) for name, value in answer["outputs"].items()}
            except ValueError as error:  # lists of different lengths
                raise self._rejected("invalid answer", str(error)) from None
        detail = str(answer.get("error", "no outputs"))
        if response.status_code == 503:
            raise self._unavailable(detail)
        if response.status_code == 404:
            raise self._not_found(detail)
        raise self._rejected(str(response.status_code), detail)

    def is_ready(self) -> bool:
        """Queries the model status API."""
        try:
            end = time.monotonic() + 1.0
            with self._session.get(self._url, timeout=1.0, stream=True) as response:
                status = documents.parse_answer(_read(response, end), Status, self.address)
        except (requests.RequestException, UserError):
            return False
        return any(version["state"] == "AVAILABLE" for version in status["model_version_status"])

    def close(self) -> None:
        """Closes all connections."""
        self._session.close()


def _read(response: requests.Response, end: float) -> bytes:
    """Returns the body of an answer, of at most `MAX_MESSAGE_BYTES`; a longer one is cut, and then no JSON.

    Raises:
        requests.ReadTimeout: the body goes on after `end`, a value of `time.monotonic`, or nothing arrives any more.
        requests.ConnectionError: the connection fails.
    """
    content = bytearray()
    try:
        # `read1` returns what has arrived, so that a server cannot delay the next look at the clock byte by byte
        while (block := response.raw.read1(1 << 20, decode_content=True)) and len(content) <= MAX_MESSAGE_BYTES:
            content += block
            if time.monotonic() > end:
                raise requests.ReadTimeout
    except urllib3.exceptions.ReadTimeoutError:
        raise requests.ReadTimeout from None
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(str(error)) from None
    return bytes(content[:MAX_MESSAGE_BYTES])


def _to_json(value: Any, binary: bool) -> Any:
    """Converts nested lists of bytes to the JSON of TensorFlow Serving's REST API."""
    if isinstance(value, list):
        return [_to_json(item, binary) for item in value]
    return {"b64": base64.b64encode(value).decode()} if binary else value.decode()


def _one_line(detail: str) -> str:
    return " ".join(detail.split())[:200]
