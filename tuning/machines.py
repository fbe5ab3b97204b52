"""Several machines: KerasTuner's distributed mode, in which a chief gives trials to workers over gRPC."""

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
from tuning.arguments import host_and_port
from tuning.oracle import LOST_AFTER, PLAN

GOODBYE = 10.0
"""Seconds that a chief waits, after the last trial, for its workers to hear that there is none."""
PATIENCE = 60
"""Seconds that a worker waits for an answer, where KerasTuner waits an hour."""


@contextlib.contextmanager
def serving(oracle: Any, address: str) -> Iterator[None]:
    """Gives trials to workers that come to `address`, while the block runs and until they know that it is over.

    Raises:
        UserError: nothing can listen at the address.
    """
    host, port = host_and_port(address)
    # one thread, as KerasTuner has it; without SO_REUSEPORT a second chief at the same address is refused
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(oracle_chief.OracleServicer(oracle), server)
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise UserError(
            f"Cannot listen at {address}. Expected an address of this machine and a port that nobody uses."
        ) from None
    server.start()
    try:
        yield
        end = time.monotonic() + GOODBYE
        while oracle.tuner_ids and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        server.stop(grace=1).wait()


def watch(oracle: Any) -> None:
    """Raises UserError when workers came to a chief that runs no trial itself, and none of them is left."""
    silent = 0.0 if oracle.last_word is None else time.monotonic() - oracle.last_word
    if silent > LOST_AFTER:
        raise UserError(
            f"All workers are gone: none has spoken for {silent:.0f} s. What is finished is kept: go on with --resume, "
            "and start workers again."
        )


@contextlib.contextmanager
def joined(address: str) -> Iterator[Any]:
    """KerasTuner's client of the chief at `address`: an oracle whose trials are there.

    Raises:
        UserError: nobody answers there, at the start or later.
    """
    host, port = host_and_port(address)
    os.environ["KERASTUNER_ORACLE_IP"], os.environ["KERASTUNER_ORACLE_PORT"] = host, str(port)
    os.environ["KERASTUNER_TUNER_ID"] = worker_name()
    # gRPC would send what is meant for the next room to the proxy of the house
    os.environ["no_grpc_proxy"] = ",".join(filter(None, [os.environ.get("no_grpc_proxy"), host]))  # noqa: SIM112
    oracle_client.TIMEOUT = PATIENCE
    try:
        yield oracle_client.OracleClient(None)
    except grpc.RpcError as error:
        raise UserError(
            f"The chief at {address} does not answer ({_code(error)}). Expected a search started there with "
            "--tuner.role chief; if it ended with an error, it says so itself."
        ) from None


def _code(error: grpc.RpcError) -> str:
    return error.code().name if isinstance(error, grpc.Call) else type(error).__name__


def plan_of(client: Any) -> str:
    """What the chief tells its workers."""
    return client.get_space().values[PLAN]


def worker_name() -> str:
    """This process among all machines' workers."""
    return f"{socket.gethostname()}-{os.getpid()}"
