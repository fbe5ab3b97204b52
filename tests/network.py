"""Hosts for tests: network namespaces joined by a bridge; without the right to make them, processes of this host."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PORT = 7000


@dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        address: HOST:PORT, which no other host has.
        namespace: its network namespace, if it has one.
    """

    address: str
    namespace: str = ""


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Makes hosts, which are gone after the block."""
    names = [f"emotion{os.getpid()}x{number}" for number in range(count)]
    try:
        yield _namespaces(names) or [Host(f"127.0.0.1:{port}") for port in free_ports(count)]
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _namespaces(names: Sequence[str]) -> list[Host]:
    first = names[0]
    steps = [f"netns add {name}" for name in names]
    steps += [f"-n {first} link add b0 type bridge", f"-n {first} addr add 10.93.0.1/24 dev b0"]
    steps += [f"-n {first} link set dev b0 up"]
    for number, name in enumerate(names[1:], 1):
        steps += [
            f"-n {first} link add v{number} type veth peer name e0 netns {name}",
            f"-n {first} link set v{number} master b0 up",
            f"-n {name} addr add 10.93.0.{number + 1}/24 dev e0",
            f"-n {name} link set e0 up",
        ]
    steps += [f"-n {name} link set lo up" for name in names]
    try:
        for step in steps:
            subprocess.run(["ip", *step.split()], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [Host(f"10.93.0.{n}:{PORT}", name) for n, name in enumerate(names, 1)]


def free_ports(count: int) -> list[int]:
    """Returns ports of this host that nobody uses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
