"""Benchmarks: each parses the command line of its docstring, and an error of the user is one line."""

import importlib
import re
import shlex

import pytest
from helpers import ROOT

from benchmarks import run_benchmark
from emotion_tf.errors import UserError

MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_command_line_of_the_docstring(name):
    module = importlib.import_module(f"benchmarks.{name}")
    line = re.search(rf"`python -m benchmarks\.{name} ?([^`]*)`", module.__doc__)[1]
    module.parser().parse_args(shlex.split(re.sub(r"\[[^]]*\]+", "", line)))  # without what is optional
    module.parser().parse_args(shlex.split(re.sub(r"[\[\]]| \.\.\.", "", line)))  # with it
    assert module.__doc__ in module.parser().format_help()


def test_error_of_the_user(capsys):
    def main():
        raise UserError("No run at x.")

    with pytest.raises(SystemExit) as end:
        run_benchmark(main)
    assert (end.value.code, capsys.readouterr().err) == (2, "error: No run at x.\n")
