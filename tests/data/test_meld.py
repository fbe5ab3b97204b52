"""MELD as it is unpacked on disk, with all known irregularities, and its exact account."""

from __future__ import annotations

import os
import shutil

import pytest
import synthetic_faces

from emotion_tf.config import CropConfig
from emotion_tf.data import account, clip_source, meld, meld_fair, records
from emotion_tf.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip, crop_all
from emotion_tf.labels import MELD_EMOTIONS

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
BOXES = "Split,Dialogue ID,Utterance ID,Frame Number,X Left,Y Top,X Right,Y Bottom\n"
PIECES = WordPieceTokenizer([*SPECIAL_TOKENS, "hello"], True)


def table(rows, encoding="utf-8"):
    """A MELD table of (dialogue, utterance, text, emotion[, start, end])."""
    lines = [HEADER]
    for n, (dialogue, utterance, text, emotion, *times) in enumerate(rows, 1):
        start, end = times or ("00:20:57,256", "00:21:00,049")
        lines.append(f'{n},"{text}",Ross,{emotion},negative,{dialogue},{utterance},4,7,"{start}","{end}"')
    return "\n".join(lines).encode(encoding)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """MELD.Raw with all irregularities. Read only: copy it."""
    root = tmp_path_factory.mktemp("meld") / "MELD.Raw"
    train, dev = root / "train" / "train_splits", root / "dev_splits_complete"
    test = root / "output_repeated_splits_test"
    speaker = synthetic_faces.write_speaker(root / "speaker.mp4")
    nobody = synthetic_faces.write_empty(root / "nobody.mp4")
    named = [(train, "dia0_utt0"), (dev, "dia0_utt0"), (test, "dia1_utt0"), (test, "final_videos_testdia1_utt0")]
    for folder, clip in [*named, (test, "final_videos_testdia2_utt0")]:
        path = folder / f"{clip}.mp4"
        synthetic_faces.write_speaker(path, seed=len(list(root.rglob("*.mp4"))))
    train.joinpath("dia0_utt1.mp4").write_bytes(speaker.read_bytes())  # byte-identical under two ids
    train.joinpath("dia0_utt2.mp4").write_bytes(speaker.read_bytes())
    train.joinpath("dia1_utt0.mp4").write_bytes(nobody.read_bytes())
    train.joinpath("dia1_utt1.mp4").write_text("no video at all")
    train.joinpath("dia1_utt2.mp4").write_bytes(b"")
    train.joinpath("dia125_utt3.mp4").write_text("moov atom missing")  # known bad
    train.joinpath("dia0_utt9.mp4").write_bytes(nobody.read_bytes() + b" ")  # without a row
    synthetic_faces.write_speaker(dev / "DIA0_utt1.MP4", frames=3)  # 0.1 s, and upper case
    test.joinpath("._dia1_utt0.mp4").write_bytes(b"\0" * 212)
    synthetic_faces.write_speaker(test / "dia38_utt4.mp4", seed=9)  # known bad
    test.joinpath("trailer.mp4").write_text("not a clip")
    speaker.unlink(), nobody.unlink()
    rows = [
        (0, 0, "I don\x92t know", "joy"), (0, 1, "Hi", "neutral"), (0, 2, "Ho", "anger"), (1, 0, "!", "fear"),
        (1, 1, "No", "sadness"), (1, 2, "Yes", "disgust"), (125, 3, "Well", "neutral"), (2, 0, "Gone", "surprise"),
    ]  # fmt: skip
    (root / "train" / "train_sent_emo.csv").write_bytes(table(rows, "latin-1"))
    times = "0:20:26,183", "0:20:27.5"
    dev_rows = [(0, 1, "It’s me", "joy", *times), (0, 0, "Hey", "neutral"), (110, 7, "Oh", "neutral")]
    (root / "dev_sent_emo.csv").write_bytes(b"\xef\xbb\xbf" + table(dev_rows))
    test_rows = [(1, 0, "Up", "joy"), (2, 0, "Down", "fear", "00:00:09,5", "00:00:01,5"), (38, 4, "Long", "neutral")]
    (root / "test_sent_emo.csv").write_bytes(table(test_rows))
    shutil.copy(root / "test_sent_emo.csv", test)  # the same table twice is no error
    return root


