"""Several devices and hosts: the share of each, the environment that names them, and a host that is lost."""

import json

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.cli import hosts
from emotion_tf.cli.arguments import TrainArguments
from emotion_tf.config import Config
from emotion_tf.data.share import WHOLE, Share
from emotion_tf.errors import UserError
from emotion_tf.training import replicas, strategies
from emotion_tf.training.outputs import join_hosts

FIRST = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
CHIEF = {"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(("rows", "batch"), [(100, 16), (97, 16), (7, 16), (1, 5), (64, 32)])
def test_hosts_read_each_record_once_in_equally_many_steps(count, rows, batch):
    order = np.random.default_rng(0).permutation(rows)
    shares = [Share(host, count) for host in range(count)]
    parts = [share.of_batches(order, batch) for share in shares]
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert sum(share.size(batch) for share in shares) == batch
    steps = -(-rows // batch)
    for share, part in zip(shares, parts, strict=True):
        assert -(-len(part) // share.size(batch)) in (steps - 1, steps)  # the last batch may be empty
    whole = np.concatenate([np.arange(rows)[slice(*share.bounds(rows))] for share in shares])
    np.testing.assert_array_equal(whole, np.arange(rows))


def test_one_host_reads_the_order_as_it_is():
    order = np.arange(5)[::-1]
    assert WHOLE.of_batches(order, 2).tolist() == order.tolist() and WHOLE.size(7) == 7
    assert replicas.this_host() == replicas.Host()


@pytest.mark.parametrize("rows", [0, 2])
def test_only_an_empty_batch_is_padded(rows):
    batch = {"ids": tf.ones((rows, 3), tf.int32), "mask": tf.ones((rows, 1), tf.bool)}, tf.ones(rows), tf.ones(rows)
    inputs, label, weight = replicas.pad(batch)
    if rows:
        assert inputs["ids"].shape == (2, 3) and label.numpy().tolist() == weight.numpy().tolist() == [1, 1]
    else:
        assert (label.numpy().tolist(), weight.numpy().tolist()) == ([replicas.PADDING], [0])
        assert not inputs["ids"].numpy().any() and inputs["mask"].numpy().tolist() == [[False]]


def test_an_empty_batch_has_the_inputs_of_the_network():
    inputs, label, weight = replicas.empty_batch({"faces": tf.TensorSpec((None, None, 8, 8, 3), tf.uint8)})
    assert inputs["faces"].shape == (0, 1, 8, 8, 3) and inputs["faces"].dtype == tf.uint8
    assert (label.shape, weight.shape) == ((0,), (0,))


def test_the_outputs_of_one_host_are_not_copied():
    outputs = object()
    assert join_hosts(outputs, 3, 2) is outputs
    assert replicas.of_host_0(3, True) == (3, 1)
    assert replicas.all_hosts(True) and not replicas.all_hosts(False)


@pytest.mark.parametrize(("config", "expected"), [(FIRST, 1), (CHIEF, 1)])
def test_tf_config_says_who_the_hosts_are(monkeypatch, config, expected):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert strategies._read_environment() == (["a:1", "b:2"], expected)
    assert hosts.choose_strategy("auto") == "multiworker" and hosts.choose_strategy("none") == "none"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", json.dumps({**FIRST, "task": {"type": "ps", "index": 0}}), '{"cluster": {"worker": [1]}}']
)
def test_another_tf_config_is_refused_in_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"Invalid TF_CONFIG. Expected .* Received: ") as error:
        strategies._read_environment()
    example = str(error.value).split("Expected ")[1].split(", with another index")[0]
    monkeypatch.setenv("TF_CONFIG", example)
    assert strategies._read_environment() == (["host0:port", "host1:port"], 0)


def test_auto_is_several_hosts_only_if_tf_config_has_several(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert hosts.choose_strategy("auto") == "mirrored"
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}}))
    assert hosts.choose_strategy("auto") == "mirrored"
    assert strategies.connect("mirrored") == strategies.Cluster()  # one device


def test_slurm_says_who_the_hosts_are(monkeypatch):
    """Without nvidia-smi; each job has its own ports."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    slurm = {"STEP_NUM_TASKS": "3", "PROCID": "2", "STEP_NODELIST": "n[1-2]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in {**slurm, "JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert strategies._read_environment() == (["n1:15112", "n1:15113", "n2:15112"], 2)
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "x")
    with pytest.raises(UserError, match="SLURM's variables do not describe the tasks"):
        strategies._read_environment()


def test_without_addresses_there_is_one_line(monkeypatch, fault):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert "needs the name of the run" in fault("train", "--strategy", "multiworker")
    assert "Expected the variable TF_CONFIG" in fault("train", "--strategy", "multiworker", "--name", "x")


def test_options_that_exclude_each_other():
    for options in ({"strategy": "mirrored", "local_workers": 2}, {"strategy": "multiworker", "seeds": 2}):
        with pytest.raises(UserError, match="--strategy multiworker"):
            TrainArguments(Config(), **options)


def test_a_lost_host_is_one_line_that_says_how_to_continue(monkeypatch, tmp_path):
    cluster = strategies.Cluster(None, ("a:1", "b:2"), 1)
    lost = tf.errors.UnavailableError(None, None, "Graph\nCollective ops is aborted by: Connection reset by peer\nmore")
    with (
        pytest.raises(UserError, match=r"^Host 1 of 2 ends, since .*Connection reset by peer\). Continue\.$"),
        cluster.errors(lambda: "Continue."),
    ):
        raise lost
    for other in (tf.errors.InternalError(None, None, "a bug"), RuntimeError("another")):
        with pytest.raises(type(other)), cluster.errors(lambda: ""):
            raise other
    monkeypatch.setattr("emotion_tf.folders.RUNS", tmp_path)
    arguments = TrainArguments(Config(), name="r", local_workers=2)
    assert "start the same command again" in hosts.how_to_continue(arguments)
    (tmp_path / "r" / "checkpoint").mkdir(parents=True)
    (tmp_path / "r" / "checkpoint" / "last.npz").touch()
    assert hosts.how_to_continue(arguments).endswith(" train --resume --name r --local-workers 2")


def test_local_workers_run_the_same_command_with_their_numbers(monkeypatch, tmp_path):
    started = []

    class Worker:
        def __init__(self, words, env, stdout):
            started.append((words[3:], json.loads(env["TF_CONFIG"]), env["CUDA_VISIBLE_DEVICES"]))

        def wait(self):
            return -9 if len(started) == 4 else 0

        def kill(self):
            pass

    monkeypatch.setattr(hosts.subprocess, "Popen", Worker)
    monkeypatch.setattr("emotion_tf.folders.RUNS", tmp_path)
    monkeypatch.setattr("sys.argv", ["main.py", "train", "--local-workers", "2"])
    arguments = TrainArguments(Config(), local_workers=2)
    assert hosts.run_local_workers(arguments) == tmp_path / "demo-text-face"
    words = ["train", "--local-workers", "2", "--name", "demo-text-face"]
    assert [(w, c["task"]["index"], gpus) for w, c, gpus in started] == [(words, 0, "-1"), (words, 1, "-1")]
    assert started[0][1]["cluster"] == started[1][1]["cluster"] and len(started[0][1]["cluster"]["worker"]) == 2
    with pytest.raises(UserError, match="Worker 0 of 2 was ended by signal 9"):
        hosts.run_local_workers(arguments)
