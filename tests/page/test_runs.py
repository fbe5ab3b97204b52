"""The runs of the page, used by several visitors at a time."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import pytest

from emotion_tf.errors import UserError
from emotion_tf.page.runs import MOST_LOADED, Runs


def test_models_are_used_by_one_thread_and_a_loaded_run_is_not_waited_for():
    loads, threads, is_working, may_end = [], set(), threading.Event(), threading.Event()

    def load(path):
        threads.add(threading.get_ident())
        loads.append(path.name)
        return path.name

    def work():
        threads.add(threading.get_ident())
        is_working.set()
        assert may_end.wait(20)

    runs = Runs(Path(), ["a", "b"], load)
    assert runs.open("a") == "a"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        working = pool.submit(runs.call, work)
        assert is_working.wait(20) and runs.open("a") == "a"
        waiting = [pool.submit(runs.open, "b") for _ in range(3)]
        assert not any(row.done() for row in waiting)
        may_end.set()
        assert working.result() is None and [row.result() for row in waiting] == ["b"] * 3
    assert loads == ["a", "b"] and len(threads) == 1 and threading.get_ident() not in threads


def test_the_runs_that_were_not_used_for_longest_are_closed():
    names, loads = ["a", "b", "c", "d"], []
    runs = Runs(Path(), names, lambda path: loads.append(path.name) or path.name)
    for name in (*names[:MOST_LOADED], "a", "d", "a", "b"):
        runs.open(name)
    assert loads == ["a", "b", "c", "d", "b"]
    with pytest.raises(UserError, match="There is no run 'x'"):
        runs.open("x")
