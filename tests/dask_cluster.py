"""A scheduler of Dask and two workers, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT


class DaskCluster:
    """A scheduler and two workers, each with a nanny that starts it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.file)]
        self.processes += [
            self._start("worker", "--scheduler-file", self.file, "--nthreads", "1", "--local-directory", folder / name)
            for name in ("w0", "w1")
        ]

    def _start(self, kind, *words):
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
        command = [sys.executable, "-m", "dask", kind, *map(str, words), "--no-dashboard"]
        log = (self.folder / "dask.log").open("ab")
        environment = {**os.environ, "PYTHONPATH": paths}
        return subprocess.Popen(
            command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
        )

    @property
    def address(self) -> str:
        while not self.file.exists() or not self.file.read_text():
            time.sleep(0.1)
        return json.loads(self.file.read_text())["address"]

    def kill_worker(self) -> None:
        """Kills the process of a worker, which its nanny started."""
        nanny = self.processes[1].pid
        for path in Path(f"/proc/{nanny}/task").glob("*/children"):
            for pid in path.read_text().split():
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)
                    return
        raise AssertionError("no worker")

    def close(self) -> None:
        for process in self.processes:  # with the processes of a worker
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
