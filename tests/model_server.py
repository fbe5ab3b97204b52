"""A small server with TensorFlow Serving's gRPC and REST APIs, by the genuine protos.

As a program it stands in for `tensorflow_model_server`, with the flags that `serve` passes."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import ssl
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


class RequestError(Exception):
    """An error response."""

    def __init__(self, code, detail):
        super().__init__(detail)
        self.code, self.detail = code, detail


HTTP = {"NOT_FOUND": 404, "UNAVAILABLE": 503, "INVALID_ARGUMENT": 400}


class ModelServer:
    """Serves models: gRPC on `port`, REST on `rest_port`.

    Args:
        models: name -> function of signature and inputs.
        delay: seconds before each response.
        unavailable: number of requests that fail as UNAVAILABLE before the first response.
        tls: paths of a private key and of a certificate for localhost, for connections with TLS.
        authorization: value of the header `authorization` without which a request is refused, as by a proxy in front.
    """

    def __init__(self, models, delay=0.0, unavailable=0, port=0, rest_port=0, threads=8, tls=None, authorization=""):
        self.tls, self.authorization = tls, authorization
        self.models, self.delay, self.unavailable = models, delay, unavailable
        self.requests = deque(maxlen=100)  # bounded: a server may run for long
        self._lock = threading.Lock()
        self._grpc = grpc.server(ThreadPoolExecutor(threads), options=[("grpc.max_receive_message_length", 64 << 20)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predict(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Status(self), self._grpc)
        if tls:
            pair = [path.read_bytes() for path in tls]
            self.port = self._grpc.add_secure_port(f"localhost:{port}", grpc.ssl_server_credentials([pair]))
        else:
            self.port = self._grpc.add_insecure_port(f"127.0.0.1:{port}")
        handler = type("Handler", (_Rest,), {"server_of_models": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", rest_port), handler)
        self.rest_port = self._http.server_address[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls[1], tls[0])
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    @property
    def addresses(self):
        if self.tls:
            return f"grpcs://localhost:{self.port}", f"https://localhost:{self.rest_port}"
        return f"127.0.0.1:{self.port}", f"http://127.0.0.1:{self.rest_port}"

    def admits(self, headers):
        return not self.authorization or headers.get("authorization") == self.authorization

    def __enter__(self):
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._grpc.stop(None)
        self._http.shutdown()
        self._http.server_close()

    def call(self, name, signature, inputs):
        with self._lock:
            self.requests.append((signature, {key: value.shape for key, value in inputs.items()}))
            is_unavailable, self.unavailable = self.unavailable > 0, self.unavailable - 1
        time.sleep(self.delay)
        if is_unavailable:
            raise RequestError("UNAVAILABLE", "the model is being loaded")
        if name not in self.models:
            raise RequestError("NOT_FOUND", f"Servable not found for request: Latest({name})")
        try:
            return self.models[name](signature, inputs)
        except KeyError as error:
            raise RequestError("INVALID_ARGUMENT", f"Serving signature key or input {error} not found.") from None
        except tf.errors.OpError as error:
            raise RequestError("INVALID_ARGUMENT", error.message) from None


class _Predict(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self.server = server

    def Predict(self, request, context):
        if not self.server.admits(dict(context.invocation_metadata())):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")
        spec = request.model_spec
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        try:
            outputs = self.server.call(spec.name, spec.signature_name or "serving_default", inputs)
        except RequestError as error:
            context.abort(getattr(grpc.StatusCode, error.code), error.detail)
        response = predict_pb2.PredictResponse(model_spec=spec)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


class _Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self.server = server

    def GetModelStatus(self, request, context):
        if request.model_spec.name not in self.server.models:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        status = get_model_status_pb2.ModelVersionStatus(version=1, state=available)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=[status])


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.removeprefix("/v1/models/")
        if name not in self.server_of_models.models:
            return self._send(404, {"error": f"Could not find any versions of model {name}"})
        self._send(200, {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {}}]})

    def do_POST(self):
        if not self.server_of_models.admits(self.headers):
            self.rfile.read(int(self.headers["Content-Length"]))
            return self._send(401, {"error": "no valid token"})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path).group(1)
        inputs = {key: _array(value) for key, value in body["inputs"].items()}
        try:
            outputs = self.server_of_models.call(name, body.get("signature_name", "serving_default"), inputs)
        except RequestError as error:
            return self._send(HTTP[error.code], {"error": error.detail})
        self._send(200, {"outputs": {key: _to_json(value.tolist()) for key, value in outputs.items()}})

    def _send(self, code, value):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        with contextlib.suppress(BrokenPipeError):  # the client has disconnected
            self.end_headers()
            self.wfile.write(data)


def _array(value):
    """Converts JSON to an array by TensorFlow Serving's rule: {"b64": ...} is bytes, other strings are UTF-8."""

    def decode(value):
        if isinstance(value, list):
            return [decode(item) for item in value]
        if isinstance(value, dict):
            (text,) = value.values()
            return base64.b64decode(text, validate=True)
        return value.encode() if isinstance(value, str) else value

    decoded = decode(value)
    first = decoded
    while isinstance(first, list) and first:
        first = first[0]
    return np.array(decoded, object if isinstance(first, bytes) else None)


def _to_json(value):
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def main():
    """Serves the newest version below --model_base_path until it is terminated."""
    from emotion_tf.runs.export import SavedModel

    parser = argparse.ArgumentParser()
    for flag in ("port", "rest_api_port"):
        parser.add_argument(f"--{flag}", type=int)
    for flag in ("model_name", "model_base_path", "batching_parameters_file", "enable_batching"):
        parser.add_argument(f"--{flag}")
    flags = parser.parse_args()
    if not Path(flags.batching_parameters_file).is_file():
        sys.exit("no batching parameters")
    newest = max((p for p in Path(flags.model_base_path).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    saved = SavedModel(newest)
    with ModelServer({flags.model_name: saved.run}, port=flags.port, rest_port=flags.rest_api_port):
        threading.Event().wait()


if __name__ == "__main__":
    main()
