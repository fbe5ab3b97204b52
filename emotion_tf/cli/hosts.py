"""The processes that train one run together: which strategy they need, and how to start several on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from emotion_tf import folders
from emotion_tf.cli.arguments import TrainArguments
from emotion_tf.errors import UserError
from emotion_tf.program import command, program

TF_CONFIG = "TF_CONFIG"
"""Variable with the addresses of the hosts, and the number of this one, as JSON."""


def choose_strategy(name: str) -> str:
    """Returns the strategy of --strategy; for `auto` multiworker with a cluster, else mirrored, also of one device."""
    if name != "auto":
        return name
    try:
        cluster = json.loads(os.environ.get(TF_CONFIG, "{}")).get("cluster", {})
        count = sum(len(cluster.get(job, [])) for job in ("chief", "worker"))
    except (ValueError, AttributeError, TypeError):
        count = 2  # `multiworker` says what is wrong with it
    return "multiworker" if count > 1 else "mirrored"


def how_to_continue(arguments: TrainArguments) -> str:
    """Returns a sentence that says how to continue a run after a host was lost."""
    run = folders.run_path(str(arguments.name))
    if not any((run / path).is_file() for path in folders.RUN.progress):
        return "No epoch was finished: start the same command again on all hosts, with --overwrite if the run exists."
    several = f" --local-workers {arguments.local_workers}" if arguments.local_workers > 1 else ""
    several = several or (" --strategy multiworker" if arguments.strategy == "multiworker" else "")
    resume = f"{program()} train --resume --name {shlex.quote(str(arguments.name))}"
    return f"{run} keeps the finished epochs. On all hosts, or on fewer: {resume}{several}"


def run_local_workers(arguments: TrainArguments) -> Path:
    """Runs this command in several processes, which train together; returns the folder of the run.

    Raises:
        UserError: a signal has ended a process.
        SystemExit: a process has failed, and has said why.
    """
    with contextlib.ExitStack() as stack:
        name = arguments.name or stack.enter_context(folders.free_folder(arguments.config)).name
    words = shlex.split(command())[len(program().split()) :]
    if not any(word.partition("=")[0] == "--name" for word in words):
        words = [*words, "--name", name]
    addresses = _free_addresses(arguments.local_workers)
    workers = [_start(words, addresses, index) for index in range(len(addresses))]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:  # which the workers have received, too
        codes = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for index, code in enumerate(codes):
        if code < 0:
            raise UserError(f"Worker {index} of {len(codes)} was ended by signal {-code}. {how_to_continue(arguments)}")
    if any(codes):
        raise SystemExit(max(codes))
    return folders.run_path(name)


def _free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def _start(words: list[str], addresses: list[str], index: int) -> subprocess.Popen[bytes]:
    """Starts a worker on the processor; the first one prints."""
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, TF_CONFIG: json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1"}
    modules = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(modules)
    output = None if index == 0 else subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "emotion_tf", *words], env=environment, stdout=output)
