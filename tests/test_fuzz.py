"""Readers of files and requests answer any bytes by a value or a UserError."""

from __future__ import annotations

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


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing(name, tmp_path):
    pytest.importorskip("atheris")  # Linux
    result = fuzz.fuzz(name, SECONDS, tmp_path / "corpus")
    assert not result.find, f"{result.find.read_bytes()!r}: {result.error}"
    assert result.executions > 100 and result.covered >= TARGETS[name].least_covered, result
