"""The command line: help without TensorFlow; invalid input is a message of one line and writes nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import ROOT
from small_records import replace_record
from small_tables import good_rows, pieces, write_table

import emotion_tf
from emotion_tf import cli, config
from emotion_tf.data.dataset import Dataset
from emotion_tf.errors import UserError


def shell(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, capture_output=True, text=True)


# without TensorFlow, in a process of its own


def test_help_of_every_verb_without_tensorflow():
    code = """
import contextlib, io, sys
from emotion_tf import cli
class Output(io.StringIO):
    encoding = "utf-8"  # of a terminal, for which tyro draws boxes
for words in [[], ["--help"], ["prepare"], ["weights"], *(verb.name.split() for verb in cli.VERBS)]:
    output = Output()
    with contextlib.redirect_stdout(output):
        try:
            cli.dispatch([*words, "--help"])
        except SystemExit as end:
            assert not end.code, words
    assert "usage: " in output.getvalue() and " ".join(words[:1]) in output.getvalue(), words
    assert max(map(len, output.getvalue().splitlines())) <= 80, words
    for verb in cli.VERBS if not words else ():
        assert f"  {verb.name} " in output.getvalue()
print("tensorflow" in sys.modules, "keras" in sys.modules)
"""
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "False False\n")


def test_help_of_a_verb_and_the_version(capsys):
    def output(*words):
        with contextlib.suppress(SystemExit):
            cli.dispatch(words)
        return capsys.readouterr().out

    assert "usage: " in output("help", "runs") and output("help", "runs") == output("runs", "--help")
    assert output("help", "prepare", "clips") == output("prepare", "clips", "--help")
    assert output("help", "prepare") == output("prepare") and output("help") == output()
    assert output("--version") == f"emotion_tf {emotion_tf.__version__}\n"


def test_a_closed_pipe_gives_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["train", "--help"], ["options"], []):
        done = subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writer)


def test_no_arguments_print_the_overview():
    done = shell()
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {verb}" in done.stdout for verb in {verb.name.split()[0] for verb in cli.VERBS})


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["trian"], "Unknown verb 'trian'. Expected one of: prepare, audit, weights, .* Did you mean 'train'\\?"),
        (
            ["train", "--text.branches", "brt"],
            "Invalid `text.branches`. Expected one of: bert, gru, lstm, cnn. Received: 'brt'. Did you mean 'bert'\\?",
        ),
    ],
)
def test_a_user_error_has_exit_code_2(words, pattern):
    done = shell(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: {pattern}\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["prepare", "tabel"], ["'tabel'", "table, clips, meld, faces, demo", "Did you mean 'table'?"]),
        (["weights", "fetsh"], ["'fetsh'", "Did you mean 'fetch'?"]),
        (["prepare", "table", "m.csv"], ["--out"]),
        (["prepare", "table", "m.csv", "--out", "x", "--facesize", "9"], ["--facesize", "Did you mean --face-size?"]),
        (["train", "--text.brnches", "gru"], ["--text.brnches", "Did you mean --text.branches?"]),
        (["train", "--face.branches", "resnet5"], ["`face.branches`", "'resnet5'", "Did you mean 'resnet50'?"]),
        (["train", "--towers", "texts"], ["`towers`", "text, face", "Did you mean 'text'?"]),
        (["train", "--strategy", "mirored"], ["none, mirrored, multiworker", "Did you mean 'mirrored'?"]),
        (["train", "--resume"], ["Nothing to resume", "saved_models"]),
        (["evaluate"], ["RUN"]),
        (["export", "x", "--version", "y"], ["`--version`. Expected a whole number, such as 3. Received: 'y'."]),
        (["runs", "surplus"], ["surplus"]),
        (["weights", "fetch", "minilmm"], ["'minilmm'", "Did you mean 'minilm'?"]),
    ],
)
def test_an_invalid_command_is_one_line(words, parts, fault):
    message = fault(*words)
    assert all(part in message for part in parts), message


def test_stderr_of_a_verb_is_printed(command, monkeypatch):
    """For example the progress."""

    def verb(times: int = 2) -> None:
        """Prints lines."""
        print("working\n" * times, end="", file=sys.stderr)

    monkeypatch.setattr(cli, "load", lambda reference: verb)
    assert command("runs", "--times", "3")[1].err == "working\n" * 3
    code, output = command("runs", "--times", "x")
    assert (
        code == 2
        and output.err.startswith("error: Invalid `--times`. Expected a whole")
        and output.err.count("\n") == 1
    )


def test_runs_of_an_empty_folder(succeed):
    assert "Train one with: python main.py train" in succeed("runs")


# train


def test_train_with_damaged_data(dataset, tmp_path, fault):
    assert "prepare table" in fault("train", "--data", tmp_path / "none")
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    shard = copy / "train-00000-of-00001.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    message = fault("train", "--data", copy, "--smoke")
    assert str(shard) in message and "Flipped byte" in message and "Prepare the data set again" in message
    shard.unlink()
    assert "missing" in fault("train", "--data", copy)
    (copy / "dataset_info.json").write_text('{"splits": ')
    message = fault("train", "--data", copy)
    assert "dataset_info.json: Expected JSON in UTF-8" in message and "Prepare the data set again" in message
    assert not (tmp_path / "saved_models").exists()


def test_commands_that_read_a_data_set_check_its_records_first(dataset, untrained, tmp_path, fault):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    replace_record(copy, "dev", 2, weight=-5.0)
    run_of_copy = shutil.copytree(untrained, tmp_path / "run")
    about = {"data": str(copy)}, {"data_sha256": Dataset.open(copy).spec.data_sha256}
    for file, changes in zip(("config.json", "run.json"), about, strict=True):
        (run_of_copy / file).write_text(json.dumps({**json.loads((run_of_copy / file).read_text()), **changes}))
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ("train", "--data", copy, "--smoke"),
        ("crossval", "--data", copy, "--name", "validation"),
        ("tune", "--data", copy, "--name", "search"),
        ("evaluate", untrained, "--data", copy),
        ("features", untrained, copy, "--out", tmp_path / "f.npz"),
        ("audit", copy),
        ("explain", run_of_copy, "--data", copy, "--out", tmp_path / "explained"),
        ("evaluate", run_of_copy, "--data", dataset, "--report"),  # calibrates on dev of the run's own data
    ):
        message = fault(*words)
        assert "dev-00000-of-00001.tfrecord: record 2 at offset" in message and "Received: -5.0" in message, words
    assert sorted(tmp_path.rglob("*")) == before


def test_train_refuses_data_of_another_tokenizer(dataset, tmp_path, fault):
    from emotion_tf.data.tokenizer import SPECIAL_TOKENS, write_vocabulary
    from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert

    write_vocabulary(tmp_path / "vocab.txt", [*SPECIAL_TOKENS, "other"])
    encoder = tmp_path / "encoder"
    bert = BertConfig(6, 4, layers=1, heads=1, intermediate=4, positions=16)
    save_bert(BertModule(bert, tmp_path / "vocab.txt", seed=1), encoder)
    message = fault("train", "--data", dataset, "--text.branches", "bert", "--text.encoder", encoder, "--smoke")
    assert "another tokenizer" in message and str(encoder) in message and f"--tokenizer {encoder}" in message
    assert not (tmp_path / "saved_models").exists()


def test_train_with_a_missing_encoder(dataset, tmp_path, fault):
    message = fault("train", "--data", dataset, "--text.branches", "bert", "--text.encoder", tmp_path / "none")
    assert "encoder" in message and str(tmp_path / "none") in message
    assert not (tmp_path / "saved_models").exists()


def test_train_needs_train_and_dev(manifest, tmp_path, succeed, fault):
    write_table(manifest, good_rows()[:2])
    succeed("prepare", "table", manifest, "--out", tmp_path / "out" / "data", *pieces(manifest))
    assert "No split 'dev'" in fault("train", "--data", tmp_path / "out" / "data")
    assert not (tmp_path / "saved_models").exists()


# runs


@pytest.fixture
def unfinished(untrained, tmp_path):
    path = tmp_path / "unfinished"
    shutil.copytree(untrained, path, ignore=shutil.ignore_patterns("model.keras"))
    return path


@pytest.mark.parametrize("verb", [["predict", "--text", "Hi"], ["evaluate"], ["export"]])
def test_a_folder_without_a_run(verb, unfinished, tmp_path, fault):
    for path in (tmp_path / "none", tmp_path):
        message = fault(verb[0], path, *verb[1:])
        assert f"No run at {path}" in message and "run.json" in message
    message = fault(verb[0], unfinished, *verb[1:])
    assert str(unfinished) in message and "no model.keras" in message and "--resume" in message
    (unfinished / "model.keras").write_bytes(b"PK\x03\x04 cut")
    assert f"Cannot load {unfinished / 'model.keras'}" in fault(verb[0], unfinished, *verb[1:])
    (unfinished / "config.json").write_text(config.to_json(config.Config()).replace('"towers"', '"towres"'))
    message = fault("evaluate", unfinished)
    assert "config.json" in message and "Did you mean 'towers'?" in message
    assert not (unfinished / "serving").exists()


def test_evaluate_with_other_labels(untrained, manifest, tmp_path, succeed, fault):
    assert "No split 'tset'" in fault("evaluate", untrained, "--split", "tset")
    rows = [{**row, "emotion": "positive"} for row in good_rows()]
    write_table(manifest, rows)
    succeed(
        "prepare", "table", manifest, "--out", tmp_path / "out" / "data", *pieces(manifest), "--labels", "sentiment"
    )
    message = fault("evaluate", untrained, "--data", tmp_path / "out" / "data")
    assert "does not fit" in message and "labels" in message
    assert not (untrained / "metrics.json").exists()


def test_exit_codes_of_an_interruption_and_a_user_error(monkeypatch, capsys):
    def raises(error):
        def dispatch(args):
            raise error

        monkeypatch.setattr(cli, "dispatch", dispatch)
        return cli.main(), capsys.readouterr().err

    code, output = raises(KeyboardInterrupt())
    assert code == 130 and len(output.splitlines()) == 1
    assert raises(UserError("two\n  lines")) == (2, "error: two lines\n")
    code, output = raises(PermissionError(errno.EACCES, "Permission denied", "/root/x"))
    assert code == 2 and output.startswith("error: Cannot access /root/x: Permission denied.")
    # a defect of the program is no user error
    for defect in (RuntimeError("defect"), SystemError("defect"), PermissionError(errno.EPERM, "no file")):
        with pytest.raises(type(defect)):
            raises(defect)


def test_an_interruption_that_becomes_an_error_of_compiled_code_is_one(monkeypatch, capsys):
    def dispatch(args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise SystemError("Objects/listobject.c:338: bad argument to internal function")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "dispatch", dispatch)
    try:
        assert cli.main() == 130 and capsys.readouterr().err == "Interrupted.\n"
    finally:
        signal.signal(signal.SIGINT, before)
