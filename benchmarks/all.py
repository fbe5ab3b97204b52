"""All benchmarks of speed and memory, small: `python -m benchmarks.all [--out FILE] [--minutes 15] [--clips CLIP ...]`.

Each runs in a process of its own, one after the other, as its command in the table. Writes the table as Markdown, with
machine, processor and versions (default: saved_models/bench.md). What fails, or what no time is left for, is a row that
says so; the exit code is then 1. CLIP is a video with faces; without one, nothing is measured on videos. `--peer` is
the interpreter of `benchmarks.train_step`. The other scripts of benchmarks/ measure quality, or minutes of load: they
are run alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import MAIN, MEASURES, Measure, make_parser, processor, run_benchmark
from emotion_tf import files
from emotion_tf.config.rules import Output
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import YUNET

PACKAGES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "tensorflow-text")
COMMANDS = (
    "start_up demo",
    "pipeline demo/data",
    "step demo/data",
    "serving demo/saved_models/run/serving/1 --calls 200 --calls-32 20",
    "film demo/saved_models/run CLIP --model YUNET",
    "faces CLIPS --model YUNET --repeat 1 --rows",
    "train_step --turns 1 --seconds 5 PEER",
    "tune demo/data --trials 3",
    "explain demo/saved_models/run",
    "precision cnn",
    "growth --utterances 4000 20000",
    "cached_features demo/data --face-init demo/saved_models/run --epochs 2",
)
"""The commands after `python -m benchmarks.`; the first one makes the data set, the run and its export."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("--out", type=Path, default=Path("saved_models/bench.md"), metavar="FILE")
    arguments.add_argument("--minutes", type=float, default=15.0)
    arguments.add_argument("--clips", type=Path, nargs="+", default=[], metavar="CLIP")
    arguments.add_argument("--model", type=Path, default=YUNET, help="YuNet's ONNX file, for the clips")
    arguments.add_argument("--peer", default="", metavar="PYTHON")
    return arguments


def main() -> None:
    """Runs the benchmarks and writes the table."""
    arguments = parser().parse_args()
    if arguments.minutes <= 0:
        raise UserError(f"Expected `--minutes` above 0. Received: {arguments.minutes:g}.")
    Output.FILE.check("--out", arguments.out)  # now, not after minutes
    for clip in arguments.clips:
        if not clip.is_file():
            raise UserError(f"No clip at {clip}. Expected a video file.")
    end = time.monotonic() + 60 * arguments.minutes
    words = {
        "CLIPS": shlex.join(str(clip.absolute()) for clip in arguments.clips),
        "CLIP": shlex.join(str(clip.absolute()) for clip in arguments.clips[:1]),
        "YUNET": shlex.quote(str(arguments.model.absolute())),
        "PEER": f"--peer {shlex.quote(arguments.peer)}" if arguments.peer else "",
    }
    rows, is_complete = [], True
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            shown = " ".join(command.split()) if arguments.peer else command.removesuffix(" PEER")
            if " CLIP" in command and not arguments.clips:
                rows.append(_row(shown, Measure("not measured", "needs --clips")))
                continue
            print(f"python -m benchmarks.{shown}", flush=True)
            arguments_of = shlex.split(" ".join(words.get(word, word) for word in command.split()))
            measures, fault = _run(arguments_of, Path(folder), end - time.monotonic())
            is_complete &= not fault
            measures += [Measure("not measured", fault)] * bool(fault)
            rows += [_row(shown, measure) for measure in measures]
    head = "| `python -m benchmarks.` | measure | value | share of the limit |\n|---|---|---|---|\n"
    text = f"{_machine()}\n\n{head}" + "".join(f"{row}\n" for row in rows)
    files.write_text(arguments.out, text)
    print(f"\n{text}\nTable: {arguments.out}")
    sys.exit(not is_complete)


def _row(command: str, measure: Measure) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in (f"`{command}`", *measure)) + " |"


def _run(command: list[str], folder: Path, seconds: float) -> tuple[list[Measure], str]:
    """Runs a benchmark in a folder; returns what it noted, and why it did not end well (else empty)."""
    notes = folder / "measures"
    notes.unlink(missing_ok=True)
    path = os.pathsep.join([str(MAIN.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:]],
        cwd=folder,
        env=os.environ | {MEASURES: str(notes), "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    fault = ""
    try:
        _, errors = process.communicate(timeout=max(1.0, seconds))
        if process.returncode:
            fault = (errors.strip() or "no message").splitlines()[-1]
    except subprocess.TimeoutExpired:
        fault = "no time was left"
    finally:
        _end_group(process)
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    return [Measure(*json.loads(line)) for line in lines], fault


def _end_group(process: subprocess.Popen[str]) -> None:
    """Ends a process that leads a session, and the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _machine() -> str:
    """Returns a line on the machine and the versions."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {processor()}, {os.cpu_count()} "
        f"processors, {memory:.0f} GB, load {os.getloadavg()[0]:.1f}; {', '.join(versions)}"
    )


if __name__ == "__main__":
    run_benchmark(main)
