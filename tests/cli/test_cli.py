"""The command line: help without TensorFlow; invalid input is a message of one line and writes nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from small_tables import COLUMNS, write_picture, write_table

from emotion_tf import cli, config
from emotion_tf.errors import UserError

LEARNED = ("--tokenizer", "learned", "--face-size", "32")


def shell(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module", autouse=True)
def devices():
    """Lists the devices of TensorFlow before the output of a test is captured."""
    import tensorflow as tf

    tf.config.list_logical_devices()


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


def test_a_closed_pipe_gives_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["train", "--help"], ["options"], []):
        done = subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (1, b"")
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
        (["train", "--resume"], ["Nothing to resume", "saved_models"]),
        (["evaluate"], ["RUN"]),
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
    assert code == 2 and output.err.startswith("error: Error parsing --times") and output.err.count("\n") == 1


def test_runs_of_an_empty_folder(succeed):
    assert "Train one with: python main.py train" in succeed("runs")


# prepare


@pytest.fixture
def manifest(tmp_path):
    """A path for a manifest, with its pictures, and a folder for data sets."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "secret.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes())
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in" / "text.jpg").write_text("This is no picture.")
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    (tmp_path / "in" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0 \0\0\0 ")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\n")
    return tmp_path / "in" / "manifest.csv"


def pieces(manifest) -> tuple[str, ...]:
    """Options that use a vocab.txt, which is faster than learning word pieces."""
    return "--tokenizer", str(manifest.parent.parent / "vocab.txt"), "--face-size", "32"


def good_rows(count=4) -> list[dict[str, str]]:
    splits = ["train"] * (count - 2) + ["dev", "test"]
    return [{"split": split, "utterance_id": str(i), "faces": "a.jpg"} for i, split in enumerate(splits)]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"emotion": "joyous"}, ["line 5", "Unknown emotion", "neutral, joy", "'joyous'", "'joy'", "--labels"]),
        ({"utterance_id": "0", "split": "train"}, ["line 5", "Duplicate key", "line 2", "Remove one"]),
        ({"faces": "none.jpg"}, ["line 5", "none.jpg", "No such file", "existing file"]),
        ({"faces": "text.jpg"}, ["line 5", "text.jpg", "Cannot decode", "b'This is '"]),
        ({"faces": "a.jpg;empty.jpg"}, ["line 5", "empty.jpg", "an empty file"]),
        ({"faces": "cut.png"}, ["line 5", "cut.png", "Cannot decode"]),
        ({"faces": "../secret.jpg"}, ["line 5", "leaves the manifest's folder", "'../secret.jpg'"]),
        ({"faces": "/etc/hostname"}, ["line 5", "leaves the manifest's folder", "'/etc/hostname'"]),
        ({"faces": "link.jpg"}, ["line 5", "leaves the manifest's folder", "'link.jpg'"]),
        ({"utterance": "NaN"}, ["line 5", "'utterance'", "'NaN'"]),
        ({"faces": "nan"}, ["line 5", "'faces'", "'nan'"]),
        ({"emotion": "nan"}, ["line 5", "'emotion'", "'nan'"]),
        ({"weight": "nan"}, ["line 5", "weight", "'nan'"]),
        ({"weight": "a lot"}, ["line 5", "weight", "'a lot'"]),
        ({"utterance": "a\0b"}, ["line 5", "NUL"]),
        ({"split": "valid"}, ["line 5", "split", "train, dev, test", "'valid'"]),
    ],
)
def test_an_invalid_last_row_writes_nothing(change, parts, manifest, fault):
    rows = good_rows()
    rows[-1] |= change
    write_table(manifest, rows, (*COLUMNS, "weight") if "weight" in change else COLUMNS)
    out = manifest.parent.parent / "out"
    message = fault("prepare", "table", manifest, "--out", out / "data", *pieces(manifest))
    assert str(manifest) in message and all(part in message for part in parts), message
    assert os.listdir(out) == []


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty", "split, dialogue_id"]),
        (",".join(COLUMNS).encode() + b"\n", ["no row"]),
        (b"split,dialogue_id,utterance_id,speaker,text,emotion,faces\n", ["line 1", "No column 'utterance'"]),
        (
            ",".join(COLUMNS).encode() + b"\ntrain,0,0,Ilka,Hi, you,joy,\n",
            ["line 2", "7 cells", "Received: 8", "Quote"],
        ),
        (",".join(COLUMNS).encode() + b"\ntrain,0,0,Ilka,caf\xe9,joy,\n", ["line 2", "UTF-8"]),
    ],
)
def test_an_invalid_table_writes_nothing(content, parts, manifest, fault):
    manifest.write_bytes(content)
    out = manifest.parent.parent / "out"
    message = fault("prepare", "table", manifest, "--out", out / "data", *pieces(manifest))
    assert str(manifest) in message and all(part in message for part in parts), message
    assert os.listdir(out) == []


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--labels", "mled"], ["--labels", "'mled'", "Did you mean 'meld'?"]),
        (["--labels", "joy", "joy"], ["--labels", "different"]),
        (["--labels", "sentiment"], ["line 2", "Unknown emotion", "neutral, positive, negative"]),
        (["--face-size", "4"], ["--face-size", "from 8 to 1024", "4"]),
        (["--face-size", "100000"], ["--face-size", "100000"]),
        (["--context", "-1"], ["--context", "-1"]),
        (["--tokenizer", "none.txt"], ["none.txt", "No such file"]),
        (["--tokenizer", "minilmm"], ["'minilmm'", "Did you mean 'minilm'?"]),
    ],
)
def test_an_invalid_option_of_prepare(options, parts, manifest, fault):
    write_table(manifest, good_rows())
    out = manifest.parent.parent / "out"
    message = fault("prepare", "table", manifest, "--out", out / "data", "--tokenizer", "learned", *options)
    assert all(part in message for part in parts), message
    assert os.listdir(out) == []


