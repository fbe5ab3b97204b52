"""Explanations: their parts and checks, the page and the command line."""

import copy
import csv
import dataclasses
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from browser import check_page

from emotion_tf.cli import explain as verb
from emotion_tf.config import FusionConfig
from emotion_tf.config.fusion import KINDS as FUSIONS
from emotion_tf.errors import UserError
from emotion_tf.interpret import explain as explaining
from emotion_tf.interpret import face, render
from emotion_tf.interpret.batch import Scorer, Utterance
from emotion_tf.interpret.explain import explain
from emotion_tf.interpret.explanation import Curves
from emotion_tf.interpret.integrated_gradients import MAX_STEPS
from emotion_tf.page.answer import Answer
from emotion_tf.page.html import answers_html
from emotion_tf.runs.run import Run
from emotion_tf.serving.predict import RunPredictor

LINE = 'Ada said <b>"no" & ran'
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def scorer(untrained):
    return Scorer(Run(untrained))


@pytest.fixture(scope="module")
def explained(scorer):
    return explain(scorer, [Utterance(LINE, [PICTURE, PICTURE[::-1]], id="d/1", label=2)])[0]


def test_an_explanation_has_words_overlays_and_shapley_values(explained, untrained):
    prediction = RunPredictor(Run(untrained)).predict([LINE], [[PICTURE, PICTURE[::-1]]])
    np.testing.assert_allclose(explained.probabilities, prediction.probabilities[0], atol=1e-5)
    assert explained.labels[explained.target] == prediction.label[0]
    assert [word for word, _ in explained.words] == ["Ada", "said", "<", "b", ">", '"', "no", '"', "&", "ran"]
    assert [value for _, value in explained.words] == explained.word_attributions[0].values.tolist()
    assert list(explained.shapley_values) == ["text", "face"]
    assert sum(explained.shapley_values.values()) == pytest.approx(explained.score - explained.empty, abs=1e-4)
    titles = [title for title, _ in explained.overlays]
    assert titles[0].startswith("HiResCAM at cnn_1_relu_1") and "integrated gradients" in titles[-1]
    for _, overlays in explained.overlays:
        pixels = [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in overlays]
        assert [image.shape for image in pixels] == [(192, 192, 3)] * 2
    assert all(part.similarity and part.curves for part in (explained.word_attributions[0], *explained.maps))


def test_a_batch_without_checks_has_the_same_attributions(scorer, explained):
    quick = explain(scorer, [Utterance("Yes."), explained.utterance], check=False)
    assert quick[0].maps == () and quick[0].shapley_values["face"] == 0
    np.testing.assert_allclose(quick[1].word_attributions[0].values, explained.word_attributions[0].values, atol=1e-5)
    for quick_map, checked_map in zip(quick[1].maps, explained.maps, strict=True):
        np.testing.assert_allclose(quick_map.values, checked_map.values, atol=1e-5)
        assert quick_map.curves is None and quick_map.similarity is None


def test_another_class(scorer, explained):
    labels = scorer.run.labels
    other = labels[(explained.predicted + 1) % len(labels)]
    (explanation,) = explain(scorer, [explained.utterance], label=other, check=False)
    assert labels[explanation.target] == other and explanation.predicted == explained.predicted
    assert explanation.score < explained.score
    with pytest.raises(UserError, match="Invalid `--label`.*'joi'. Did you mean 'joy'"):
        explain(scorer, [explained.utterance], label="joi")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion(kind, initialised, small_config, tiny_bert):
    text = dataclasses.replace(
        small_config.text, branches=("bert", "gru"), encoder=tiny_bert, max_tokens=32, context=1, context_tokens=16
    )
    fusion = FusionConfig(kind=kind, dense_units=(8,), width=8, rank=2, heads=2)
    run = initialised(dataclasses.replace(small_config, text=text, fusion=fusion), encoder=tiny_bert)
    utterances = [
        Utterance("Ada said no!", [PICTURE], ["Ben: Yes."]),
        Utterance("Yes", (), ()),
        Utterance("", [PICTURE] * 2),
    ]
    for explanation in explain(run, utterances):
        for part in (*explanation.word_attributions, *explanation.maps):
            completeness = part.completeness
            # layer norm makes the score very curved near a constant baseline: the residual is then reported
            allowed = kind == "cross_attention" and completeness and completeness.steps == MAX_STEPS
            assert completeness is None or completeness.holds or allowed, part
        assert sum(explanation.shapley_values.values()) == pytest.approx(
            explanation.score - explanation.empty, abs=1e-4
        )
        utterance = explanation.utterance
        assert bool(explanation.maps) == bool(utterance.faces)
        assert bool(explanation.word_attributions) == bool(utterance.text)


