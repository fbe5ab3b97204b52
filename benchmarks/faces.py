"""Speed and memory of `prepare clips`: `python -m benchmarks.faces CLIP [CLIP ...]`.

Throughput: the clips, repeated, pass through a loop in one process that only decodes every frame and detects faces in
the sampled frames (the least that any program must do), and through the process pool of `prepare`. Memory: the peak of
all processes of `prepare clips` together, for 200 and for 2,000 rows.
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

from benchmarks import Measure, make_parser, note_measures, process_tree, resident_bytes, run_benchmark
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.containers import open_clip
from emotion_tf.faces.detect import YUNET, load_detector
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip, crop_all

CONFIG = CropConfig()


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("clips", nargs="+", type=Path)
    arguments.add_argument("--model", type=Path, default=YUNET, help="YuNet's ONNX file")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--repeat", type=int, default=4, help="passes over the clips")
    arguments.add_argument("--rows", type=int, nargs="*", default=(200, 2000), help="rows of the tables for memory")
    return arguments


def main() -> None:
    """Measures throughput and memory and prints both tables."""
    arguments = parser().parse_args()
    if min(arguments.repeat, arguments.processes) < 1:
        received = f"{arguments.repeat} and {arguments.processes}"
        raise UserError(f"Expected `--repeat` and `--processes` of at least 1. Received: {received}.")
    load = functools.partial(load_detector, "yunet", arguments.model)
    clips = arguments.clips * arguments.repeat
    throughput = Table("", "clips/s", "share of processes x loop")
    loop_rate = len(clips) / seconds_of_loop(clips, load)
    throughput.add_row("loop, one process", f"{loop_rate:.2f}", "")
    for processes in (1, arguments.processes):
        rate = len(clips) / _seconds_of_pool(clips, load, processes)
        share = f"{rate / loop_rate / processes:.2f}"
        note_measures([Measure(f"prepare clips, {processes} processes", f"{60 * rate:.0f} clips a minute", share)])
        throughput.add_row(f"pool of {processes}", f"{rate:.2f}", f"{rate / loop_rate / processes:.2f}")
    console = Console(width=100)
    console.print(throughput)
    memory = Table("rows", "peak of all processes, MB", "seconds")
    for rows in arguments.rows:
        peak, seconds = _memory(arguments.clips[0], arguments.model, rows, arguments.processes)
        memory.add_row(str(rows), f"{peak / 1e6:.0f}", f"{seconds:.0f}")
    console.print(memory)


def seconds_of_loop(clips: list[Path], load: functools.partial) -> float:
    """Returns the seconds of a process that decodes every frame and detects faces in the sampled ones."""
    cv2.setNumThreads(1)
    detect, start = load(), time.monotonic()
    for path in clips:
        capture, next_sample = open_clip(path), 0.0
        while True:
            is_frame, frame = capture.read()
            if not is_frame:
                break
            if capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 >= next_sample:
                next_sample += 1 / CONFIG.rate
                detect(frame)
        capture.release()
    return time.monotonic() - start


def _seconds_of_pool(clips: list[Path], load: functools.partial, processes: int) -> float:
    start = time.monotonic()
    for _ in crop_all([Clip((Segment(path),)) for path in clips], CONFIG, load, 112, processes):
        pass
    return time.monotonic() - start


def _memory(clip: Path, model: Path, rows: int, processes: int) -> tuple[int, float]:
    """Returns the peak bytes of `prepare clips` with its child processes, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(clip, Path(folder) / clip.name)
        lines = [f"train,{row // 10},{row},A,Utterance {row}.,joy,{clip.name}" for row in range(rows)]
        table = Path(folder) / "table.csv"
        table.write_text("split,dialogue_id,utterance_id,speaker,utterance,emotion,clip\n" + "\n".join(lines) + "\n")
        command = ["main.py", "prepare", "clips", str(table), "--out", f"{folder}/out", "--tokenizer", "learned"]
        command += ["--faces.detector-model", str(model), "--processes", str(processes)]
        start, peak = time.monotonic(), 0
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, sum(resident_bytes(pid) for pid in process_tree(process.pid)))
            time.sleep(0.1)
        if process.returncode:
            raise UserError(f"`prepare clips` ended with exit code {process.returncode}.")
        return peak, time.monotonic() - start


if __name__ == "__main__":
    run_benchmark(main)
