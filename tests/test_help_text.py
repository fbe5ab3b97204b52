"""`--help` of every verb: names and values, groups, widths; nothing that tyro lists is lost."""

from __future__ import annotations

import contextlib
import re

import pytest

from emotion_tf import cli, help_text
from emotion_tf.cli.verbs import GROUPS, VERBS
from emotion_tf.data.meld import TARGETS
from emotion_tf.evaluation.votes import METHODS
from emotion_tf.labels import LABEL_SETS

NAMES = [verb.name for verb in VERBS]


@pytest.fixture
def help_of(capsys, monkeypatch):
    """Function from a verb and a number of columns to its help."""

    def run(name, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        with contextlib.suppress(SystemExit):
            cli.dispatch([*name.split(), "--help"])
        return capsys.readouterr().out

    return run


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_an_option_takes_and_fits(name, help_of, monkeypatch):
    raw, render = [], help_text.render
    monkeypatch.setattr(help_text, "render", lambda text, *more: raw.append(text) or render(text, *more))
    text = help_of(name)
    assert not re.search(r"\{None\}|\bSTR\b|\bPATH\b|\(default|\[default: (None|''|False)?\]|[│╭╰]", text)
    assert text.splitlines()[0].startswith("usage: ") and "\n\nOptions:\n" in text
    assert "-h, --help                Show this help.\n" in text
    for columns in (60, 80, 200):
        assert max(map(len, help_of(name, columns).splitlines())) <= columns
    # every option that tyro lists
    assert len(re.findall("^│ -", raw[0], re.M)) == len(re.findall("^  -", text, re.M))
    for option in re.findall(r"^│ (--[\w.-]+)", raw[0], re.M):
        section, _, last = option.rpartition(".")
        assert re.search(rf"^  ({option}|{section}\.\[no-\]{last})( |$)", text, re.M), option


def test_help_has_names_values_and_groups(help_of):
    train = help_of("train")
    for line in (
        "usage: python main.py train [options]",
        "  --preset {demo,minilm,base}",
        "  --config FILE ",
        "  --fusion.kind {concat,sum,weighted,gated,lowrank,cross_attention}",
        "  --face.[no-]augment       Augment",
        "  --text.init RUN ",
        "  --text.cnn-widths INT ...",
        "Face options:\n  The face tower: parallel branches on each crop",
    ):
        assert line in train.replace("python -m emotion_tf", "python main.py")
    assert words("--face.branches {cnn, resnet50, resnet101,") in words(train) and "encoder} ...\n" in train
    assert words("batch norm statistics are frozen. [default: on]") in words(train)
    assert "[default: 2 3 4]" in words(train) and "[default: tfrecords/demo]" in train
    meld, predict = help_of("prepare meld"), help_of("predict")
    assert "prepare meld --root DIR --out DIR [options]\n" in meld
    assert f"--target {{{','.join(TARGETS)}}}" in meld
    titles = re.findall(r"^(\w.*):$", predict, re.M)
    assert titles == ["Arguments", "Options", "Utterance options", "Server options", "Faces options"]
    assert f"--method {{{','.join(METHODS)}}}" in help_of("ensemble")
    assert f"--labels {{{','.join(LABEL_SETS)}}}|LABEL ..." in help_of("prepare table")


def test_a_narrow_help_begins_descriptions_on_their_own_lines(help_of):
    assert "  --report\n        Write report.html and" in help_of("evaluate", 50)


def test_titles_are_bold_in_a_terminal_alone(help_of, monkeypatch, capsys):
    assert "\x1b" not in help_of("runs")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1mOptions:\x1b[0m\n" in help_of("runs")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in help_of("runs")


def test_the_overview_has_groups():
    text = cli.overview()
    assert [title for title in re.findall(r"^(\w+):$", text, re.M)] == list(GROUPS)
    assert text.count("\n  ") == len(VERBS)
