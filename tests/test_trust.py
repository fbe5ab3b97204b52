"""What a user trusts."""

import os
from hashlib import sha256

import pytest

from emotion_tf import trust
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


def test_a_folder_of_trust_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path / "file"))
    trust.remember("0" * 64, "a test")
    assert not trust.is_trusted("0" * 64)
