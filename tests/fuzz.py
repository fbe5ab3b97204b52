"""Fuzzes the readers: `python tests/fuzz.py [TARGET ...] --seconds 600 --corpus FOLDER`.

For each target Atheris (libFuzzer) mutates valid inputs and keeps those that reach new branches of the project. Prints
executions per second, the share of the reader's lines and branches that the kept inputs cover, and the inputs that end
in anything but a UserError. FOLDER keeps the inputs: the next call goes on from them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "fuzz_cases"
MAX_BYTES = 4096
SLOW_SECONDS = 10
MAX_MEGABYTES = 2048


@dataclass(frozen=True)
class Result:
    """What fuzzing a target showed; of a target with a find, that alone.

    Attributes:
        executions: number of inputs.
        rate: inputs per second.
        covered: share of the reader's lines and branches in percent.
        find: an input that ends in another error, crashes the process, or takes too much time or memory.
        error: the error, or libFuzzer's word for it: `crash`, `oom`, `timeout` or `slow`.
    """

    executions: int = 0
    rate: int = 0
    covered: float = 0.0
    find: Path | None = None
    error: str = ""


def fuzz(name: str, seconds: int, corpus: Path) -> Result:
    """Fuzzes a target in a process of its own."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_BYTES}",
            f"-timeout={SLOW_SECONDS}",
            f"-rss_limit_mb={MAX_MEGABYTES}",
            f"-artifact_prefix={folder}/",
            "-print_final_stats=1",
        ]
        output = _run(name, *options, str(corpus))
        for find in Path(folder).iterdir():  # a crash inside `silent_libraries` prints nothing, but leaves its input
            copy = corpus.parent / f"{name}-{find.name[:24]}"
            copy.write_bytes(find.read_bytes())
            error = re.search(r"=== Uncaught Python exception: ===\n(.*)", output)
            return Result(find=copy, error=error[1] if error else find.name.split("-")[0])
    executions, rate = (
        int(_number(rf"stat::{stat}:", output)) for stat in ("number_of_executed_units", "average_exec_per_sec")
    )
    return Result(executions, rate, _number("covered:", output))


def _number(label: str, output: str) -> float:
    match = re.search(rf"{label}\s+([\d.]+)", output)
    if not match:
        raise RuntimeError(output)
    return float(match[1])


def _run(*words: str) -> str:
    command = [sys.executable, __file__, "--child", *words]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    return process.stdout + process.stderr


def _fuzz_and_cover(name: str, options: list[str]) -> None:
    import tensorflow  # noqa: F401 - once for both, which takes seconds

    if pid := os.fork():  # libFuzzer ends its process
        os.waitpid(pid, 0)
        _measure_coverage(name, Path(options[-1]))
    else:
        _fuzz_child(name, options)


def _fuzz_child(name: str, options: list[str]) -> None:
    import atheris
    from fuzz_targets import TARGETS, check

    target = TARGETS[name]
    corpus = Path(options[-1])
    with atheris.instrument_imports(include=["emotion_tf", "tuning"]):
        check(target, b"")  # imports the reader
        seeds = target.seeds()
    for data in (*seeds, *(path.read_bytes() for path in (CASES / name).glob("*"))):
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    if target.words:
        words = corpus.parent / f"{name}.dict"
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
        options = [f"-dict={words}", *options]
    atheris.Setup([sys.argv[0], *options], lambda data: check(target, data))
    atheris.Fuzz()


def _measure_coverage(name: str, corpus: Path) -> None:
    import coverage

    measure = coverage.Coverage(branch=True, include=[str(ROOT / "emotion_tf" / "*")], data_file=None)
    measure.start()
    from fuzz_targets import TARGETS, check

    for path in sorted(corpus.iterdir()):
        try:
            check(TARGETS[name], path.read_bytes())
        except Exception as error:
            print(path, type(error).__name__)
    measure.stop()
    share = measure.report(include=[str(ROOT / module) for module in TARGETS[name].modules], file=io.StringIO())
    print(f"covered: {share:.1f}")


def main() -> None:
    """Fuzzes the targets one after the other and prints a table."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    if sys.argv[1:2] == ["--child"]:
        _fuzz_and_cover(sys.argv[2], sys.argv[3:])
        return
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}; by default all")
    parser.add_argument("--seconds", type=int, default=600, help="time for each target")
    parser.add_argument("--corpus", type=Path, default=Path("fuzz_corpus"), help="folder of the inputs")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.targets if name not in TARGETS]:
        parser.error(f"unknown target {unknown[0]}. Expected one of: {', '.join(TARGETS)}")
    for name in arguments.targets or TARGETS:
        result = fuzz(name, arguments.seconds, arguments.corpus / name)
        if result.find:
            print(f"{name:12} FOUND {result.find}: {result.error}", flush=True)
        else:
            counts = f"{result.executions:9,} inputs  {result.rate:7,.0f} a second"
            print(f"{name:12} {counts}  {result.covered:5.1f} % covered", flush=True)


if __name__ == "__main__":
    main()
