"""Files of arrays: whatever damage they have, the error is one line."""

import os

import numpy as np
import pytest

from emotion_tf.arrays import open_arrays
from emotion_tf.errors import UserError


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3.0), text="hello")
    return tmp_path / "a.npz"


def read(path):
    with open_arrays(path, "Train again.") as arrays:
        return arrays["a"].tolist(), str(arrays["text"]), arrays.get("none")


def test_arrays_are_read_by_name(path):
    assert read(path) == ([0, 1, 2], "hello", None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "is damaged: No data left in file. Train again."),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is damaged: .*. Train again."),
        (lambda path: path.write_bytes(b"garbage" * 100), "is damaged: .*. Train again."),
        (lambda path: np.savez(path, a=np.arange(3.0)), "is damaged: it has no array 'text'. Train again."),
        (
            lambda path: np.savez(path, a=np.array([object()])),
            "is damaged: Object arrays cannot be loaded.* Train again.",
        ),
        (lambda path: np.save(path.open("wb"), np.arange(3)), "is damaged: it is a single array. Train again."),
        (os.unlink, "Cannot read the file .*: No such file or directory. Expected a file of arrays. Train again."),
        (lambda path: (path.unlink(), os.mkfifo(path)), "Not a regular file. Expected a file of arrays. Train again."),
    ],
    ids=["empty", "cut", "garbage", "no-array", "pickle", "single", "gone", "pipe"],
)
def test_a_damaged_file_is_one_line(damage, message, path):
    damage(path)
    with pytest.raises(UserError, match=f"{message}$") as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_changed_byte_is_no_other_error(mask, path):
    data, damages = path.read_bytes(), 0
    for position in range(0, len(data), 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :])
        try:
            read(path)
        except UserError:
            damages += 1
    assert damages > len(data) // 12  # of the rest, such as dates, nothing depends
