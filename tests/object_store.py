"""An S3 server on the loopback address (moto), which can be stopped and started again."""

import contextlib
import logging
import os

from moto.server import ThreadedMotoServer

BUCKET = "s3://bucket"
KEY = "PLANTED-KEY-/5f0c3e"
"""Stands for a secret, which nothing may repeat."""


class ObjectStore:
    """A server with an empty bucket.

    Attributes:
        environment: variables with which S3's libraries find it.
    """

    def __init__(self):
        import boto3

        logging.getLogger("werkzeug").disabled = True
        self._start(0)
        _, self._port = self._server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "planted-id-77d1",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with variables(self.environment):
            self.client = boto3.client("s3")
        self.client.create_bucket(Bucket="bucket")

    def _start(self, port):
        self._server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        self._server.start()

    def stop(self):
        self._server.stop()

    def start(self):
        """Starts it again on the same port, with the same objects."""
        self._start(self._port)

    def names(self, prefix=""):
        """Names of the objects below a folder of the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return [found["Key"].removeprefix(prefix) for page in pages for found in page.get("Contents", ())]

    def read(self, name):
        return self.client.get_object(Bucket="bucket", Key=name)["Body"].read()


@contextlib.contextmanager
def variables(values):
    """Sets environment variables inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
