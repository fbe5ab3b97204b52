"""How fast clips become crops, and in how much memory: `python -m benchmarks.faces CLIP [CLIP ...] --model YUNET.onnx`.

Throughput: the clips, repeated, through a loop in one process that decodes every frame and detects faces in the sampled
ones (what any program must do at least), and through the pool of `prepare`, in turn. Memory: `prepare clips` of 200 and
of 2,000 rows; the peak of all its processes together.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from rich.console import Console
from rich.table import Table

from benchmarks import reporting
from emotion_tf.config import CropConfig
from emotion_tf.faces.detect import load_detector
from emotion_tf.faces.frames import Piece
from emotion_tf.faces.pool import Clip, crop_all

CONFIG = CropConfig()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=4, help="passes over the clips")
    parser.add_argument("--rows", type=int, nargs=2, default=(200, 2000), help="rows of the two tables for memory")
    arguments = parser.parse_args()
    load = functools.partial(load_detector, "yunet", arguments.model)
    clips = arguments.clips * arguments.repeat
    table = Table("", "clips/s", "share of processes x loop")
    loop = len(clips) / _seconds_of_loop(clips, load)
    table.add_row("loop, one process", f"{loop:.2f}", "")
    for processes in (1, arguments.processes):
        rate = len(clips) / _seconds_of_pool(clips, load, processes)
        table.add_row(f"pool of {processes}", f"{rate:.2f}", f"{rate / loop / processes:.2f}")
    console = Console(width=100)
    console.print(table)
    memory = Table("rows", "peak of all processes, MB", "seconds")
    for rows in arguments.rows:
        peak, seconds = _memory(arguments.clips[0], arguments.model, rows, arguments.processes)
        memory.add_row(str(rows), f"{peak / 1e6:.0f}", f"{seconds:.0f}")
    console.print(memory)


def _seconds_of_loop(clips: list[Path], load: functools.partial) -> float:
    cv2.setNumThreads(1)
    detect, began = load(), time.monotonic()
    for path in clips:
        capture, wanted = cv2.VideoCapture(str(path)), 0.0
        while True:
            ok, pixels = capture.read()
            if not ok:
                break
            if capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 >= wanted:
                wanted += 1 / CONFIG.rate
                detect(pixels)
        capture.release()
    return time.monotonic() - began


def _seconds_of_pool(clips: list[Path], load: functools.partial, processes: int) -> float:
    began = time.monotonic()
    for _ in crop_all([Clip((Piece(path),)) for path in clips], CONFIG, load, 112, processes):
        pass
    return time.monotonic() - began


def _memory(clip: Path, model: Path, rows: int, processes: int) -> tuple[int, float]:
    """Peak bytes of `prepare clips` and its processes, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(clip, Path(folder) / clip.name)
        lines = [f"train,{n // 10},{n},A,Utterance {n}.,joy,{clip.name}" for n in range(rows)]
        table = Path(folder) / "table.csv"
        table.write_text("split,dialogue_id,utterance_id,speaker,utterance,emotion,clip\n" + "\n".join(lines) + "\n")
        words = ["main.py", "prepare", "clips", str(table), "--out", f"{folder}/out", "--tokenizer", "learned"]
        words += ["--faces.detector-model", str(model), "--processes", str(processes)]
        began, peak = time.monotonic(), 0
        running = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        while running.poll() is None:
            peak = max(peak, sum(_resident(pid) for pid in _family(running.pid)))
            time.sleep(0.1)
        if running.returncode:
            raise SystemExit(f"prepare clips ended with {running.returncode}")
        return peak, time.monotonic() - began


def _family(pid: int) -> list[int]:
    """A process and its descendants (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    reporting(main)
