"""The audit: exact counts, doubtful selections with their frame, a self-contained page."""

from __future__ import annotations

import base64
import dataclasses
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import browser
import cv2
import numpy as np
import pytest
import synthetic_faces
from small_records import PIECES
from small_tables import write_table

from emotion_tf.config import CropConfig
from emotion_tf.data import audit, clip_source, records
from emotion_tf.data.clips import COLUMNS, read_clips
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.evaluation import audit_page
from emotion_tf.faces.frames import Segment, frame_at, parse_segment
from emotion_tf.labels import MELD_EMOTIONS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six utterances: three speakers alone, two faces that both speak, one without a face, one without a clip."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(2):
        synthetic_faces.write_speaker(folder / f"{n}.mp4", n, 24 + 24 * n)
    synthetic_faces.write_empty(folder / "empty.mp4")
    pair = []
    for n in range(36):
        mouth = 0.5 + 0.5 * np.sin(n)
        faces = [
            (synthetic_faces.draw_face(1, mouth), (20, 40)),
            (synthetic_faces.draw_face(2, mouth)[:, :], (300, 60)),
        ]
        pair.append(synthetic_faces.draw_scene(faces))
    synthetic_faces.write_clip(folder / "pair.mp4", pair)
    rows = [
        {"utterance_id": "0", "clip": "0.mp4"},
        {"utterance_id": "1", "clip": "1.mp4", "emotion": "anger"},
        {"utterance_id": "2", "clip": "empty.mp4"},
        {"utterance_id": "3", "clip": ""},
        {"split": "test", "utterance_id": "0", "clip": "pair.mp4", "emotion": "fear", "utterance": "<b>Out!</b>"},
        {"split": "test", "utterance_id": "1", "clip": "1.mp4"},
    ]
    write_table(folder / "table.csv", rows, COLUMNS)
    read, clips = read_clips(folder / "table.csv", MELD_EMOTIONS)
    out = folder / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_source, "load_detector", synthetic_faces.load_detector)
        source = clip_source.ClipSource(folder, clips, CropConfig(crops=2), None, 1)
        options = records.PrepareOptions(MELD_EMOTIONS, 32, 0, "x")
        records.write_dataset(read, out, options, WordPieceTokenizer(PIECES, True), source=source)
    return out


@pytest.fixture(scope="module")
def facts(data):
    return audit.gather_facts(Dataset.open(data))


@pytest.fixture
def doubtful_pair(monkeypatch):
    """Makes the selection among the two faces a doubtful one: its margin is about 4."""
    monkeypatch.setattr(audit, "MARGIN", 10.0)


def test_counts_are_exact(facts):
    assert facts["causes"] == {
        "train": {"with a face": 2, "no face found": 1, "no clip": 1},
        "test": {"with a face": 2},
    }
    assert facts["splits"]["train"] == {"records": 4, **dict.fromkeys(MELD_EMOTIONS, 0), "joy": 3, "anger": 1}
    assert sum(facts["policies"].values()) == 4 and facts["choices"] == 1
    assert {label: len(crops) for label, crops in facts["crops"].items() if crops} == {"joy": 2, "anger": 1, "fear": 1}
    assert facts["lengths"][0][2] in ("0.mp4", "empty.mp4")
    assert facts["lengths"][-1][0] == pytest.approx(2, abs=0.15) and len(facts["lengths"]) == 5


