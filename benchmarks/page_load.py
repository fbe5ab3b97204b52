"""Load on the page: `python -m benchmarks.page_load RUN [--seconds 600] [--visitors 20] [--think 1] [--model YUNET]`.

Starts `demo RUN` as a process of its own and enters each question once, alone. Then all visitors enter theirs at the
same time, each with a pause between two questions. Most enter texts, some pictures, clips and films; each answer must
equal the one that was given alone, explanation included. One visitor in ten is hostile: picture bombs, values of wrong
types, large bodies, foreign files, unknown routes, broken JSON, requests that never end or are replayed, answers that
nobody collects. Prints the requests by kind and status with the percentiles of their seconds, and the memory of the
server and its child processes (Linux). The exit code is 1 after an error 500, a wrong answer or a lost connection.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import make_parser, process_tree, resident_bytes, run_benchmark
from benchmarks._page_visitors import HostileVisitor, Question, Visitor, draw_questions
from emotion_tf.errors import UserError

UPLOAD = 20
QUESTIONS_OF_A_VISIT = 5


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--visitors", type=int, default=20)
    arguments.add_argument("--think", type=float, default=1.0, help="seconds between two questions of a visitor")
    arguments.add_argument("--model", type=Path, help="YuNet's ONNX file; by default that of the program")
    return arguments


class Log:
    """The requests of all visitors, wrong answers, and the server's memory."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.requests: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
        self.faults: list[str] = []
        self.memory: list[tuple[float, int, int]] = []

    def note(self, kind: str, status: str, seconds: float) -> None:
        """Adds a request."""
        self.requests[kind].append((status, seconds))
        if status == "500" or (status != "200" and not kind.startswith("hostile")):
            self.faults.append(f"{kind}: {status} after {time.monotonic() - self.start:.0f} s")


def main() -> None:
    """Runs the load and prints its tables."""
    arguments = parser().parse_args()
    if not 1 <= arguments.visitors <= 400:
        raise UserError(f"Invalid `--visitors`. Expected 1 to 400. Received: {arguments.visitors}.")
    if arguments.seconds <= 0:
        raise UserError(f"Expected `--seconds` above 0. Received: {arguments.seconds:g}.")
    if not arguments.run.is_dir():
        raise UserError(f"No run at {arguments.run}. Expected the folder of a run.")
    with tempfile.TemporaryDirectory() as folder, _server(arguments) as (process, address):
        questions, name = draw_questions(Path(folder)), arguments.run.resolve().name
        alone = Visitor(address, name, lambda *_: None, 0)
        with alone.visit() as session:
            expected = [alone.ask(question, session) for question in questions]
        log, ended = Log(), threading.Event()

        def work(seed: int) -> None:
            if seed % 10 == 9:
                _attack(HostileVisitor(address, name, log.note, seed, UPLOAD * 2**20), arguments.think, ended, log)
            else:
                _visit(Visitor(address, name, log.note, seed), questions, expected, arguments.think, ended, log)

        with ThreadPoolExecutor(arguments.visitors) as pool:
            visitors = [pool.submit(work, seed) for seed in range(arguments.visitors)]
            while time.monotonic() < log.start + arguments.seconds:
                tree = process_tree(process.pid)
                own, children = resident_bytes(tree[0]), sum(resident_bytes(pid) for pid in tree[1:])
                log.memory.append((time.monotonic() - log.start, own, children))
                time.sleep(1)
            ended.set()
            for visitor in visitors:
                visitor.result()
    _print(log, arguments)
    sys.exit(bool(log.faults))


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serves the page while the block runs. Yields its process and its address."""
    command = [sys.executable, "main.py", "demo", str(arguments.run), "--port", "0", "--upload", str(UPLOAD)]
    command += ["--faces.detector-model", str(arguments.model)] if arguments.model else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = next((line for line in process.stdout if line.startswith("Page: ")), "")  # type: ignore[union-attr]
        if not line:
            raise UserError(f"`demo` ended with exit code {process.wait()}.")
        yield process, line.split()[1]
    finally:
        process.terminate()
        process.wait()


def _visit(
    visitor: Visitor,
    questions: list[Question],
    expected: list[list[str]],
    think: float,
    ended: threading.Event,
    log: Log,
) -> None:
    weights = [question.weight for question in questions]
    while not ended.is_set():
        try:
            with visitor.visit() as session:
                for n in visitor.random.choices(range(len(questions)), weights, k=QUESTIONS_OF_A_VISIT):
                    if ended.wait(think * visitor.random.uniform(0.5, 1.5)):
                        return
                    if visitor.ask(questions[n], session) != expected[n]:
                        log.faults.append(f"{questions[n].kind}: another answer to {questions[n].text!r}")
        except httpx.TransportError as error:
            log.note("connection", type(error).__name__, 0.0)


def _attack(visitor: HostileVisitor, think: float, ended: threading.Event, log: Log) -> None:
    while not ended.wait(think * visitor.random.uniform(0.5, 1.5)):
        try:
            visitor.act()
        except httpx.TransportError as error:
            log.note("connection of a hostile visitor", type(error).__name__, 0.0)


def _print(log: Log, arguments: argparse.Namespace) -> None:
    console = Console(width=120)
    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "gradio"))
    console.print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    hostile = arguments.visitors // 10
    console.print(f"{arguments.visitors} visitors, {hostile} of them hostile, {arguments.seconds:g} s")
    table = Table("kind", "requests", "by status", "p50, s", "p95, s", "p99, s")
    for kind, rows in sorted(log.requests.items()):
        statuses = ", ".join(f"{status}: {n}" for status, n in sorted(Counter(status for status, _ in rows).items()))
        percentiles = np.percentile([seconds for _, seconds in rows], (50, 95, 99))
        table.add_row(kind, str(len(rows)), statuses, *(f"{seconds:.2f}" for seconds in percentiles))
    console.print(table)
    memory = Table("memory, MB", "page", "its child processes")
    for name, second in (("start", 0.0), ("after a fifth", 0.2), ("middle", 0.5), ("end", 1.0)):
        _, own, children = min(log.memory, key=lambda row: abs(row[0] - second * arguments.seconds))
        memory.add_row(name, f"{own / 1e6:.0f}", f"{children / 1e6:.0f}")
    memory.add_row("peak", *(f"{max(row[n] for row in log.memory) / 1e6:.0f}" for n in (1, 2)))
    console.print(memory)
    for fault, n in Counter(log.faults).most_common(20):
        console.print(f"{n} x {fault}", markup=False)


if __name__ == "__main__":
    run_benchmark(main)
