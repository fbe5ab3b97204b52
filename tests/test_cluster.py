"""A function on a cluster: in order, whatever ends; by a client that pretends, and by one of Dask's in this process."""

from __future__ import annotations

import contextlib
import operator
import time
from concurrent.futures import ThreadPoolExecutor

import distributed
import distributed.comm
import pytest
from helpers import ROOT

from emotion_tf import cluster
from emotion_tf.cluster import TRIES, Cluster, check_scheduler, compute, connect
from emotion_tf.errors import UserError


class PretendedFuture:
    def __init__(self, value, worker):
        self.value, self.worker = value, worker

    def add_done_callback(self, call):
        self.call = call

    def result(self, timeout):
        return self.value

    def cancel(self):
        pass


class PretendedClient:
    """Workers that run what they have when somebody looks at them. An item of `lethal` ends its worker instead."""

    status = "running"

    def __init__(self, workers, threads=1, lethal=()):
        self.workers = {f"w{n}": threads for n in range(workers)}
        self.threads, self.lethal, self.futures, self.ends, self.born = threads, lethal, [], [], workers

    def submit(self, run, versions, function, arguments, workers, **_):
        self.futures.append(PretendedFuture(function(*arguments), workers[0]))
        return self.futures[-1]

    def nthreads(self):
        for worker in list(self.workers):
            own = [future for future in self.futures if future.worker == worker]
            assert len(own) <= self.threads
            self.futures = [future for future in self.futures if future.worker != worker]
            if any(future.value in self.lethal for future in own):
                self.ends.append(sorted(future.value for future in own))
                del self.workers[worker]
                self.workers[f"w{self.born}"] = self.threads
                self.born += 1
            else:
                for future in own:
                    future.call(future)
        return dict(self.workers)

    def cancel(self, futures, force):
        pass


class LostResult(PretendedFuture):
    """A future that was finished, but its worker has ended with the result."""

    asked = 0

    def result(self, timeout):
        self.asked += 1
        assert self.asked < 5, "it is asked for ever"
        raise distributed.TimeoutError


class ForgetfulClient(PretendedClient):
    """Its first worker finishes an item, and ends."""

    lost = None

    def submit(self, *arguments, workers, **options):
        future = super().submit(*arguments, workers=workers, **options)
        if workers == ["w0"]:
            self.futures[-1] = self.lost = LostResult(future.value, "w0")
        return self.futures[-1]

    def nthreads(self):
        if self.lost and self.lost.asked:
            self.workers = {"w1": 1}
        return super().nthreads()


def test_a_worker_that_ends_before_it_hands_a_result_over():
    client = ForgetfulClient(1)
    assert list(Cluster(client, "tcp://x:1").map(operator.add, [(1, 2)], "lost")) == [3]
    assert client.lost.asked == 1


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(cluster, "POLL", 0.0)


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 4), (3, 2)])
def test_an_item_that_ends_its_workers_is_given_up_and_no_other(workers, threads):
    client = PretendedClient(workers, threads, lethal=(5, 6, 40))
    items = [(n, 0) if n % 7 else f"known {n}" for n in range(50)]
    results = list(Cluster(client, "tcp://x:1").map(operator.add, items, "lost"))
    assert results == [
        f"known {n}" if n % 7 == 0 else "lost" if n in (5, 6, 40) else n for n in range(50)
    ]  # fmt: skip
    for lethal in (5, 6, 40):
        ends = [end for end in client.ends if lethal in end]
        assert len(ends) <= TRIES and ends[-1] == [lethal]  # the last one beside no other


def test_items_are_read_only_as_far_ahead_as_the_workers_need():
    read = []

    def items():
        for n in range(1000):
            read.append(n)
            yield n, 0

    results = Cluster(PretendedClient(2), "tcp://x:1").map(operator.add, items(), None)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(read) <= 10 + 2 * cluster.AHEAD
    results.close()


def test_it_waits_for_workers_and_says_so_once(capsys):
    client = PretendedClient(2)
    workers, client.workers = client.workers, {}
    results = Cluster(client, "tcp://x:1").map(operator.add, late(client, workers), None)
    assert list(results) == list(range(40))
    assert capsys.readouterr().err == "No worker at tcp://x:1: waiting for one\n"


def late(client, workers):
    """Items, of which the tenth comes with the workers."""
    for n in range(40):
        if n == 10:
            client.workers = workers
        yield n, 0


@pytest.mark.parametrize(
    "address", ["x", "x:1", "http://x:1", "tcp://x", "tcp://:1", "tcp://x:0", "tcp://x:70000", "tcp://x:1/y"]
)
def test_an_invalid_address(address):
    with pytest.raises(UserError, match="Expected the address of Dask's scheduler"):
        check_scheduler(address)
    check_scheduler("tcp://[::1]:8786")


