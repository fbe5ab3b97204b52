"""Files of arrays: whatever damage they have, the error is one line."""

import os

import numpy as np
import pytest

from emotion_tf.arrays import Column, open_arrays, write_columns
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


def test_rows_of_an_array_are_read_from_its_file(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    np.savez(tmp_path / "a.npz", text="hello", a=array, empty=np.empty((0, 3)))
    with open_arrays(tmp_path / "a.npz", "Train again.") as arrays:
        stored, empty = arrays.find("a"), arrays.find("empty")
    spans = stored.read([(1, 3), (5, 6), (2, 2)])
    for rows, expected in zip(spans, (array[1:3], array[5:], array[:0]), strict=True):
        np.testing.assert_array_equal(rows, expected)
    assert stored.shape == array.shape and empty.read([(0, 0)])[0].shape == (0, 3)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(UserError, match="has changed while it was used"):
        stored.read([(0, 1)])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: np.savez_compressed(path, a=np.arange(3.0)),
        lambda path: np.savez(path, a=np.asfortranarray(np.ones((3, 2)))),
        lambda path: np.savez(path, a=1),
        lambda path: np.savez(path, b=1),
    ],
)
def test_an_array_that_cannot_stay_in_its_file(write, tmp_path):
    write(tmp_path / "a.npz")
    with pytest.raises(UserError, match="is damaged"), open_arrays(tmp_path / "a.npz", "Train again.") as arrays:
        arrays.find("a")


def test_a_damaged_array_is_noticed_before_its_rows_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3.0))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data.replace(np.float64(2).tobytes(), np.float64(3).tobytes()))
    with pytest.raises(UserError, match="is damaged"), open_arrays(tmp_path / "a.npz", "Train again.") as arrays:
        arrays.find("a")


def test_columns_that_grow_are_padded_to_the_longest(tmp_path):
    batches = [np.ones((2, 3, 4), np.float32), np.full((1, 5, 4), 2, np.float32), np.empty((0, 1, 4), np.float32)]
    features, names = Column(), Column()
    for batch in batches:
        features.add(batch)
        names.add(np.array(["a" * len(batch)] * len(batch)))
    write_columns(tmp_path / "x.npz", {"features": features, "names": names, "labels": np.array(["joy"])})
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["features"].shape == features.shape == (3, 5, 4) and arrays["features"].dtype == np.float32
    np.testing.assert_array_equal(arrays["features"][:, :, 0], [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [2] * 5])
    assert arrays["names"].tolist() == ["aa", "aa", "a"] and arrays["labels"].tolist() == ["joy"]
