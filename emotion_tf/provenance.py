"""When, where and with which version of the project a run was made, for `run.json`."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def now() -> str:
    """Returns date and time in UTC, such as `2026-11-30 08:24`."""
    return format_time(time.time())


def format_time(seconds: float) -> str:
    """Returns a time in seconds, as files have it, as date and time in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def machine() -> dict[str, str]:
    """Returns processor, number of processors and system; not the name of the machine, which is nobody's business."""
    return {"processor": _processor(), "processors": str(os.cpu_count() or 1), "system": platform.platform()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join((names[0] if names else platform.processor() or platform.machine()).split())[:100]


def commit() -> str:
    """Returns the commit of a clone, with `-dirty` if its files were changed; empty for an installed package."""
    if not (PROJECT / ".git").exists():
        return ""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