def test_without_dask(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'emotion_tf\[cluster\]'"):
        check_scheduler("tcp://x:1")


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    with pytest.raises(UserError, match="No scheduler of Dask at tcp://127.0.0.1:1"), connect("tcp://127.0.0.1:1"):
        pass


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler with one thread as worker, in this process."""
    from distributed import LocalCluster

    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(protocol="tcp", **options) as local:
        yield local


def test_a_function_of_a_real_scheduler(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "POLL", 0.1)
    with connect(scheduler.scheduler_address) as workers:
        items = [(n, 1) for n in range(40)] + ["known"]
        assert list(workers.map(operator.add, items, None)) == [*range(1, 41), "known"]
        with pytest.raises(UserError, match="No face"):
            list(workers.map(raise_user_error, [("No face",)], None))
        with pytest.raises(ZeroDivisionError):
            list(workers.map(operator.truediv, [(1, 0)], None))


def raise_user_error(message):
    raise UserError(message)


def raise_missing_module():
    raise ModuleNotFoundError("No module named 'emotion_tf.cluster'")


def test_workers_with_another_version_or_without_the_program(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "POLL", 0.1)
    missing = pytest.raises(UserError, match=r"cannot run this program: No module.* Install emotion_tf")
    with connect(scheduler.scheduler_address) as workers, missing:
        list(workers.map(raise_missing_module, [()], None))
    for name, other in (("Python", "3.9"), ("emotion_tf", "0.0"), ("opencv", "1.0")):
        with pytest.raises(UserError, match=f"has {name} .* Expected that of this machine, {other}"):
            cluster._run({**cluster.versions(), name: other}, operator.add, (1, 2))


def test_parts_that_may_use_tensorflow(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "POLL", 0.1)
    monkeypatch.setattr(cluster, "start_tensorflow", lambda: None)
    address = scheduler.scheduler_address
    assert list(compute(address, operator.add, ((n, 1) for n in range(5)), 5, "adding", "part")) == [1, 2, 3, 4, 5]
    with pytest.raises(UserError, match=r"^The worker on .*: No face$"):
        list(compute(address, raise_user_error, [("No face",)], 1, "adding", "part"))
    monkeypatch.setattr(cluster, "_model_versions", lambda: {"tensorflow": "2"})
    with pytest.raises(UserError, match="has tensorflow 2. Expected that of this machine, 1"):
        cluster._compute({"tensorflow": "1"}, b"")


def test_a_part_that_is_given_up_ends_the_task(monkeypatch):
    workers = Cluster(PretendedClient(2, lethal=(5,)), "tcp://x:1")
    monkeypatch.setattr(cluster, "start_tensorflow", lambda: None)
    monkeypatch.setattr(cluster, "connect", lambda address: contextlib.nullcontext(workers))
    results = compute("tcp://x:1", operator.add, ((n, 0) for n in range(9)), 13, "adding", "shard", 4)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="^adding: 3 workers ended in shard 10 of 13, often for lack of memory"):
        next(results)


def test_threads_open_what_they_share_once():
    opened = []
    opens = cluster.once(lambda name: opened.append(name) or (time.sleep(0.05), name)[1])
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(opens, "aaaa")) == list("aaaa") and opened == ["a"]
    assert opens("b") == "b" and opens("a") == "a" and opened == ["a", "b", "a"]


def test_a_scheduler_that_ends(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "POLL", 0.1)
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    local = LocalCluster(protocol="tcp", **options)
    with pytest.raises(UserError, match="does not answer any more"), connect(local.scheduler_address) as workers:
        results = workers.map(operator.add, [(n, 1) for n in range(1000)], None)
        next(results)
        local.close()
        list(results)


@pytest.mark.parametrize("error", [distributed.CancelledError(), distributed.comm.CommClosedError()])
def test_a_scheduler_that_ends_before_it_hands_a_result_over(monkeypatch, error):
    def result(self, timeout):
        raise error

    monkeypatch.setattr(PretendedFuture, "result", result)
    with pytest.raises(UserError, match="The scheduler at tcp://x:1 does not answer any more"):
        list(Cluster(PretendedClient(1), "tcp://x:1").map(operator.add, [(1, 2)], None))


def test_requirements_name_the_extra():
    text = (ROOT / "pyproject.toml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("cluster = "))
    wanted = [word.strip(' "') for word in line.partition("[")[2].rstrip("]").replace(",<", "|").split(",")]
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert len(wanted) == 2 and all(word.replace("|", ",<") in lines for word in wanted)