@pytest.mark.usefixtures("doubtful_pair")
def test_a_doubtful_selection_has_its_frame_and_all_boxes(data, facts):
    assert (facts["choices"], facts["below_margin"], facts["doubtful"]) == (1, 0, [])  # above the margin
    facts = audit.gather_facts(Dataset.open(data))
    (doubtful,) = facts["doubtful"]
    assert facts["below_margin"] == 1
    assert (doubtful["name"], doubtful["clip"], doubtful["label"]) == ("test 0 0", ["pair.mp4"], "fear")
    frame = cv2.imdecode(np.frombuffer(doubtful["frame"], np.uint8), 1)
    assert frame.shape == (240, 480, 3)
    # the selected face, either of the two, is green, the other orange
    colours = [np.median(frame[60:140, left - 1 : left + 2].reshape(-1, 3), axis=0) for left in (20, 300)]
    expected = [(80, 200, 0), (0, 140, 255)]
    assert any(np.abs(np.array(colours) - order).max() < 60 for order in (expected, expected[::-1])), colours


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.usefixtures("doubtful_pair")
def test_page_and_sheet_through_the_command_line(data, succeed):
    printed = succeed("audit", data)
    assert f"Page: {data / 'audit.html'}" in printed
    page = Page()
    page.feed((data / "audit.html").read_text(encoding="utf-8"))
    assert "script" not in page.open and page.links and all(link.startswith("data:image/") for link in page.links)
    for link in page.links:
        if link.startswith("data:image/svg+xml"):
            ElementTree.fromstring(base64.b64decode(link.split(",")[1]))
            continue
        assert cv2.imdecode(np.frombuffer(base64.b64decode(link.split(",")[1]), np.uint8), 1) is not None
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert "“<b>Out!</b>”" in text  # as text, not as markup
    assert "1 utterance has more than one face" in text and "2 (50.0 %)" in text and "no clip" in text
    sheet = cv2.imread(str(data / "audit.png"))
    assert sheet.shape[0] > 500 and sheet.std() > 20


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.15, 10.0])
def test_the_page_in_a_browser(data, tmp_path, monkeypatch, margin):
    monkeypatch.setattr(audit, "MARGIN", margin)
    audit_page.write_page(tmp_path / "a.html", audit.gather_facts(Dataset.open(data)))
    rendered = browser.load_page(tmp_path / "a.html")
    assert (rendered.requests, rendered.errors, rendered.broken, rendered.violations) == ([], [], 0, [])
    assert rendered.widths == {400: 400, 1200: 1200}
    assert ("No selection is doubtful." in rendered.text) == (margin < 1)


def test_a_root_that_is_no_folder_is_named(dataset, fault, tmp_path):
    for root in (tmp_path / "missing", dataset / "vocab.txt"):
        assert f"No such folder: --root {root}" in fault("audit", dataset, "--root", root)


@pytest.mark.usefixtures("doubtful_pair")
def test_clips_that_moved_are_read_from_root(data, tmp_path):
    opened = Dataset.open(data)
    moved = dataclasses.replace(opened, faces={**opened.faces, "root": str(tmp_path)})
    assert audit.gather_facts(moved)["doubtful"][0]["frame"] is None
    assert audit.gather_facts(moved, data.parent)["doubtful"][0]["frame"]


@pytest.mark.usefixtures("doubtful_pair")
def test_somebody_elses_data_set_shows_no_other_clips(data, tmp_path):
    """Their records could name a private video, which would appear on the page."""
    foreign = shutil.copytree(data, tmp_path / "data")
    info = (foreign / INFO).read_text(encoding="utf-8")
    (foreign / INFO).write_text(f"{info}\n", encoding="utf-8")  # nobody has made this file here
    opened = Dataset.open(foreign)
    rows = audit.gather_facts(opened)["doubtful"]
    assert rows[0]["frame"] is None and not opened.is_own and Dataset.open(data).is_own
    (tmp_path / "private.mp4").write_text("")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "private.mp4")
    for name in (str(tmp_path / "private.mp4"), "../private.mp4", "link.mp4", "a.mp4#t=x", "\0"):
        assert audit._segments([name], opened, tmp_path / "root") == []
    assert audit._segments(["a/b.mp4#t=1"], opened, tmp_path / "root") == [Segment(tmp_path / "root/a/b.mp4", 1.0)]


def test_a_data_set_of_pictures_has_an_audit_too(dataset, tmp_path):
    facts = audit.gather_facts(Dataset.open(dataset))
    assert facts["policies"] == {} and facts["doubtful"] == []
    audit_page.write_page(tmp_path / "a.html", facts)
    audit_page.write_sheet(tmp_path / "a.png", facts)
    assert "more than one face" not in (tmp_path / "a.html").read_text()


def test_a_time_in_joined_segments_gives_its_frame(tmp_path):
    pictures = [np.full((64, 64, 3), (10 * n, 0, 0), np.uint8) for n in range(24)]
    path = synthetic_faces.write_clip(tmp_path / "a.mp4", pictures, 12)
    segments = [parse_segment(Segment(path, 0.5, 1.0).name(tmp_path), tmp_path), parse_segment("a.mp4#t=1.5", tmp_path)]
    assert segments == [Segment(path, 0.5, 1.0), Segment(path, 1.5)]
    for time, grey in ((0.5, 60), (0.75, 90), (1.0, 180), (1.25, 210)):
        assert abs(int(frame_at(segments, time)[..., 0].mean()) - grey) <= 6
    assert frame_at([Segment(tmp_path / "none.mp4")], 0.0) is None


def test_a_page_that_cannot_be_written_is_an_error_before_the_data_are_read(dataset, tmp_path, fault):
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    (data / "audit.html").mkdir()
    next(data.glob("*.tfrecord*")).write_bytes(b"damaged")
    assert "Expected the name of a file. Received the folder" in fault("audit", data)
    assert not (data / "audit.png").exists()