def test_the_page_warns_of_a_map_that_does_not_depend_on_the_weights(scorer, explained, monkeypatch, tmp_path):
    def edges(batch, max_steps=0):
        crops, _ = face.real_crops(batch)
        values = np.stack([cv2.Laplacian(c.mean(axis=-1), cv2.CV_64F) for c in crops.astype(np.float64)])
        return face._by_utterance(batch, "gradients", "edges", values, True)

    monkeypatch.setattr(face, "pixel_gradients", edges)
    (explanation,) = explain(scorer, [explained.utterance])
    assert explanation.maps[-1].similarity.suspect and explanation.maps[-1].similarity.correlation > 0.99
    render.write_page(tmp_path, [(explanation, "")], None, {"title": "x", "about": [], "repeats": 1})
    assert "Do not trust this attribution:" in (tmp_path / "index.html").read_text()


def test_the_page_does_not_trust_shapley_values_of_a_modality_that_training_never_lacked(scorer, explained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(scorer.run.path, run)
    for shares, sentences in (((0.0, 0.0099), 2), ((0.01, 0.0), 1), ((0.1, 0.01), 0), (None, 0)):
        about = json.loads((run / "run.json").read_text())
        absent_shares = shares and dict(zip(("text", "face"), shares, strict=True))
        (run / "run.json").write_text(json.dumps({**about, "absent_shares": absent_shares}))
        opened = copy.copy(scorer)  # the model is loaded once, and its graph is traced once
        opened.run = Run(run)
        (explanation,) = explain(opened, [explained.utterance], check=False)
        assert len(explanation.shapley_notes) == sentences
        answer = Answer("run", explanation.labels, 0, explanation.probabilities, 0.0, "", explanation, (), 0.1)
        render.write_page(tmp_path, [(explanation, "")], None, {"title": "", "about": [], "repeats": 1})
        for page in ((tmp_path / "index.html").read_text(), answers_html([answer])):
            assert page.count("do not trust the Shapley values") == page.count("lacked") == sentences
        what = answer.table().set_index("of").loc["face", "what"]
        assert what == ("modality (not to be trusted)" if sentences else "modality")
    assert explained.shapley_notes == ()


def test_an_utterance_without_anything_to_read(scorer):
    with pytest.raises(UserError, match="a/7: Run `.*` reads text and faces; neither was given."):
        explain(scorer, [Utterance("  ", (), ("Ada: Yes.",), "a/7")])


def test_the_page_calls_a_tie_a_tie(explained, tmp_path):
    orders = np.array([0.0, 0.5, 1.0])
    better = Curves(
        5, orders, np.zeros(3), np.full(3, 1.35), np.ones(3), np.full(3, 1.354), np.zeros(20), "random orders"
    )
    equal = dataclasses.replace(better, insertion=np.zeros(3), random_gains=np.zeros(20))
    for curves, verdict in ((better, "Better than chance:"), (equal, "A tie with chance:</span> random orders are")):
        words = dataclasses.replace(explained.word_attributions[0], curves=curves)
        explanation = dataclasses.replace(explained, word_attributions=(words,), maps=())
        render.write_page(tmp_path, [(explanation, "")], None, {"title": "x", "about": [], "repeats": 1})
        page = (tmp_path / "index.html").read_text()
        assert verdict in page and curves.tied == (curves is equal)
        assert ": 0.00 (mean of the random orders: 1.00; lower is better)." in page
        assert (": 1.35 (a tie with the mean of the random orders)." in page) == (curves is better)


def test_the_page_escapes_texts(explained, tmp_path):
    render.write_page(
        tmp_path, [(explained, "undecided")], None, {"title": "<i>", "about": [("Run", "a&b")], "repeats": 1}
    )
    page = (tmp_path / "index.html").read_text()
    assert "<i>" not in page.replace("<i class", "") and "a&amp;b" in page and "<b>&#34;" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "01_gradients_crop1.png", "01_gradients_crop2.png", "01_words_curves.png", "01_gradients_curves.png"
    }  # fmt: skip


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "face.png"
    cv2.imwrite(str(path), PICTURE)
    return path


