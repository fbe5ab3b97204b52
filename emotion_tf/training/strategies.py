"""Strategies of `tf.distribute`: how the processes that train find each other, and what is said if one is lost."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from emotion_tf.errors import UserError

FIRST_PORT, PORTS = 15_000, 15_000
"""Ports of SLURM's jobs: each job has its own, since two may share a node."""
LOST = ("Collective ops is aborted", "coordination service", "unhealthy", "failed to connect", "Connection re")
"""What TensorFlow's errors say if a host does not answer."""


@dataclass(frozen=True)
class Cluster:
    """The devices that train, of this host or of several.

    Attributes:
        strategy: the strategy of `tf.distribute`; None if one device trains.
        hosts: addresses of the hosts; empty if there is one.
        index: number of this host.
    """

    strategy: tf.distribute.Strategy | None = None
    hosts: tuple[str, ...] = ()
    index: int = 0

    @property
    def writes(self) -> bool:
        """Whether this host writes the run."""
        return self.index == 0

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the scope in which the model is built and trained."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    @contextlib.contextmanager
    def errors(self, resume: Callable[[], str]) -> Iterator[None]:
        """Raises UserError in place of TensorFlow's error inside the block if another host does not answer.

        Hosts send heartbeats to host 0. When one is silent for ten seconds, or closes its connection, all operations
        that wait for it fail.

        Args:
            resume: returns a sentence that says how to continue.
        """
        try:
            yield
        except (tf.errors.OpError, RuntimeError) as error:
            if not self.hosts or not any(text in str(error) for text in LOST):
                raise
            raise UserError(
                f"Host {self.index} of {len(self.hosts)} ends, since another has ended or does not answer "
                f"({_reason(error)}). {resume()}"
            ) from None


def connect(name: str) -> Cluster:
    """Returns the cluster of a strategy. Several hosts wait for each other; TensorFlow must not have computed before.

    Args:
        name: `none`, `mirrored` (the GPUs of this host), or `multiworker` (several hosts).

    Raises:
        UserError: the environment does not say who the hosts are, or they cannot be reached.
    """
    if name == "multiworker":
        return _multiworker()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return Cluster(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return Cluster()


def _multiworker() -> Cluster:
    hosts, index = _read_environment()
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": hosts}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.OpError as error:
        raise UserError(
            f"Host {index} of {len(hosts)} ({hosts[index]}) did not reach the others ({', '.join(hosts)}): "
            f"{_reason(error)}. Start the command on all of them, with addresses that they can reach."
        ) from None
    return Cluster(strategy, tuple(hosts), index)


def _read_environment() -> tuple[list[str], int]:
    """Returns the addresses of the hosts and the number of this one, from TF_CONFIG or from SLURM. Raises UserError."""
    if text := os.environ.get("TF_CONFIG"):
        return _read_tf_config(text)
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return _read_slurm()
    raise UserError(
        "--strategy multiworker needs the addresses of the hosts. Expected the variable TF_CONFIG, or a task that srun "
        "has started. Try it on this machine with --local-workers 2."
    )


def _read_tf_config(text: str) -> tuple[list[str], int]:
    try:
        about = json.loads(text)
        cluster, task = about["cluster"], about["task"]
        chiefs, workers = ([str(address) for address in cluster.get(job, [])] for job in ("chief", "worker"))
        index = int(task["index"]) + (len(chiefs) if task["type"] == "worker" else 0)
        hosts = chiefs + workers
        is_valid = task["type"] in ("chief", "worker") and 0 <= index < len(hosts)
        is_valid = is_valid and all(":" in address for address in hosts)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_valid = False
    if not is_valid:
        raise UserError(
            'Invalid TF_CONFIG. Expected {"cluster": {"worker": ["host0:port", "host1:port"]}, "task": {"type": '
            f'"worker", "index": 0}}}}, with another index on each host. Received: {text[:200]}'
        )
    return hosts, index


def _read_slurm() -> tuple[list[str], int]:
    try:
        port = FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", 0)) * 16 % PORTS
        # GPUs are counted in this process: the count of the resolver needs nvidia-smi, and SLURM assigns them
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        hosts = resolver.cluster_spec().as_dict()["worker"]
        return hosts, int(resolver.task_id)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"SLURM's variables do not describe the tasks: {error}. Start the command with srun, one task a node."
        ) from None


def _reason(error: Exception) -> str:
    message: Any = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in message.splitlines() if any(text in line for text in LOST)]
    line = (lines or message.strip().splitlines() or [type(error).__name__])[0]
    return line.removeprefix("Collective ops is aborted by: ").split(";")[0][:80]
