from __future__ import annotations

import cv2
import numpy as np
import pytest
from synthetic_faces import write_clip

from emotion_tf.errors import UserError
from emotion_tf.faces.frames import Segment, parse_segment, read_frames

RED, BLUE = (0, 0, 255), (255, 0, 0)


def plain(colour, size=(48, 64)):
    return np.full((*size, 3), colour, np.uint8)


def numbered(count):
    """Frames whose brightness tells their number."""
    return [plain((4 * i + 20,) * 3) for i in range(count)]


def number(frame):
    return round((frame.pixels.mean() + 3.2 - 20) / 4)  # the codec darkens by 2.7 to 3.7


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "two_seconds.mp4", numbered(48), 24.0)


def test_frames_come_at_the_rate_in_order_with_their_own_times(clip):
    frames = list(read_frames(clip, rate=8.0))
    assert [number(f) for f in frames] == list(range(0, 48, 3))
    np.testing.assert_allclose([f.time for f in frames], np.arange(16) / 8, atol=1e-3)
    assert frames[0].pixels.shape == (48, 64, 3)


def test_a_rate_above_the_clips_own_gives_every_frame_once(clip):
    assert [number(f) for f in read_frames(clip, rate=100.0)] == list(range(48))


def test_a_window_of_a_clip(clip):
    assert [number(f) for f in read_frames(clip, rate=24.0, start=1.0, end=1.25)] == [24, 25, 26, 27, 28, 29]


def test_a_long_clip_is_sampled_more_thinly_and_to_its_end(clip):
    numbers = [number(f) for f in read_frames(clip, rate=24.0, max_frames=6)]
    assert numbers == [0, 8, 16, 24, 32, 40]


def test_a_cut_file_gives_what_can_be_read(tmp_path):
    # an AVI has its index at the end: cut, it still decodes up to the cut
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 24.0, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(48):
        writer.write(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    writer.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 10 <= len(list(read_frames(cut, rate=24.0))) < 30


def test_rotation_metadata_is_applied(tmp_path):
    """The track's matrix in the tkhd box of an MP4, set to a quarter turn as a phone does."""
    upright = [np.vstack([plain(RED, (24, 64)), plain(BLUE, (24, 64))])] * 4
    path = write_clip(tmp_path / "turned.mp4", upright)
    data = bytearray(path.read_bytes())
    identity = b"".join(n.to_bytes(4, "big") for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    quarter = b"".join(n.to_bytes(4, "big") for n in (0, 65536, 0, 2**32 - 65536, 0, 0, 0, 0, 1 << 30))
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + 36] = quarter
    path.write_bytes(data)
    turned = next(iter(read_frames(path))).pixels
    assert turned.shape == (64, 48, 3)
    right, left = turned[:, 30:].mean(axis=(0, 1)), turned[:, :18].mean(axis=(0, 1))
    assert right[2] > 200 > 60 > right[0] and left[0] > 200 > 60 > left[2]  # the top went to the right


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"no video at all\n" * 50, "begins with b'no video at "),
        ("header.mp4", b"\0\0\0\x18ftypmp42" + b"\0" * 200, "Cannot decode the clip"),
    ],
)
def test_what_is_no_video_is_told_with_its_name(tmp_path, name, content, words, capfd):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="Expected a video") as caught:
        list(read_frames(path))
    assert words in str(caught.value) and name in str(caught.value)
    assert capfd.readouterr().err == ""


def test_an_absent_clip_and_a_window_outside(tmp_path, clip):
    with pytest.raises(UserError, match="No such file"):
        list(read_frames(tmp_path / "none.mp4"))
    with pytest.raises(UserError, match="which lasts .* seconds, has no frame from 5 to 6 seconds"):
        list(read_frames(clip, start=5.0, end=6.0))


def test_the_name_of_a_segment_keeps_the_milliseconds_of_a_long_film(tmp_path):
    segment = Segment(tmp_path / "film.mp4", 10_226.183, 10_228.004)
    assert segment.name(tmp_path) == "film.mp4#t=10226.183,10228.004"
    assert parse_segment(segment.name(tmp_path), tmp_path) == segment
