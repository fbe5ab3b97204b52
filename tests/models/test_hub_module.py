"""A damaged SavedModel of an encoder is an error that says so."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.models.hub_handles import load_vocabulary
from emotion_tf.models.hub_module import damage_errors, load_graph, read_module_files, read_variables

DATA, INDEX = "variables/variables.data-00000-of-00001", "variables/variables.index"


@pytest.fixture(scope="module")
def module(tiny_bert):
    """The graph of the encoder, loaded without its values."""
    holder = load_graph(read_module_files(tiny_bert), tiny_bert)
    yield holder.module
    holder.folder.cleanup()


@pytest.fixture
def copied(tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "encoder")
    return tmp_path / "encoder"


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x41]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("file", "change"),
    [(DATA, cut), (DATA, lambda _: b""), (DATA, flip), (INDEX, cut), (INDEX, lambda _: b"garbage")],
)
def test_damaged_variables(file, change, module, copied):
    (copied / file).write_bytes(change((copied / file).read_bytes()))
    with pytest.raises(UserError, match=f"^Encoder '{copied}' is damaged: .*Copy or fetch it again.$"):
        read_variables(module, str(copied))


@pytest.mark.parametrize("file", [DATA, INDEX])
def test_missing_variables(file, module, copied):
    read_variables(module, str(copied))
    (copied / file).unlink()
    with pytest.raises(UserError, match=f"^Encoder '{copied}' is damaged: .*Copy or fetch it again.$"):
        read_variables(module, str(copied))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("saved_model.pb", flip, "is damaged"),
        ("saved_model.pb", cut, "saved_model.pb is damaged"),
        ("assets/vocab.txt", lambda _: b"\xff\xfe", "is damaged: 'utf-8' codec.*Copy or fetch it again"),
    ],
)
def test_a_damaged_graph_or_vocabulary(file, change, message, copied):
    (copied / file).write_bytes(change((copied / file).read_bytes()))
    with pytest.raises(UserError, match=message):
        load_vocabulary(str(copied))


def test_an_encoder_that_may_not_be_read_is_not_called_damaged(copied, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"^Cannot read encoder .*: .*Permission denied.*\. Change its permissions\.$"):
        read_module_files(str(copied))


def test_a_lack_of_memory_is_no_damage():
    with pytest.raises(tf.errors.ResourceExhaustedError), damage_errors("encoder"):
        raise tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory")
