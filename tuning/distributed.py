"""Search on several machines: KerasTuner's distributed mode, in which a chief gives trials to workers over gRPC."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client

from emotion_tf.errors import UserError
from tuning.arguments import ANSWER_TIMEOUT, host_and_port
from tuning.oracle import LOST_AFTER, PLAN

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that a chief waits after the last trial, until its workers know that there is none."""


@contextlib.contextmanager
def serve_trials(oracle: Any, address: str) -> Iterator[None]:
    """Serves trials to workers at `address` while the block runs, and until the workers know that it has ended.

    Raises:
        UserError: the address is not of this machine, or its port is in use.
    """
    host, port = host_and_port(address)
    # one thread, as in KerasTuner; without SO_REUSEPORT a second chief at the same address is an error
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(oracle_chief.OracleServicer(oracle), server)
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise UserError(f"Cannot listen at {address}. Expected an address of this machine and a free port.") from None
    server.start()
    try:
        yield
        end = time.monotonic() + SHUTDOWN_TIMEOUT
        while oracle.tuner_ids and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        server.stop(grace=1).wait()


def check_workers(oracle: Any) -> None:
    """Raises UserError if a chief that runs no trial itself has lost all its workers."""
    silence = 0.0 if oracle.last_contact is None else time.monotonic() - oracle.last_contact
    if silence > LOST_AFTER:
        raise UserError(
            f"All workers are lost: no message for {silence:.0f} s. Finished trials are saved: continue with --resume, "
            "and start workers again."
        )


@contextlib.contextmanager
def connect(address: str) -> Iterator[Any]:
    """Yields KerasTuner's client of the chief at `address`, which is used as an oracle.

    Raises:
        UserError: the chief does not answer, at the start or later.
    """
    host, port = host_and_port(address)
    os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"] = host, str(port)
    os.environ["KERASTUNER_TUNER_ID"] = worker_name()
    # gRPC would send requests inside the local network to the proxy
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [os.environ.get("no_grpc_proxy"), host]))  # noqa: SIM112
    oracle_client.TIMEOUT = ANSWER_TIMEOUT
    try:
        yield oracle_client.OracleClient(None)
    except grpc.RpcError as error:
        raise UserError(
            f"The chief at {address} does not answer ({_code(error)}). Expected a search started there with "
            "--tuner.role chief; if the chief ended with an error, it has printed it."
        ) from None


def _code(error: grpc.RpcError) -> str:
    return error.code().name if isinstance(error, grpc.Call) else type(error).__name__


def receive_plan(client: Any) -> str:
    """Returns the plan of the search, as JSON, from the chief."""
    return client.get_space().values[PLAN]


def worker_name() -> str:
    """Returns the name of this process among the workers of all machines."""
    return f"{socket.gethostname()}-{os.getpid()}"