def test_the_verb_on_one_utterance(untrained, picture, succeed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(untrained, run)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "absent_shares": {"text": 0.01, "face": 0.009}}))
    words = ("explain", run, "--text", LINE, "--face", picture, "--face-is-crop")
    printed = succeed(*words)
    assert str(run / "explanations" / "1" / "index.html") in printed
    assert "words: " in printed and "modalities: text " in printed
    assert "<h1>Why run predicted this</h1>" in (run / "explanations" / "1" / "index.html").read_text()
    assert "Less than 1 % of the training lacked faces" in printed and "lacked text" not in printed
    assert len(list((run / "explanations" / "1").glob("*.png"))) >= 6


@pytest.mark.slow
def test_the_verb_on_a_data_set(untrained, dataset, succeed, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(verb, "REPEATS", 1)
    printed = succeed("explain", untrained, "--data", dataset, "--k", 1, "--limit", 8, "--out", out)
    assert printed.splitlines()[-1] == f"Explanations: {out / 'index.html'}"
    page = (out / "index.html").read_text()
    for part in ("The data set: 8 utterances", "confident mistake", "Weighted F1", "Seed"):
        assert part in page
    with open(out / "modalities.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shares: dict = {}
    for row in rows:
        shares[row["emotion"]] = shares.get(row["emotion"], 0) + float(row["share"])
    assert {row["trusted"] for row in rows} == {"yes"}
    assert rows and list(shares.values()) == pytest.approx([1] * len(shares), abs=1e-4)
    for name, columns in (
        ("words", "emotion,word,utterances,mean,total"),
        ("importance", "modality,weighted_f1_lost,deviation"),
    ):
        assert (out / f"{name}.csv").read_text().splitlines()[0] == columns
    assert [p.name for p in out.glob("mean_face_*.png")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give exactly one of: an utterance (--text, --face or --clip, and --context), --data."),
        (("--text", "a", "--data", "b"), "Give exactly one of: an utterance (--text"),
        (("--text", "a", "--context", "A: b"), "reads no context"),
        (("--text", "a", "--label", "joi"), "Did you mean 'joy'"),
        (("--text", "a", "--layer", "cnn_9"), "No layer 'cnn_9'"),
        (("--face", "gone.png", "--face-is-crop"), "Cannot read the face picture gone.png"),
        (("--data", "gone"), "No data set at gone"),
        (("--data", "gone", "--k", "-1"), "Invalid `--k`"),
        (("--text", "a", "--out", "."), ". exists. Expected a new name; --overwrite replaces it."),
        (("--text", "a", "--out", ".", "--overwrite"), ". is the working directory, or a folder above it."),
        (("--text", "a", "--out", "tests", "--overwrite"), "tests is no page of explanations: it has no index.html."),
        (
            ("--text", "a", "--clip", "a.mp4", "--face-is-crop"),
            "--face-is-crop says that the pictures of --face are aligned crops",
        ),
    ],
)
def test_invalid_options_are_one_line_and_write_nothing(words, message, scorer, untrained, fault, monkeypatch):
    monkeypatch.setattr("emotion_tf.runs.run.load_keras_file", lambda path: scorer.model)  # loaded once
    before = sorted(untrained.rglob("*"))
    assert message in fault("explain", untrained, *words)
    assert sorted(untrained.rglob("*")) == before


@pytest.mark.slow
def test_the_page_in_a_browser(untrained_bert, dataset, succeed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(untrained_bert.path, run)
    succeed("explain", run, "--data", dataset, "--k", 3, "--limit", 30)
    for width in (400, 1200):
        check_page(run / "explanations" / "1" / "index.html", width)


def test_the_signature_that_the_report_needs():
    assert callable(explaining.explain) and {"utterances", "check"} <= set(explaining.explain.__annotations__)
