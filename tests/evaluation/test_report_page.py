"""The report page: complete, self-contained, and safe for any text of an utterance."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pandas as pd
import pytest

from emotion_tf.evaluation import charts, colours, report_page
from emotion_tf.evaluation.axis import zoomed_axis
from emotion_tf.evaluation.before_use import before_use
from emotion_tf.evaluation.calibration import Calibration, Outputs, fit_calibration
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.mistakes import Explanation, worst_mistakes
from emotion_tf.evaluation.modalities import Ablation, measure_contribution
from emotion_tf.evaluation.reliability import Bin, confidence_of
from emotion_tf.evaluation.report_page import ReportData, write_report
from emotion_tf.evaluation.significance import intervals

LABELS = ("neutral", "joy", "<b>fear</b>")
SECTIONS = (
    "headline", "before", "classes", "learning", "calibration", "slices", "modalities", "selective", "mistakes",
    "about",
)  # fmt: skip
HOSTILE = '<script src="http://a.example/x.js">alert(1)</script> &amp; "quoted" 😀'
VOID = {"meta", "link", "img", "br"}
OPTIONAL = {"td", "tr", "th", "html"}  # need no end tag


class Page(HTMLParser):
    """The tags and texts of a page; checks that tags are closed."""

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

    figure, buffer = plt.figure(figsize=(0.3, 0.3), facecolor=colour), io.BytesIO()
    figure.savefig(buffer, format=kind)
    plt.close(figure)
    return buffer.getvalue()


def split(seed, count=240, certain=4.0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3)) + certain * 0.4 * np.eye(3)[label]
    return Outputs(certain * logits, label, np.ones(count), np.where(np.arange(count) % 4, 3, 1))


@pytest.fixture(scope="module")
def report():
    """The contents of a report, made without a model."""
    test, calibration = split(1), fit_calibration(split(0), np.arange(240) // 6)
    group = (np.arange(240) // 6).astype(str)
    probabilities = calibration.temperatures.probabilities(test.logits, test.pattern)
    raw = Calibration().temperatures.probabilities(test.logits, test.pattern)
    predicted = test.predicted
    numbers = metrics(test.label, predicted, probabilities, LABELS, 0)
    numbers["intervals"] = intervals(test.label, predicted, group)
    numbers["calibration"] = {
        "uncalibrated": metrics(test.label, predicted, raw, LABELS, 0),
    }
    table = pd.DataFrame(
        {
            "dialogue_id": group,
            "speaker": "Ada",
            "words": len(HOSTILE.split()),
            "faces": np.where(np.arange(240) % 4, 1, 0),
            "face_height": np.nan,
            "sharpness": np.where(np.arange(240) % 4, np.arange(240.0), np.nan),
            "face_tracks": 0,
            "doubtful": False,
        }
    )
    ablation = Ablation(180, np.roll(predicted, 1), np.stack([np.roll(predicted, k) for k in (2, 3)]))
    rows = worst_mistakes(predicted == test.label, confidence_of(probabilities, predicted), test.weight)
    words = [(word, value) for word, value in zip(HOSTILE.split(), (0.5, -0.25, 0.0, 0.1, 0, 0), strict=False)]
    return ReportData(
        run="tiny",
        split="test",
        labels=LABELS,
        majority=0,
        numbers=numbers,
        outputs=test,
        calibration=calibration,
        table=table,
        facts={"data": "tfrecords/tiny", "seed": "7", "training command": "main.py train --name <i>"},
        history=pd.DataFrame({"epoch": [1, 2], "loss": [1, 0.5], "dev_loss": [1, 0.9], "dev_weighted_f1": [0.5, 0.25]}),
        contributions=[measure_contribution(name, test.label, predicted, ablation, group) for name in ("text", "face")],
        best_accuracy={"both": 0.9},
        texts={
            row: {
                "dialogue_id": group[row],
                "utterance_id": str(row % 6),
                "speaker": "Ada",
                "utterance": HOSTILE,
                "before": ["Ben: Why?"],
            }
            for row in range(240)
        },
        crops={rows[0]: picture("jpeg")},
        explanations={rows[1]: Explanation(words, [("heat", picture("png"))], "completeness 0.3 %")},
    )


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report)
    return path


def test_the_removal_of_a_modality_that_training_never_lacked_is_marked_as_no_result(report, page, tmp_path):
    assert "untrained" not in page.read_text()
    text, face = report.contributions
    marked = dataclasses.replace(report, contributions=[text, face._replace(never_absent=True)])
    write_report(tmp_path / "a.html", marked)
    rows = [line for line in (tmp_path / "a.html").read_text().splitlines() if "<td>" in line and " removed" in line]
    assert ["untrained, no result" in row for row in rows] == [False, True]


def test_commands_are_those_of_the_installed_program_and_numbers_have_their_singular(report, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/emotion-tf"])
    table = report.table.assign(dialogue_id="0")
    write_report(tmp_path / "a.html", dataclasses.replace(report, table=table))
    text = (tmp_path / "a.html").read_text()
    assert "<code>emotion-tf compare</code>" in text and "emotion-tf predict RUN --abstain-below" in text
    assert "240 utterances in 1 dialogue of" in text


def test_the_page_has_every_section_and_is_self_contained(page):
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
    assert kinds.count("data:image/svg+xml") == 5 and {"data:image/jpeg", "data:image/png"} <= set(kinds)


def test_the_page_shows_the_results(page, report):
    parsed = Page(page.read_text(encoding="utf-8"))
    text = " ".join(" ".join(parsed.texts).split())
    assert all(paragraph in text for _, paragraph in before_use(""))
    assert "MELD" not in text
    for name in ("weighted_f1", "accuracy", "macro_f1"):
        low, high = report.numbers["intervals"][name]
        assert f"{report.numbers[name]:.3f}" in text and f"[{low:.3f}, {high:.3f}]" in text
    assert all(row.sentence in text for row in report.contributions)
    assert f"always neutral: {report.numbers['majority_floor']['accuracy']:.3f}" in text
    for row in report.numbers["per_class"].values():
        assert f"{row['mean_probability']:.3f}" in text and f"{row['calibration_error']:.3f}" in text
    assert f"(classwise) {report.numbers['calibration']['uncalibrated']['classwise_calibration_error']:.3f}" in text
    assert "seed 7" in text and "main.py train --name <i>" in text and "both 0.900" in text
    assert "the weights of epoch 1 of 2" in text
    promised = [row for row in report.calibration.thresholds if row.threshold]
    assert promised and all(f"{row.threshold:.6f}" in text for row in promised)
    assert "It holds with 90 % confidence, for each threshold by itself" in text
    assert "0.99 cannot be promised with 240 validation utterances in 40 dialogues." in text
    assert HOSTILE in text and "completeness 0.3 %" in text and "Ben: Why?" in text
    assert "used for evaluation only" in text


def test_optimistic_results_and_other_data_sets_are_named(report, tmp_path):
    from dataclasses import replace

    other = replace(
        report,
        split="dev",
        optimistic_because="they were trained on",
        history=None,
        contributions=(),
        contributions_note="One tower alone.",
        calibration=Calibration(),
    )
    write_report(tmp_path / "r.html", other)
    text = " ".join(" ".join(Page((tmp_path / "r.html").read_text()).texts).split())
    assert "These results are optimistic: they were trained on." in text and "used for evaluation only" not in text
    assert "has no history.csv" in text and "One tower alone." in text and "not calibrated" in text
    assert "This run has no thresholds, so it promises no precision." in text and "The promise:" not in text
    write_report(tmp_path / "r.html", replace(report, training_data="tfrecords/home"))
    text = " ".join(" ".join(Page((tmp_path / "r.html").read_text()).texts).split())
    assert "was trained on another data set, tfrecords/home" in text and "used for evaluation only" not in text


def test_biases_and_labels_that_are_not_the_most_probable_classes(report, tmp_path):
    from dataclasses import replace

    temperatures = replace(report.calibration.temperatures, biases=(-9.0, 0.0, 4.25))
    biased = replace(report, calibration=replace(report.calibration, temperatures=temperatures))
    write_report(tmp_path / "r.html", biased)
    text = " ".join(" ".join(Page((tmp_path / "r.html").read_text()).texts).split())
    assert "Training favoured rare classes." in text and "-9.00" in text and "+4.25" in text
    row = next(i for i, p in enumerate(biased.probabilities) if p.argmax() != biased.outputs.predicted[i])
    mistake = report_page._mistake(biased, row)
    assert mistake.predicted == mistake.probabilities[0][0] == LABELS[biased.outputs.logits[row].argmax()]
    assert mistake.probabilities[0][1] < mistake.probabilities[1][1]


def test_the_confusion_has_counts_and_shares():
    ((a, b), (c, d)) = report_page._confusion([[3, 1], [0, 0]])
    assert (a.utterances, a.share, b.share, c.share, d.utterances) == (3, 0.75, 0.25, 0, 0)
    assert a.opacity > b.opacity > c.opacity == 0


@pytest.mark.slow
def test_in_a_browser_without_a_network(page):
    rendered = browser.load_page(page)
    assert (rendered.requests, rendered.errors, rendered.broken) == ([], [], 0)
    assert rendered.widths == {400: 400, 1200: 1200}
    assert rendered.violations == []
    assert "Before you use this" in rendered.text and HOSTILE in rendered.text


def test_charts_have_the_colours_of_a_dark_page_too(page):
    charts = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page.read_text(encoding="utf-8"))
    for svg in (base64.b64decode(chart).decode() for chart in charts):
        style, _, drawing = svg.partition("<defs>")
        assert "prefers-color-scheme:dark" in style and colours.DARK[colours.INK] in style
        assert "var(--c0)" in drawing and not [colour for colour in colours.DARK if colour in drawing]


def test_dots_of_the_calibration_curve_are_sized_by_their_utterances(monkeypatch):
    areas = []
    monkeypatch.setattr(
        charts, "figure_uri", lambda figure: areas.extend(c.get_sizes() for c in figure.axes[0].collections)
    )
    few, many = Bin(0.2, 0.3, 50, 0.25, 0.2), Bin(0.9, 1.0, 100, 0.95, 0.9)
    charts.reliability_diagram([few], [few, many])
    ((before,), after) = areas
    assert before == after[0] == after[1] / 2 == charts.LARGEST_DOT / 2


def test_the_axis_of_bars_is_zoomed_to_what_they_show():
    axis = zoomed_axis([0.62, None, 0.71, 0.884, float("nan")])
    assert axis == pytest.approx((0.6, 0.9)) and axis.position(0.75) == pytest.approx(50)
    assert zoomed_axis([]) == pytest.approx((0, 1))
    low, high = zoomed_axis([0.5, 0.5])
    assert low <= 0.5 <= high and low < high


def test_all_percentages_have_one_decimal_and_red_supports(page):
    body = page.read_text(encoding="utf-8").partition("</style>")[2]
    prose = {"95 %", "90 %", "70 %", "83 %", "0.3 %"}
    assert {p for p in re.findall(r"[\d.]+ %", body) if not re.fullmatch(r"\d+\.\d %", p)} <= prose
    first, second = re.findall(r'class="word" style="background:rgba\(var\((--\w+)\)', body)[:2]
    assert (first, second) == ("--for", "--against")  # +0.5 and -0.25
    assert "--for: 214, 69, 55; --against: 52, 110, 191;" in page.read_text(encoding="utf-8")


def test_utterances_of_weight_0_count_nowhere(report, tmp_path):
    """A pattern, a slice and the answers above a threshold without weight; they ended the report, or counted."""
    correct = report.outputs.predicted == report.outputs.label
    weight = np.where((report.outputs.pattern == 3) & correct, 1.0, 0.0)
    outputs = report.outputs._replace(weight=weight)
    weighted = dataclasses.replace(report, outputs=outputs)
    write_report(tmp_path / "report.html", weighted)
    confidence = confidence_of(report.probabilities, outputs.predicted)
    rows = report_page._thresholds(weighted, correct, confidence)
    assert rows and all(row.scores.precision == 1 and row.scores.utterances <= weight.sum() for row in rows)
    assert any(row.scores.precision < 1 for row in report_page._thresholds(report, correct, confidence))
    (pattern,) = report_page._patterns(weighted, correct, confidence, confidence)
    assert (pattern.name, pattern.utterances) == ("text and face", weight.sum())
    of_faces = {row.name: row for kind, group in report_page._slices(weighted, outputs.predicted) for row in group}
    assert "none" not in of_faces and of_faces["present"].utterances == weight.sum()