def test_the_account_is_exact_number_by_number(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_source, "load_detector", synthetic_faces.load_detector)
    data = meld.read_meld(raw)
    source = clip_source.ClipSource(raw, data.clips, CropConfig(crops=2), None, 2, data.account)
    options = records.PrepareOptions(MELD_EMOTIONS, 32, 2, "x")
    dataset = records.write_dataset(data.rows, tmp_path / "out", options, PIECES, source=source)
    counts = dataset.account
    assert counts["rows"] == {
        "train": {
            "total": 8, "with a face": 1, "no face found": 1, "cannot be decoded": 2, "known bad clip": 1, "no clip": 1,
            "same clip as another utterance": 2,
        },
        "dev": {"total": 3, "with a face": 2, "known bad clip": 1},
        "test": {"total": 3, "with a face": 2, "known bad clip": 1},
    }  # fmt: skip
    assert counts["clips"] == {
        "train": {
            "total": 8, "opened": 4, "the same as another utterance's": 2, "known bad clip": 1, "without a row": 1,
        },
        "dev": {"total": 2, "opened": 2},
        "test": {
            "total": 6, "opened": 2, "replaced by a twin": 1, "known bad clip": 1, "stubs (._*)": 1,
            "not named as a clip": 1,
        },
    }  # fmt: skip
    assert [(entry["row"][1:], entry["problem"]) for entry in counts["not_used"] if entry["row"][0] == "train"] == [
        (["0", "1"], "same clip as another utterance"),
        (["0", "2"], "same clip as another utterance"),
        (["1", "1"], "cannot be decoded"),
        (["1", "2"], "cannot be decoded"),
        (["2", "0"], "no clip"),
        (["125", "3"], "known bad clip"),
    ]
    lines = account.format_lines(counts)
    assert "train: 8 clips: known bad clip 1, opened 4, the same as another utterance's 2, without a row 1" in lines
    assert any("dia1_utt2.mp4" in line and "the file is empty" in line for line in lines)
    assert any("clip without a row: dia0_utt9.mp4" in line for line in lines)
    assert any("train_sent_emo.csv: 1 lines in an old encoding, repaired" in line for line in lines)
    assert any("test_sent_emo.csv: 1 row with a StartTime or EndTime" in line for line in lines)
    assert dataset.splits["train"].with_face == 1 and dataset.max_faces == 2


def test_rows_keep_their_text_and_come_in_order_of_speaking(raw):
    rows = {row.key: row for row in meld.read_meld(raw).rows}
    assert rows["train", "0", "0"].utterance == "I don’t know"
    assert rows["train", "1", "0"].utterance == "!"
    assert [key[1:] for key in rows if key[0] == "dev"] == [("0", "0"), ("0", "1"), ("110", "7")]


def test_the_corrected_clip_is_preferred_over_its_duplicate(raw):
    clips = meld.read_meld(raw).clips
    for key in (("test", "1", "0"), ("test", "2", "0")):
        assert clips[key].segments[0].path.name.startswith("final_videos_test")


def test_sentiment_and_text_only(raw):
    data = meld.read_meld(raw, "sentiment", text_only=True)
    assert {row.label for row in data.rows} == {2} and data.clips == {}


def test_the_error_without_clips_has_the_folder(raw, tmp_path):
    for path in raw.rglob("*.csv"):
        shutil.copy(path, tmp_path)
    with pytest.raises(UserError, match=f"No clip of MELD in {tmp_path} or any folder below.*--text-only"):
        meld.read_meld(tmp_path)
    with pytest.raises(UserError, match="No table of MELD in .*train_sent_emo.csv"):
        meld.read_meld(raw / "dev_splits_complete")
    with pytest.raises(UserError, match="No folder"):
        meld.read_meld(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "The file is empty. Expected a CSV table with columns Utterance"),
        (table([(0, 0, "a", "hapy")]), "line 2: Unknown emotion.*'hapy'"),
        (table([("x", 0, "a", "joy")]), "line 2: Invalid Dialogue_ID. Expected a whole number.*Received: 'x'"),
        (table([(0, 0, "a", "joy"), (0, 0, "b", "joy")]), "line 3: Duplicate key"),
        (table([(0, 0, "a", "joy")]) + b"\n2,cut", "line 3: Expected 11 cells"),
    ],
)
def test_an_invalid_table_is_an_error_with_its_line(tmp_path, text, message):
    (tmp_path / "train_sent_emo.csv").write_bytes(text)
    with pytest.raises(UserError, match=message):
        meld.read_meld(tmp_path, text_only=True)


def test_a_large_table_is_not_read(tmp_path):
    (tmp_path / "train_sent_emo.csv").touch()
    os.truncate(tmp_path / "train_sent_emo.csv", meld.MAX_BYTES + 1)
    with pytest.raises(UserError, match="Cannot read the table .*: More than 16,777,216 bytes"):
        meld.read_meld(tmp_path, text_only=True)