def test_prepare_and_its_overwrite(manifest, fault, succeed):
    write_table(manifest, good_rows())
    out = manifest.parent.parent / "out" / "data"
    printed = succeed("prepare", "table", manifest, "--out", out, *LEARNED)
    assert "train: 2 utterances in 1 dialogues, 2 with a face" in printed and str(out) in printed
    assert "1 pictures occur in more than one split" in printed
    before = (out / "dataset_info.json").read_bytes()
    message = fault("prepare", "table", manifest, "--out", out, *LEARNED)
    assert str(out) in message and "--overwrite" in message
    assert (out / "dataset_info.json").read_bytes() == before
    write_table(manifest, good_rows(6))
    succeed("prepare", "table", manifest, "--out", out, *LEARNED, "--overwrite")
    assert json.loads((out / "dataset_info.json").read_text())["splits"]["train"]["records"] == 4
    message = fault("prepare", "table", manifest, "--out", manifest.parent, *LEARNED, "--overwrite")
    assert "no data set" in message and manifest.exists()
    assert os.listdir(out.parent) == ["data"]


def test_utterances_without_text_or_faces_can_be_prepared(manifest, succeed):
    write_table(manifest, [{**row, "utterance": ""} for row in good_rows()])
    succeed("prepare", "table", manifest, "--out", manifest.parent.parent / "out" / "faces", *LEARNED)
    write_table(manifest, [{**row, "faces": ""} for row in good_rows()])
    succeed("prepare", "table", manifest, "--out", manifest.parent.parent / "out" / "texts", *LEARNED)


def test_too_few_utterances_for_the_demo(tmp_path, fault):
    message = fault("prepare", "demo", "--utterances", "3", "--out", tmp_path / "demo")
    assert "`utterances`" in message and "200" in message and "Received: 3" in message
    assert not (tmp_path / "demo").exists()


