"""The page: whole, self-contained, and safe whatever an utterance says."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pandas as pd
import pytest

from emotion_tf.evaluation import report_page
from emotion_tf.evaluation.before_use import BEFORE_USE
from emotion_tf.evaluation.calibration import Calibration, Outputs, fit_calibration
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.mistakes import Explanation, worst
from emotion_tf.evaluation.modalities import Ablation, judge
from emotion_tf.evaluation.reliability import calibration_error
from emotion_tf.evaluation.report_page import Evidence, write_report
from emotion_tf.evaluation.significance import intervals

LABELS = ("neutral", "joy", "<b>fear</b>")
SECTIONS = (
    "headline", "before", "classes", "learning", "calibration", "slices", "modalities", "selective", "mistakes",
    "about",
)  # fmt: skip
HOSTILE = '<script src="http://a.example/x.js">alert(1)</script> &amp; "quoted" 😀'
VOID = {"meta", "link", "img", "br"}
OPTIONAL = {"td", "tr", "th", "html"}  # which HTML lets end themselves


class Page(HTMLParser):
    """The tags of a page, in pairs where HTML wants pairs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in OPTIONAL:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.texts.append(data)


def picture(kind, colour="red"):
    import matplotlib.pyplot as plt

    figure, made = plt.figure(figsize=(0.3, 0.3), facecolor=colour), io.BytesIO()
    figure.savefig(made, format=kind)
    plt.close(figure)
    return made.getvalue()


def split(seed, count=240, certain=4.0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3)) + certain * 0.4 * np.eye(3)[label]
    return Outputs(certain * logits, label, np.ones(count), np.where(np.arange(count) % 4, 3, 1))


@pytest.fixture(scope="module")
def evidence():
    """A run's evidence that no model has been needed for."""
    test, chosen = split(1), fit_calibration(split(0))
    group = (np.arange(240) // 6).astype(str)
    probabilities = chosen.temperatures.probabilities(test.logits, test.pattern)
    raw = Calibration().temperatures.probabilities(test.logits, test.pattern)
    numbers = metrics(test.label, probabilities, LABELS, 0)
    numbers["intervals"] = intervals(test.label, probabilities.argmax(axis=1), group, 500)
    numbers["calibration"] = {
        "expected_calibration_error": calibration_error(test.label, probabilities),
        "uncalibrated": {"expected_calibration_error": calibration_error(test.label, raw), "log_loss": 1.0},
    }
    table = pd.DataFrame(
        {
            "dialogue_id": group,
            "utterance_id": (np.arange(240) % 6).astype(str),
            "speaker": "Ada",
            "utterance": HOSTILE,
            "before": [["Ben: Why?"]] * 240,
            "faces": np.where(np.arange(240) % 4, 1, 0),
            "face_height": np.nan,
            "sharpness": np.where(np.arange(240) % 4, np.arange(240.0), np.nan),
            "face_tracks": 0,
            "doubtful": False,
        }
    )
    whole = probabilities.argmax(axis=1)
    ablation = Ablation(180, np.roll(whole, 1), np.stack([np.roll(whole, k) for k in (2, 3)]))
    rows = worst(test.label, probabilities)
    words = [(word, value) for word, value in zip(HOSTILE.split(), (0.5, -0.25, 0.0, 0.1, 0, 0), strict=False)]
    return Evidence(
        run="tiny",
        split="test",
        labels=LABELS,
        majority=0,
        numbers=numbers,
        outputs=test,
        calibration=chosen,
        table=table,
        facts={"data": "tfrecords/tiny", "seed": "7", "command of the training": "main.py train --name <i>"},
        history=pd.DataFrame({"epoch": [1, 2], "loss": [1, 0.5], "dev_loss": [1, 0.9], "dev_weighted_f1": [0.5, 0.25]}),
        helps=[judge(name, test.label, whole, ablation, group) for name in ("text", "face")],
        ceiling={"both": 0.9},
        crops={rows[0]: picture("jpeg")},
        explanations={rows[1]: Explanation(words, [("heat", picture("png"))], "completeness 0.3 %")},
    )


@pytest.fixture(scope="module")
def page(evidence, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, evidence)
    return path


def test_every_section_is_there_and_nothing_else_is_needed(page):
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert tuple(a["id"] for tag, a in parsed.tags if tag == "section") == SECTIONS
    targets = {a["id"] for _, a in parsed.tags if "id" in a}
    assert {a["href"][1:] for tag, a in parsed.tags if tag == "a"} <= targets
    assert not {tag for tag, _ in parsed.tags} & {"script", "iframe", "object", "form"}
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)
    assert not re.search(r"url\(|@import", text)
    kinds = [a["src"].split(";")[0] for tag, a in parsed.tags if tag == "img"]
    assert kinds.count("data:image/svg+xml") == 4 and {"data:image/jpeg", "data:image/png"} <= set(kinds)


