"""The protocols of TensorFlow Serving, gRPC and REST, with TLS and an authorisation."""

from __future__ import annotations

import base64
import json
import random
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import requests
import urllib3
from typing_extensions import TypedDict

from emotion_tf import documents, files
from emotion_tf.documents import Name, Text
from emotion_tf.errors import UserError
from emotion_tf.program import program
from emotion_tf.serving import messages
from emotion_tf.serving.predictor import Arrays

MAX_MESSAGE_BYTES = 64 << 20
MAX_CONNECTIONS = 64
MAX_CERTIFICATES = 1 << 20
ATTEMPTS = 4
FIRST_DELAY = 0.1
"""Seconds before the second attempt; it doubles with each one."""
LOCAL = ("localhost", "127.0.0.1", "::1")
SECURE = ("https", "grpcs")
UNAVAILABLE = (429, 502, 503, 504)
"""HTTP codes that gRPC takes for UNAVAILABLE; a proxy in front of the server sends the others than 503."""
FORBIDDEN = ("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED")


@dataclass(frozen=True)
class Server:
    """A server, and how it is reached.

    Attributes:
        address: HOST:PORT for gRPC, grpcs://HOST:PORT for gRPC with TLS; http://... or https://... for REST.
        model: name of the model there.
        timeout: seconds to wait for a response, all attempts together.
        ca: PEM file of the certificates that sign the server's; None: those that gRPC and requests trust.
        authorization: value of the header `authorization`, such as "Bearer TOKEN"; empty: none.
    """

    address: str
    model: str
    timeout: float
    ca: Path | None = None
    authorization: str = ""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid address, and for a secret with a line break or sent in the clear."""
        if self._scheme not in ("", "http", *SECURE) or not self._host:
            raise UserError(
                "Invalid address of the server. Expected HOST:PORT or grpcs://HOST:PORT for gRPC, http://HOST:PORT or "
                f"https://HOST:PORT for REST. Received: {self.address!r}."
            )
        if self.ca and not self.is_secure:
            raise UserError(f"Certificates are for https:// and grpcs://. Received: {self.address!r}.")
        if not self.authorization:
            return
        if not (self.authorization.isascii() and self.authorization.isprintable()):
            raise UserError("Invalid authorisation. Expected one line of ASCII, such as 'Bearer TOKEN'.")
        if not self.is_secure and self._host not in LOCAL:
            raise UserError(
                f"The authorisation would be sent to {self.address} in the clear. Expected https:// or grpcs://."
            )

    @property
    def _scheme(self) -> str:
        return self.address.partition("://")[0].lower() if "://" in self.address else ""

    @property
    def _host(self) -> str:
        """The host; empty if there is none, the address cannot be read, or its port is above 65,535."""
        try:
            parts = urlsplit(self.address if "://" in self.address else f"//{self.address}")
            return (parts.hostname or "") if parts.port != 0 else ""  # reading the port checks it
        except ValueError:
            return ""

    @property
    def is_rest(self) -> bool:
        """Whether it is reached by REST."""
        return self._scheme.startswith("http")

    @property
    def is_secure(self) -> bool:
        """Whether the connection has TLS."""
        return self._scheme in SECURE


def connect(server: Server) -> Transport:
    """Returns the transport of a server. Raises UserError if the file of certificates cannot be read."""
    return Rest(server) if server.is_rest else Grpc(server)


class Unavailable(UserError):
    """The server cannot be reached, or cannot answer yet."""


class Transport(ABC):
    """A protocol to reach a server."""

    def __init__(self, server: Server) -> None:
        self.server, self.address, self.model, self.timeout = server, server.address, server.model, server.timeout

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
        if code in FORBIDDEN:
            return UserError(
                f"{self.address} does not admit this client ({code}: {_one_line(detail)}). Expected another "
                "authorisation: EMOTION_TF_AUTHORIZATION, or `authorization` from Python."
            )
        return UserError(
            f"{self.address} rejected the request ({code}: {_one_line(detail)}). Expected an export of this version."
        )


class Grpc(Transport):
    """TensorFlow Serving's gRPC API."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        limits = [(f"grpc.max_{way}_message_length", MAX_MESSAGE_BYTES) for way in ("send", "receive")]
        options = [*limits, ("grpc.enable_retries", 0)]  # `Transport.call` alone decides what is sent again
        target = self.address.partition("://")[2] or self.address
        if server.is_secure:
            roots = _read_certificates(server.ca) if server.ca else None
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._metadata = (("authorization", server.authorization),) if server.authorization else ()
        self._predict = self._method(messages.PREDICT, messages.PredictResponse)
        self._status = self._method(messages.STATUS, messages.GetModelStatusResponse)

    def _method(self, path: str, response: Any) -> Any:
        return self._channel.unary_unary(
            path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def _call_once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        try:
            request = messages.fill_request(messages.PredictRequest(), self.model, signature, inputs)
            response = self._predict(request, timeout=seconds, metadata=self._metadata)
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
            return {name: messages.read_tensor(value) for name, value in response.outputs.items()}
        except (ValueError, TypeError) as error:
            raise self._rejected("invalid answer", str(error)) from None

    def is_ready(self) -> bool:
        """Queries `ModelService.GetModelStatus`."""
        request = messages.GetModelStatusRequest()
        request.model_spec.name = self.model
        try:
            versions = self._status(request, timeout=1.0, metadata=self._metadata).model_version_status
        except grpc.RpcError:
            return False
        return any(version.state == messages.AVAILABLE for version in versions)

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


def _read_certificates(path: Path) -> bytes:
    """Returns the content of a file of certificates. Raises UserError if it has none, or is none."""
    expected = "certificates of at most 1 MB, in PEM"
    content = files.read_regular(path, MAX_CERTIFICATES, "file", expected)
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise UserError(f"{path}: No certificate in this file. Expected {expected}. Received: {len(content)} bytes.")
    return content


class Rest(Transport):
    """TensorFlow Serving's REST API."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._url = f"{self.address.rstrip('/')}/v1/models/{self.model}"
        self._session = requests.Session()
        self._options: dict[str, Any] = {"stream": True}
        if server.authorization:
            self._session.auth = self._authorize  # a header alone would give way to one of ~/.netrc
        if server.ca:
            _read_certificates(server.ca)
            self._options["verify"] = str(server.ca)  # of the session, it would give way to REQUESTS_CA_BUNDLE
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))

    def _call_once(self, signature: str, inputs: Arrays, seconds: float) -> Arrays:
        # column format, in which bytes are {"b64": ...}
        columns = {name: _to_json(value.tolist(), binary="jpeg" in name) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns})
        try:
            end = time.monotonic() + seconds
            with self._session.post(f"{self._url}:predict", data=body, timeout=seconds, **self._options) as response:
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
        if response.status_code in UNAVAILABLE:
            raise self._unavailable(detail)
        if response.status_code == 404:
            raise self._not_found(detail)
        raise self._rejected(str(response.status_code), detail)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self.server.authorization
        return request

    def is_ready(self) -> bool:
        """Queries the model status API."""
        try:
            end = time.monotonic() + 1.0
            with self._session.get(self._url, timeout=1.0, **self._options) as response:
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
