"""Readers of files and requests answer any bytes by a value or a UserError."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest
from fuzz_targets import TARGETS, check

SECONDS = 8


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_kept_finds(name):
    for data in (*TARGETS[name].seeds(), *(path.read_bytes() for path in sorted((fuzz.CASES / name).glob("*")))):
        check(TARGETS[name], data)


def test_every_kept_find_has_a_target():
    assert {path.name for path in fuzz.CASES.iterdir()} <= set(TARGETS)


def test_an_input_that_ended_the_process_is_kept_and_named(tmp_path, monkeypatch):
    def run(*words):
        prefix = next(word for word in words if word.startswith("-artifact_prefix=")).partition("=")[2]
        Path(f"{prefix}oom-0123").write_bytes(b"a find")
        return "no numbers"

    monkeypatch.setattr(fuzz, "_run", run)
    result = fuzz.fuzz("picture", 1, tmp_path / "corpus")
    assert result.error == "oom" and result.find.read_bytes() == b"a find"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing(name, tmp_path):
    pytest.importorskip("atheris")  # Linux
    result = fuzz.fuzz(name, SECONDS, tmp_path / "corpus")
    assert not result.find, f"{result.find.read_bytes()!r}: {result.error}"
    assert result.executions > 100 and result.covered >= TARGETS[name].least_covered, result
