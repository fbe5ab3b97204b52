"""What a user trusts."""

import os
from hashlib import sha256

import pytest

from emotion_tf import trust
from emotion_tf.cli.arguments import train_arguments
from emotion_tf.config import to_json
from emotion_tf.errors import UserError


def test_what_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path))
    digest = sha256(b"x").hexdigest()
    with pytest.raises(UserError, match=r"add --trust"):
        trust.check(digest, "graph", "here")
    with trust.everything():
        trust.check(digest, "graph", "here")
    assert not trust.is_trusted(digest)
    trust.remember(digest, "a test\udcff")
    assert trust.is_trusted(digest) and os.listdir(tmp_path / "trusted") == [digest]
    with pytest.raises(ValueError, match="Invalid SHA-256"):
        trust.is_trusted("../../etc/passwd")


def test_a_folder_of_trust_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path / "file"))
    trust._warn.cache_clear()
    trust.remember("0" * 64, "a test")
    trust.remember("0" * 64, "a test")
    assert not trust.is_trusted("0" * 64)
    warning = capsys.readouterr().err
    assert warning.count("warning:") == 1 and str(tmp_path / "file") in warning and "EMOTION_TF_CONFIG" in warning
    with pytest.raises(UserError, match=rf"{tmp_path / 'file' / 'trusted'}.*EMOTION_TF_CONFIG"):
        trust.check("0" * 64, "graph", "here")


def test_trust_for_one_command_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path))
    with trust.everything():
        trust.remember("0" * 64, "a test")
    assert not trust.is_trusted("0" * 64)


@pytest.mark.parametrize("option", ["text", "face"])
@pytest.mark.parametrize("handle", ["evil/enc", "https://example.org/evil/1"])
def test_an_encoder_that_a_configuration_alone_names(option, handle, tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path))
    path = tmp_path / "config.json"
    words = ["--face.branches", "encoder"] if option == "face" else []
    words += [f"--{option}.encoder", handle]
    config = train_arguments(["--preset", "minilm", *words, "--trust"]).config
    path.write_text(to_json(config), encoding="utf-8")
    with pytest.raises(UserError, match=rf"no command of yours has named.*--{option}\.encoder {handle}"):
        train_arguments([f"--config={path}", "--smoke"])
    assert train_arguments(["--config", str(path), "--trust"]).config == config
    with pytest.raises(UserError, match="no command of yours has named"):
        train_arguments(["--config", str(path)])
    assert train_arguments(["--config", str(path), f"--{option}.encoder={handle}"]).config == config
    assert train_arguments(["--config", str(path)]).config == config  # as a run that --resume continues
