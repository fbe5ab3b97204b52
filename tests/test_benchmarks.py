"""Benchmarks: each parses the command line of its docstring, and an error of the user is one line."""

import importlib
import json
import re
import shlex

import pytest
from helpers import ROOT

import benchmarks.all
from benchmarks import Measure, run_benchmark, show_measures
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


@pytest.mark.parametrize("command", benchmarks.all.COMMANDS)
def test_the_commands_of_all_benchmarks(command):
    name, *words = command.removesuffix(" PEER").split()
    importlib.import_module(f"benchmarks.{name}").parser().parse_args(words)


def test_what_a_benchmark_notes_and_why_it_fails(tmp_path, monkeypatch):
    monkeypatch.setenv(benchmarks.MEASURES, str(tmp_path / "measures"))
    show_measures("title", [Measure("step", "3 s", "0.9"), Measure("memory", "1 MB")])
    notes = [json.loads(line) for line in (tmp_path / "measures").read_text().splitlines()]
    assert notes == [["step", "3 s", "0.9"], ["memory", "1 MB", ""]]
    measures, fault = benchmarks.all._run(["growth", "--utterances", "x"], tmp_path, 60)
    assert measures == [] and fault.startswith("error: argument --utterances: invalid int value: 'x'.")


@pytest.mark.parametrize(
    "name, words, fault",
    [
        ("train_step", ["--seconds", "x"], "argument --seconds: invalid float value: 'x'."),
        ("ablation", ["d", "--face-init", "r", "--out", "o", "--only", "x"], "argument --only: invalid choice: 'x'"),
    ],
)
def test_an_invalid_argument_is_one_line(name, words, fault, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").parser().parse_args(words)
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.startswith(f"error: {fault}")
    assert message.count("\n") == 1


def test_a_program_that_fails_is_one_line(tmp_path):
    assert benchmarks.measure_program("--help").processor > 0
    with pytest.raises(UserError, match="main.py evaluate nowhere` failed: error: .*nowhere"):
        benchmarks.measure_program("evaluate", "nowhere", cwd=tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["all", "--out", "FOLDER"], "Expected the name of a file"),
        (["all", "--out", "FOLDER/none/bench.md"], "Expected a file in a folder that exists"),
        (["faces", "a.mp4", "--repeat", "0"], "Expected `--repeat` and `--processes` of at least 1. Received: 0 and 2"),
        (["faces", "a.mp4", "--processes", "0"], "Received: 4 and 0"),
        (["film", "run", "a.mp4", "--processes", "0"], "Expected `--processes` of at least 1. Received: 0"),
        (["serving", "run", "--calls", "0"], "Expected `--calls` and `--calls-32` of at least 1. Received: 0 and 40"),
        (["missing_faces", "run", "--share", "2"], "Expected `--share` from 0 to 1. Received: 2"),
        (
            ["ablation", "data", "--face-init", "run", "--out", "FOLDER", "--seeds", "0"],
            "Expected `--seeds` of at least 1",
        ),
        (["intervals", "--trials", "0"], "Expected `--trials` of at least 1. Received: 0"),
        (["promised_precision", "--draws", "0"], "Expected `--draws` and `--processes` of at least 1. Received: 0 and"),
        (["tuning_objective", "data", "--out", "FOLDER", "--size", "0"], "Received: 20 and 0"),
        (["epoch", "data", "--peer", "FOLDER/python"], "Invalid `--peer`. Expected a Python interpreter."),
        (["page_load", "run", "--seconds", "0"], "Expected `--seconds` above 0. Received: 0"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_measured(arguments, message, tmp_path, monkeypatch):
    words = [word.replace("FOLDER", str(tmp_path)) for word in arguments]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(UserError, match=re.escape(message)):
        importlib.import_module(f"benchmarks.{words[0]}").main()
