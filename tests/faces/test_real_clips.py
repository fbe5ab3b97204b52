"""Tracks, faces and active speakers of real clips and pictures, in $EMOTION_TF_SHARED or `../shared`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import ROOT

from emotion_tf.config import CropConfig
from emotion_tf.faces import encode
from emotion_tf.faces.active_speaker import mouth_motion, select_track
from emotion_tf.faces.crops import crop_clip, crop_photo
from emotion_tf.faces.detect import YUNET, load_detector
from emotion_tf.faces.frames import Frame, Segment, read_frames
from emotion_tf.faces.track import find_tracks

SHARED = Path(os.environ.get("EMOTION_TF_SHARED") or ROOT.parent / "shared")
VIDEOS, IMAGES = SHARED / "data/faces/videos", SHARED / "data/faces/images"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not VIDEOS.is_dir(), reason="no real clips: see EMOTION_TF_SHARED")]
SPEAKERS = ("lp_d0", "lp_d11", "lp_d12", "lp_d18", "lp_d19")
SIDE = 480


@pytest.fixture(scope="module")
def detect():
    return load_detector("yunet")


def tracks(detect, name):
    return find_tracks(read_frames(VIDEOS / name), detect)


@pytest.mark.parametrize("name", ["pyfeat_no_face.mp4", "dlib_MOT20-05-raw_even_shorter.mp4"])
def test_no_face_and_a_crowd_give_no_track(detect, name):
    assert tracks(detect, name).tracks == []
    assert crop_clip([Segment(VIDEOS / name)], detect).problem == "no face found"


def test_a_face_that_leaves_the_picture(detect):
    face_tracks = tracks(detect, "pyfeat_face_noface.mov")
    (track,) = face_tracks.tracks
    assert track.times[0] < 0.2 and track.times[-1] < 0.5 * face_tracks.seconds
    second = crop_clip([Segment(VIDEOS / "pyfeat_face_noface.mov", face_tracks.seconds / 2)], detect)
    assert second.jpegs == () and second.problem == "no face found"


def test_a_film_is_cut_into_shots_and_several_tracks(detect):
    face_tracks = tracks(detect, "fr_short_hamilton_clip.mp4")
    assert (
        face_tracks.shots >= 3
        and len(face_tracks.tracks) >= 3
        and len({track.shot for track in face_tracks.tracks}) >= 2
    )


@pytest.mark.parametrize("name", SPEAKERS)
def test_one_speaker_is_one_track(detect, name):
    face_tracks = tracks(detect, f"{name}.mp4")
    assert (
        len(face_tracks.tracks) == 1
        and len(face_tracks.tracks[0]) >= 0.9 * face_tracks.frames
        and mouth_motion(face_tracks.tracks[0]) > 1
    )


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("deepface_img3.jpg", 1, 1), ("deepface_img4.jpg", 1, 1), ("deepface_img1.jpg", 1, 1),
        ("deepface_img10.jpg", 1, 1), ("deepface_couple.jpg", 2, 2), ("fr_two_people.jpg", 2, 2),
        ("dlib_bald_guys.jpg", 20, 28), ("pyfeat_multi_face.jpg", 5, 5), ("fr_obama_partial_face.jpg", 0, 1),
        ("pyfeat_Image_with_alpha.png", 1, 1), ("pyfeat_BWPictureHuman.jpg", 1, 1), ("dlib_noface_eagle.jpg", 0, 0),
    ],
)  # fmt: skip
def test_faces_of_a_picture(detect, name, least, most):
    pixels = encode.read_pixels(IMAGES / name)
    faces = detect(pixels)
    assert least <= len(faces) <= most
    crops = crop_photo(pixels, detect)
    assert len(crops.jpegs) == min(1, len(faces))
    if crops.jpegs:
        crop = cv2.imdecode(np.frombuffer(crops.jpegs[0], np.uint8), 1)
        assert crop.shape == (112, 112, 3) and crop.std() > 15


def still(first: np.ndarray, mode: str, count: int, detect) -> list[np.ndarray]:
    """One picture whose mouth never moves, while the head, the eyes or the light do."""
    height, width = first.shape[:2]
    face, rng, made = detect(first)[0], np.random.default_rng(0), []
    for n in range(count):
        t, picture, move = n / 25, first.copy(), np.eye(2, 3)
        if mode == "blink" and n % 20 < 4:
            for x, y in face.landmarks[:2]:
                skin = picture[int(y - 0.12 * face.box[2]), int(x)].tolist()
                axes = int(0.11 * face.box[2]), int(0.06 * face.box[2])
                cv2.ellipse(picture, (int(x), int(y)), axes, 0, 0, 360, skin, -1)
        elif mode == "shift":
            move[:, 2] = 8 * np.sin(6 * t), 5 * np.cos(4 * t)
        elif mode == "zoom":
            move = cv2.getRotationMatrix2D((width / 2, height / 2), 4 * np.sin(3 * t), 1 + 0.06 * np.sin(4 * t))
        elif mode == "nod":
            move[1, 1:] = 1 - 0.06 * abs(np.sin(5 * t)), 10 * np.sin(5 * t)
        picture = cv2.warpAffine(picture, move, (width, height), borderMode=cv2.BORDER_REFLECT)
        if mode == "flicker":
            noisy = picture * (1 + 0.15 * np.sin(17 * t)) + rng.normal(0, 4, picture.shape)
            picture = np.clip(noisy, 0, 255).astype(np.uint8)
        made.append(picture)
    return made


@pytest.fixture(scope="module")
def speaking():
    return {
        name: [cv2.resize(f.pixels, (SIDE, SIDE)) for f in read_frames(VIDEOS / f"{name}.mp4", 25, 10_000)][:75]
        for name in SPEAKERS
    }


def side_by_side(left, right) -> list[Frame]:
    pairs = list(enumerate(zip(left, right, strict=False)))[::3]
    return [Frame(n / 25, np.hstack(pictures)) for n, pictures in pairs]


MODES = ("shift", "zoom", "nod", "blink", "flicker")


def test_the_speaking_face_is_chosen_beside_a_still_one(detect, speaking):
    """In at least nine of ten trials: 25 pairs, with the speaker on the left and on the right."""
    correct = []
    for i, name in enumerate(SPEAKERS):
        for j, mode in enumerate(MODES):
            silent = speaking[SPEAKERS[(i + 1 + j % 4) % 5]]
            frozen = still(silent[0], mode, len(silent), detect)
            for on_left in (True, False):
                pair = (speaking[name], frozen) if on_left else (frozen, speaking[name])
                selection = select_track(find_tracks(side_by_side(*pair), detect))
                is_left = selection.track.faces[0].box[0] + selection.track.faces[0].box[2] / 2 < SIDE
                correct.append(selection.policy == "speaking" and is_left == on_left)
    assert sum(correct) >= 0.9 * len(correct), f"{sum(correct)} of {len(correct)}"


@pytest.mark.parametrize(
    ("name", "modes"), list(zip(SPEAKERS, zip(MODES, MODES[1:] + MODES[:1], strict=True), strict=True))
)
def test_with_still_mouths_the_larger_face_is_chosen(detect, speaking, name, modes):
    pictures = speaking[name]
    pair = [still(pictures[0], mode, len(pictures), detect) for mode in modes]
    assert select_track(find_tracks(side_by_side(*pair), detect)).policy == "speaking>largest"


def test_clips_to_a_run_that_predicts_a_clip(tmp_path, succeed):
    """prepare clips -> train --smoke -> audit -> predict --clip and a film, on the command line."""
    table = tmp_path / "table.csv"
    lines = ["split,dialogue_id,utterance_id,speaker,utterance,emotion,clip"]
    for n, path in enumerate(sorted(VIDEOS.iterdir())):
        shutil.copy(path, tmp_path)
        held_out = (("dev", "anger"), ("test", "joy")) if path.stem in SPEAKERS else ()
        for split, emotion in (("train", "joy"), *held_out):
            lines.append(f"{split},{n},0,Ada,Number {n}!,{emotion},{path.name}")
    table.write_text("\n".join(lines) + "\n")
    printed = succeed("prepare", "clips", table, "--out", tmp_path / "data", "--tokenizer", "learned")
    assert f"train: {n + 1} rows: no face found 2, with a face {n - 1}" in printed
    towers = ("--text.branches", "cnn", "--face.cnn-filters", 8, 8)  # which are traced in seconds
    succeed("train", "--data", tmp_path / "data", "--name", "clips", "--smoke", *towers)
    run = tmp_path / "saved_models" / "clips"
    assert "audit.html" in succeed("audit", tmp_path / "data")
    printed = succeed("predict", run, "--clip", tmp_path / "lp_d0.mp4", "--text", "You did it!")
    assert printed.startswith("face: speaking, score")
    (tmp_path / "film.srt").write_text(
        "1\n00:00:00,000 --> 00:00:02,000\nOh!\n\n2\n00:00:02,000 --> 00:00:04,000\nNo!\n"
    )
    film = (tmp_path / "lp_d11.mp4", tmp_path / "film.srt", "--out", tmp_path / "film")
    assert "2 utterances, 2 with a face" in succeed("predict-film", run, *film)
    assert (tmp_path / "film" / "timeline.png").is_file()


def test_meld_of_real_clips(tmp_path):
    """A MELD.Raw of the clips: where each goes, and what becomes of it, counted."""
    from emotion_tf.data import clip_source, meld, records
    from emotion_tf.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer

    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    clips = {p.stem: p for p in sorted(VIDEOS.iterdir()) if p.suffix == ".mp4"}
    (tmp_path / "train_splits").mkdir()
    lines = []
    for n, (name, path) in enumerate(clips.items()):
        shutil.copy(path, tmp_path / "train_splits" / f"dia7_utt{n}.mp4")
        lines.append(f'{n},"{name}",Ross,joy,positive,7,{n},4,7,"00:20:57,256","00:21:00,049"\n')
    (tmp_path / "train_sent_emo.csv").write_text(header + "".join(lines))
    found = meld.read_meld(tmp_path)
    source = clip_source.ClipSource(tmp_path, found.clips, CropConfig(), YUNET, 2, found.account)
    options = records.PrepareOptions(meld.MELD_EMOTIONS, 112, 0, "x")
    pieces = WordPieceTokenizer([*SPECIAL_TOKENS, "a"], True)
    written = records.write_dataset(found.rows, tmp_path / "out", options, pieces, source=source)
    assert written.account["rows"]["train"] == {"total": len(clips), "no face found": 2, "with a face": len(clips) - 2}
    assert written.account["clips"]["train"] == {"total": len(clips), "opened": len(clips)}
    assert written.max_faces == 4
