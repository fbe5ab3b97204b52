"""Commands in processes that start at once: each is forked from one process that has imported everything.

That process has run no op of TensorFlow, so its children go on as new processes do after their imports. They have a
process group, a folder and streams of their own, and die by real signals. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Fork:
    """A command in a process of its own, with the interface of `subprocess.Popen`.

    Attributes:
        log: file of its output and errors.
        pid: its process and process group.
    """

    def __init__(self, pid: int, log: Path, exit_code: Path) -> None:
        self.pid, self.log, self._exit_code = pid, log, exit_code

    def poll(self) -> int | None:
        """Returns the exit code, which is negative after a signal; None while the process runs."""
        return int(self._exit_code.read_text()) if self._exit_code.exists() else None

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code at the end of the process. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.log), timeout or 0)
            time.sleep(0.02)
        return code

    def kill(self) -> None:
        """Kills the process."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, signal.SIGKILL)


class Forks:
    """The process that forks.

    Args:
        folder: an empty folder for what it and its children write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        words = [sys.executable, __file__]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) != "ready\n":
            assert line, "the process has died"

    def start(
        self, folder: Path, *words: object, script: Path = ROOT / "main.py", namespace: str = "", **environment: str
    ) -> Fork:
        """Starts a script with arguments in a folder, and in a network namespace if one is named."""
        self.count += 1
        paths = [self.folder / f"{self.count}.{name}" for name in ("log", "pid", "exit")]
        request = {
            "words": [str(script), *map(str, words)],
            "folder": str(folder),
            "namespace": namespace,
            "environment": environment,
            "paths": [*map(str, paths)],
        }
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        while not paths[1].exists():
            assert self._process.poll() is None
            time.sleep(0.01)
        return Fork(int(paths[1].read_text()), paths[0], paths[2])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _import_all() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for package in ("emotion_tf", "tuning"):
        module = importlib.import_module(package)
        for info in pkgutil.walk_packages(module.__path__, f"{package}."):
            if not info.name.startswith("emotion_tf.page"):
                importlib.import_module(info.name)
    from tensorflow.python.eager import context

    assert not context.context()._initialized, "threads of TensorFlow do not survive a fork"


def _write(path: str, number: int) -> None:
    part = Path(f"{path}.part")
    part.write_text(str(number))
    part.rename(path)


def _run(words: list[str], folder: str, namespace: str, environment: dict[str, str], log: str) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    if namespace:
        with open(f"/run/netns/{namespace}") as file:
            assert ctypes.CDLL(None).setns(file.fileno(), 0) == 0
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(source, descriptor)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    sys.exit()


def _serve() -> None:
    _import_all()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        log, pid_path, exit_path = request.pop("paths")
        if os.fork():
            with contextlib.suppress(ChildProcessError):  # those that have ended
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            continue
        pid = os.fork()
        if not pid:
            _run(**request, log=log)
        _write(pid_path, pid)
        _write(exit_path, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    os._exit(0)  # at once: no child needs what TensorFlow frees


if __name__ == "__main__":
    _serve()