def test_what_it_says(page, evidence):
    parsed = Page(page.read_text(encoding="utf-8"))
    said = " ".join(" ".join(parsed.texts).split())
    assert all(text in said for _, text in BEFORE_USE)
    for name in ("weighted_f1", "accuracy", "macro_f1"):
        low, high = evidence.numbers["intervals"][name]
        assert f"{evidence.numbers[name]:.3f}" in said and f"[{low:.3f}, {high:.3f}]" in said
    assert all(one.sentence in said for one in evidence.helps)
    assert f"always neutral: {evidence.numbers['majority_floor']['accuracy']:.3f}" in said
    assert "seed 7" in said and "main.py train --name <i>" in said and "both 0.900" in said
    assert "Epoch 1 of 2 was kept" in said
    assert f"--abstain-below {evidence.calibration.thresholds[0].threshold:.3f}" in said
    assert HOSTILE in said and "completeness 0.3 %" in said and "Ben: Why?" in said
    assert "only looked at afterwards" in said


def test_on_a_split_that_it_has_seen_it_says_that_the_numbers_flatter(evidence, tmp_path):
    from dataclasses import replace

    other = replace(
        evidence,
        split="dev",
        seen="they were trained on",
        history=None,
        helps=(),
        helps_missing="One tower alone.",
        calibration=Calibration(),
    )
    write_report(tmp_path / "r.html", other)
    said = " ".join(" ".join(Page((tmp_path / "r.html").read_text()).texts).split())
    assert "The numbers flatter: they were trained on." in said and "only looked at afterwards" not in said
    assert "no history.csv" in said and "One tower alone." in said and "not calibrated" in said
    assert "No threshold was chosen" in said
    write_report(tmp_path / "r.html", replace(evidence, home="tfrecords/home"))
    said = " ".join(" ".join(Page((tmp_path / "r.html").read_text()).texts).split())
    assert "The run is of tfrecords/home: " in said and "only looked at afterwards" not in said


def test_the_worst_are_the_most_confident_wrong_ones():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]])
    assert worst(np.array([1, 1, 0, 1, 0]), probabilities) == [0, 2, 1]
    assert worst(np.array([1, 1, 0, 1, 0]), probabilities, 2) == [0, 2]
    assert Explanation([("a", -2.0), ("b", 1.0)]).shades == [("a", -1), ("b", 0.5)]
    assert Explanation([("a", 0.0)]).shades == [("a", 0)]


def test_the_confusion_is_in_counts_and_shares():
    ((a, b), (c, d)) = report_page._confusion([[3, 1], [0, 0]])
    assert (a.utterances, a.share, b.share, c.share, d.utterances) == (3, 0.75, 0.25, 0, 0)
    assert a.colour == "#fff" and b.colour == "#222"


@pytest.mark.slow
def test_in_a_browser_without_a_network(page):
    seen = browser.look(page)
    assert (seen.requests, seen.errors, seen.broken) == ([], [], 0)
    assert seen.widths == {400: 400, 1200: 1200}
    assert "Before you use this" in seen.text and HOSTILE in seen.text
