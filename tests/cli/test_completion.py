"""The completion, as bash runs it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from emotion_tf.cli import completion
from emotion_tf.cli.verbs import VERBS
from emotion_tf.config.fusion import KINDS

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="no bash")


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Function from the words of a command line, the last one unfinished, to what the Tab key offers."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "script").write_text(completion.script())
    for name in ("mine", "minilm", "mi $(touch opened)", "mi`touch opened`"):
        (folder / "saved_models" / name).mkdir(parents=True)
    (folder / "saved_models" / "README.md").touch()

    def run(*words):
        code = '. ./script; COMP_WORDS=(emotion-tf "$@"); COMP_CWORD=$#; _emotion_tf; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", code, "bash", *words], cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert not (folder / "opened").exists()
        return done.stdout.split()

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["predict-"], ["predict-table", "predict-film"]),
        (["prepare", ""], ["table", "clips", "meld", "faces", "demo"]),
        (["prepare", "c"], ["clips"]),
        (
            ["train", "--fusion.d"],
            ["--fusion.dense-units", "--fusion.dropout"],
        ),
        (["train", "--fusion.kind", ""], list(KINDS)),
        (["train", "--name", "x", "--towers", "text", "f"], ["face"]),
        (["train", "--face.no-a"], ["--face.no-augment"]),
        (["prepare", "meld", "--target", "s"], ["sentiment"]),
        (["predict", "mi"], ["mine", "minilm"]),
        (["compare", "mine", "minil"], ["minilm"]),
        (["compare", "mine", "--with", "min"], ["mine", "minilm"]),
        (["train", "--text.init", "mine"], ["mine"]),
        (["completion", "z"], ["zsh"]),
        (["predict", "mine", "--clip", ""], []),  # files, by the shell itself
        (["nonsense", ""], []),
    ],
)
def test_the_tab_key(complete, words, expected):
    assert complete(*words) == expected


def test_every_verb_has_its_options(complete):
    for verb in VERBS:
        assert "--help" in complete(*verb.name.split(), "--"), verb.name
    assert {verb.name.split()[0] for verb in VERBS} == set(complete(""))


def test_zsh_reads_it_as_bash_does(succeed, fault):
    bash, zsh = succeed("completion", "bash"), succeed("completion", "zsh")
    assert zsh.endswith(bash) and "bashcompinit" in zsh
    assert "Expected one of: bash, zsh, fish. Received: 'tcsh'" in fault("completion", "tcsh")


def test_fish_asks_bash(succeed, tmp_path):
    quoted = succeed("completion", "fish").split("bash -c '")[1].split("' bash $words")[0]
    code = re.sub(r"\\(['\\])", r"\1", quoted)  # as fish reads single quotes
    words = ["emotion-tf", "train", "--fusion.kind", ""]
    done = subprocess.run(["bash", "-c", code, "bash", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == list(KINDS) and not done.stderr
