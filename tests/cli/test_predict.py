"""`predict` and `predict-table` on the command line."""

from __future__ import annotations

import os

import pandas as pd
import pytest
from small_tables import write_picture

pytestmark = pytest.mark.usefixtures("opened_once")


def test_predict_without_an_utterance(untrained, tmp_path, fault):
    assert "Give at least one of: --text, --face, --clip." in fault("predict", untrained)
    assert str(tmp_path / "t.csv") in fault("predict-table", untrained, tmp_path / "t.csv", "--out", tmp_path / "o.csv")
    for verb in ("predict", "explain"):
        assert "Give at most one of: --face, --clip." in fault(verb, untrained, "--clip", "a.mp4", "--face", "a.jpg")
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
    assert "Not a regular file: /dev/zero. Expected a photo" in fault("predict", untrained, "--face", "/dev/zero")
    for option in ("--face", "--clip"):  # before a face detector is downloaded
        assert f"No such file: {tmp_path / 'none'}" in fault("predict", untrained, option, tmp_path / "none")


def test_missing_arguments_are_named(fault, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert fault("predict-table", "x") == "Missing: TABLE, --out CSV. --help describes them."
    assert fault("predict-table", "x", "y" * 300, "--out", "o.csv").startswith("Invalid `TABLE`. Expected a path")
    assert fault("evaluate", "y" * 300).startswith("Invalid `RUN`. Expected a path")
    assert fault("evaluate", "x", "--data", "y" * 300).startswith("Invalid `--data`. Expected a path")
    assert fault("predict") == "Missing: RUN. --help describes them."


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["The file is empty"]),
        (b"text,face\nHi,\n", ["line 1", "Neither a column utterance nor faces", "text, face"]),
        (b"utterance,faces\n", ["no row"]),
        (b"utterance\ncaf\xe9\n", ["UTF-8"]),
        (b"utterance,faces\na,b\nHi,text.jpg,x,y\n", ["line 3", "Expected 2 cells", "Received: 4"]),
        (b"utterance,faces\nHi,none.jpg\n", ["none.jpg", "No such file"]),
        (b"utterance,faces\nHi," + b"a;" * 1001, ["row 1: Expected at most 1,000 faces. Received: 1,001"]),
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