def large_table(manifest) -> None:
    """Writes a table with about a megabyte of pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    cv2.imwrite(str(manifest.parent / "noise.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 100])
    write_table(manifest, [{**row, "faces": ";".join(["noise.jpg"] * 20)} for row in good_rows(20)])


def test_a_full_disk_writes_nothing(manifest, fault):
    """Files are limited to 100 kB: larger writes fail, as on a full disk."""
    large_table(manifest)
    out = manifest.parent.parent / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = fault("prepare", "table", manifest, "--out", out / "data", *pieces(manifest))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(out / "data") in message and "File too large" in message and "free some space" in message
    assert os.listdir(out) == []


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "none", disk]).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_file_system_writes_nothing(manifest, tiny_disk, fault):
    large_table(manifest)
    message = fault("prepare", "table", manifest, "--out", tiny_disk / "data", *pieces(manifest))
    assert str(tiny_disk / "data") in message and "No space left on device" in message
    assert os.listdir(tiny_disk) == []


def test_a_folder_inside_a_file(manifest, fault):
    write_table(manifest, good_rows())
    (manifest.parent.parent / "out" / "file").write_text("kept")
    message = fault(
        "prepare", "table", manifest, "--out", manifest.parent.parent / "out" / "file" / "data", *pieces(manifest)
    )
    assert "Cannot write" in message
    assert (manifest.parent.parent / "out" / "file").read_text() == "kept"


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
    assert "Cannot read" in fault("train", "--data", copy)
    assert not (tmp_path / "saved_models").exists()


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


def test_predict_without_an_utterance(untrained, tmp_path, fault):
    assert "No utterance. Expected --text, --face or --clip" in fault("predict", untrained)
    assert str(tmp_path / "t.csv") in fault("predict-table", untrained, tmp_path / "t.csv", "--out", tmp_path / "o.csv")
    for verb in ("predict", "explain"):
        assert "Expected one of them" in fault(verb, untrained, "--clip", "a.mp4", "--face", "a.jpg")
        assert "--face-is-crop says" in fault(verb, untrained, "--clip", "a.mp4", "--face-is-crop")
    film = ("predict-film", untrained, "a.mp4", "a.srt", "--out", tmp_path / "film")
    assert "Invalid `--processes`" in fault(*film, "--processes", "-1")


def test_predict_with_inputs_that_the_run_does_not_read(untrained, untrained_text, tmp_path, succeed, fault):
    write_picture(tmp_path / "a.jpg")
    face = ("--face", tmp_path / "a.jpg", "--face-is-crop")
    assert f"{untrained_text} reads no face. Expected the other input" in fault("predict", untrained_text, *face)
    assert "reads no text" in fault("predict", untrained, "--text", "  ")
    output = succeed("predict", untrained_text, "--text", "Hi", *face)
    assert f"not read: {untrained_text} reads no face" in output and "not read" not in succeed(
        "predict", untrained, "--text", "Hi", *face
    )


def test_predict_with_an_invalid_picture(untrained, tmp_path, fault):
    (tmp_path / "text.jpg").write_text("This is no picture.")
    for more in (["--face-is-crop"], ["--faces.detector", "mtcnn"]):
        message = fault("predict", untrained, "--text", "Hi", "--face", tmp_path / "text.jpg", *more)
        assert str(tmp_path / "text.jpg") in message and "Cannot decode" in message
        assert "No such file" in fault("predict", untrained, "--face", tmp_path / "none.jpg", *more)
    for option in ("--face", "--clip"):  # before a face detector is downloaded
        assert f"No such file: {tmp_path / 'none'}" in fault("predict", untrained, option, tmp_path / "none")


def test_missing_arguments_are_named(fault, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert fault("predict-table", "x") == "Missing: TABLE, --out PATH. --help describes them."
    assert fault("predict") == "Missing: RUN. --help describes them."


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["Cannot read"]),
        (b"text,face\nHi,\n", ["line 1", "Neither a column utterance nor faces", "text, face"]),
        (b"utterance,faces\n", ["no row"]),
        (b"utterance\ncaf\xe9\n", ["UTF-8"]),
        (b"utterance,faces\na,b\nHi,text.jpg,x,y\n", ["Cannot read"]),
        (b"utterance,faces\nHi,none.jpg\n", ["none.jpg", "No such file"]),
    ],
)
def test_predict_table_with_an_invalid_table(content, parts, untrained, tmp_path, fault):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "t.csv").write_bytes(content)
    message = fault("predict-table", untrained, tmp_path / "in" / "t.csv", "--out", tmp_path / "out" / "p.csv")
    assert str(tmp_path / "in") in message and all(part in message for part in parts), message
    assert os.listdir(tmp_path / "out") == []


def test_predict_table_agrees_with_predict(untrained, tmp_path, succeed):
    write_picture(tmp_path / "a.jpg")
    pd.DataFrame({"id": ["07", "08"], "utterance": ["", "yes, no"], "faces": ["", "a.jpg"]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    output = succeed("predict-table", untrained, tmp_path / "t.csv", "--out", tmp_path / "p.csv")
    assert "2 predictions" in output and f"Rows with nothing that {untrained} reads: 1." in output
    table = pd.read_csv(tmp_path / "p.csv", dtype={"id": str}, keep_default_na=False)
    assert table["id"].tolist() == ["07", "08"] and table["utterance"].tolist() == ["", "yes, no"]
    printed = succeed("predict", untrained, "--text", "yes, no", "--face", tmp_path / "a.jpg", "--face-is-crop")
    predictions = dict(line.split()[:2] for line in printed.splitlines())
    assert next(iter(predictions)) == table["predicted"][1]
    for label, p in predictions.items():
        assert float(p) == pytest.approx(table[f"p_{label}"][1], abs=2e-6)


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
    with pytest.raises(RuntimeError):  # a defect of the program is no user error
        raises(RuntimeError("defect"))