def test_a_pipe_in_place_of_a_table_is_an_error(tmp_path):
    """It was taken for a missing table, and the data set had no such split."""
    (tmp_path / "dev_sent_emo.csv").write_bytes(table([(0, 0, "Hi", "joy")]))
    os.mkfifo(tmp_path / "train_sent_emo.csv")
    with pytest.raises(UserError, match="train_sent_emo.csv: Not a regular file"):
        meld.read_meld(tmp_path, text_only=True)


def test_two_different_tables_of_a_split_are_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    for folder, text in ((tmp_path, "a"), (tmp_path / "a", "b")):
        (folder / "dev_sent_emo.csv").write_bytes(table([(0, 0, text, "joy")]))
    with pytest.raises(UserError, match="Two different dev_sent_emo.csv"):
        meld.read_meld(tmp_path, text_only=True)


@pytest.fixture
def fair(tmp_path):
    """MELD-FAIR's tables by hand: dev dialogue 0 is renumbered, its utterance 1 is in two clips."""
    folder = tmp_path / "csvs"
    folder.mkdir()
    (folder / "realigned_dev_sent_emo.csv").write_text(
        ",Sr No.,Dialogue_ID,Original Utterance_ID,Utterance_ID\n0,1,0,0,0\n1,2,0,1,1\n2,3,110,7,7\n"
    )
    (folder / "MELD_video_realignment_timestamps.csv").write_text(
        "Split,Dialogue ID,Utterance ID,Original Dialogue ID,Original Utterance ID,Start Time,End Time\n"
        "dev,0,0,0,0,0.25,1.0\ndev,0,1,0,0,1.0,1.25\ndev,0,1,0,1,0.0,0.1\ndev,110,7,110,6,0.9,2.2\n"
    )
    (folder / "boxes.csv").write_text(f"{BOXES}dev,0,0,0,60,60,180,180\ndev,0,0,6,61,60,181,180\n")
    return folder


def test_segments_and_boxes_of_meld_fair_replace_whole_clips(raw, fair):
    data = meld.read_meld(raw, fair=meld_fair.read_meld_fair(fair, fair / "boxes.csv"))
    first, second = data.clips["dev", "0", "0"], data.clips["dev", "0", "1"]
    assert [segment.name(raw) for segment in first.segments] == ["dev_splits_complete/dia0_utt0.mp4#t=0.25,1"]
    assert first.boxes == {0: (60, 60, 120, 120), 6: (61, 60, 120, 120)}
    assert [segment.name(raw) for segment in second.segments] == [
        "dev_splits_complete/dia0_utt0.mp4#t=1,1.25",
        "dev_splits_complete/DIA0_utt1.MP4#t=0,0.1",
    ]
    assert second.boxes is None
    assert data.account["notes"][2] == (
        "MELD-FAIR: realigned 2, whole clip, for want of a segment 1, whole clip, for want of times 11"
    )


def test_the_boxes_decide_between_two_faces(tmp_path):
    faces = [synthetic_faces.draw_face(1), synthetic_faces.draw_face(2)]
    path = synthetic_faces.write_clip(
        tmp_path / "a.mp4", [synthetic_faces.draw_scene([(faces[0], (40, 60)), (faces[1], (300, 60))])] * 30
    )
    for left in (40, 300):
        clip = Clip((Segment(path),), {0: (left, 60, 120, 120), 12: (left, 60, 120, 120)})
        (face_crops,) = crop_all([clip], CropConfig(policy="boxes"), synthetic_faces.load_detector, 112, 1)
        assert face_crops.policy == "boxes" and abs(face_crops.boxes[0][0] - left) < 3 and face_crops.score > 0.9
        assert [round(box[0] / 10) for box in face_crops.rivals] == [left // 10, (340 - left) // 10]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("boxes.csv", "Split,Dialogue ID\n", "line 1: No column 'Utterance ID'"),
        ("boxes.csv", BOXES + "dev,0,0,a,1,1,2,2\n", "line 2: Expected a number in Frame Number. Received: 'a'"),
        ("boxes.csv", BOXES + "dev,0,0,nan,1,1,2,2\n", "line 2: Expected a number in Frame Number. Received: 'nan'"),
        ("boxes.csv", BOXES + "dev,0,0,1,1,1,inf,2\n", "line 2: Expected a number in X Right. Received: 'inf'"),
        ("boxes.csv", BOXES + "dev,0,0,1,5,1,2,2\n", "line 2: An empty box"),
        ("realigned_dev_sent_emo.csv", None, "No realigned_train"),
        ("MELD_video_realignment_timestamps.csv", None, "Cannot read the manifest"),
    ],
)  # fmt: skip
def test_invalid_tables_of_meld_fair(fair, name, text, message):
    (fair / name).unlink() if text is None else (fair / name).write_text(text)
    with pytest.raises(UserError, match=message):
        meld_fair.read_meld_fair(fair, fair / "boxes.csv")
