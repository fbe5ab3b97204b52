"""The page in a headless browser that can reach only 127.0.0.1."""

from __future__ import annotations

import base64
import io
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import synthetic_faces
from browser import ARGUMENTS, axe_source, executable

from emotion_tf.config import CropConfig
from emotion_tf.evaluation.calibration import read_calibration, write_calibration
from emotion_tf.evaluation.selective import Threshold

pytestmark = pytest.mark.slow

SRT = """1
00:00:00,000 --> 00:00:00,700
You did it!

2
00:00:00,800 --> 00:00:01,400
2 < 3 & "yes".
"""
TEXT = """You did <img src="x" onerror="document.title='taken'"> it & "that"!"""
WAIT = 60_000


@pytest.fixture(scope="module")
def folder(untrained, untrained_text, tmp_path_factory):
    """Two runs; the first has a threshold of 99.9 %."""
    import dataclasses

    folder = tmp_path_factory.mktemp("saved_models")
    shutil.copytree(untrained, folder / "both")
    shutil.copytree(untrained_text, folder / "text")
    calibration = read_calibration(folder / "both")
    write_calibration(folder / "both", dataclasses.replace(calibration, thresholds=(Threshold(0.7, 0.999, 0.5, 0.7),)))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture with two faces, a clip, subtitles, and a broken picture."""
    folder = tmp_path_factory.mktemp("files")
    pair = synthetic_faces.draw_scene(
        [(synthetic_faces.draw_face(1), (20, 40)), (synthetic_faces.draw_face(2), (300, 60))]
    )
    cv2.imwrite(str(folder / "pair.png"), pair)
    synthetic_faces.write_speaker(folder / "clip.mp4")
    (folder / "film.srt").write_text(SRT, encoding="utf-8")
    (folder / "broken.png").write_bytes(b"no picture at all")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    from emotion_tf.page.runs import Runs
    from emotion_tf.page.server import open_page

    load = synthetic_faces.load_detector
    with open_page(Runs(folder, ["both", "text"]), "both", 0, CropConfig(), load, 20 * 2**20) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=[*ARGUMENTS, *camera])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium, address):
    """The open page. Fails if it requests another address, or logs an error to the console."""
    outside, errors = [], []
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, permissions=["camera"])
    context.route(lambda url: not url.startswith(("http://127.0.0.1:", "data:", "blob:")), lambda route: route.abort())
    tab = context.new_page()
    tab.set_default_timeout(WAIT)
    own = ("http://127.0.0.1:", "data:", "blob:")
    tab.on("request", lambda request: None if request.url.startswith(own) else outside.append(request.url))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("#text textarea")
    yield tab
    context.close()
    assert outside == [] and errors == []


def enter(tab, text, context=""):
    tab.fill("#text textarea", text)
    tab.fill("#context textarea", context)


def upload(tab, element, path):
    tab.set_input_files(f"#{element} input[type=file]", str(path))


def press(tab, button="Predict"):
    """Presses a button, waits for the new answer, and returns its text."""
    tab.wait_for_selector("#answer .answers, #answer .answer, #answer .notice")
    tab.evaluate("document.querySelector('#answer .answers, #answer .answer, #answer .notice').id = 'old'")
    tab.click(f"button:text-is('{button}')")
    tab.wait_for_selector("#old", state="detached")
    return tab.inner_text("#answer")


def shown_probabilities(tab, n=0):
    """Returns the probabilities in the n-th answer, whose table has all digits; the page shows them rounded."""
    answer = tab.query_selector_all("#answer .answer")[n]
    table = answer.query_selector("a.download[download$='.csv']").get_attribute("href")
    rows = pd.read_csv(io.BytesIO(base64.b64decode(table.split(",")[1])))
    probabilities = rows[rows.what == "probability"].value.to_numpy()
    cells = answer.query_selector(".bars").query_selector_all(".number")
    assert [cell.inner_text() for cell in cells] == [f"{100 * p:.2f} %" for p in probabilities]
    return probabilities


def predictor(folder, name):
    from emotion_tf.runs.run import Run
    from emotion_tf.serving.predict import RunPredictor

    return RunPredictor(Run(folder / name))


def crops_of(path, size):
    """Returns the crop of each face in a picture."""
    from emotion_tf.faces import encode
    from emotion_tf.faces.candidates import find_in_photo

    return [
        face.jpegs[0] for face in find_in_photo(encode.read_pixels(path), synthetic_faces.load_detector(), size).faces
    ]


@pytest.fixture(scope="module")
def export_predictor(folder):
    from emotion_tf.runs.export import Export
    from emotion_tf.runs.run import Run
    from emotion_tf.serving.export import export
    from emotion_tf.serving.predict import ExportPredictor

    return ExportPredictor(Export.open(export(Run(folder / "both"))))


def test_text_with_each_face_of_a_picture(tab, folder, files, export_predictor):
    enter(tab, TEXT, "Ada: hello")
    upload(tab, "picture", files / "pair.png")
    tab.wait_for_selector("#faces .scene")
    assert "2 faces were found" in tab.inner_text("#faces")
    run_predictor = predictor(folder, "both")
    crops = crops_of(files / "pair.png", run_predictor.run.spec.face_size)
    for number, crop in enumerate(crops, 1):
        tab.check(f"#face_choice input[value^='{number}|']")
        answer = press(tab)
        expected = run_predictor.predict([TEXT], [crop]).probabilities[0]
        np.testing.assert_allclose(shown_probabilities(tab), expected, atol=2e-6)
        np.testing.assert_allclose(
            shown_probabilities(tab), export_predictor.predict([TEXT], [crop]).probabilities[0], atol=1e-5
        )
        assert "Not sure" in answer and "its answers with at least 99.90 %" in answer  # the run's threshold
        assert "This run does not read previous utterances." in answer
        assert {"Words", "Face", "Modalities"} <= {e.inner_text() for e in tab.query_selector_all("#answer h3")}
    assert not np.allclose(*run_predictor.predict([TEXT] * 2, crops).probabilities, atol=1e-5)
    assert tab.title() == "emotion_tf"
    pictures = tab.query_selector_all("#answer .faces img, #faces img")
    assert len(pictures) == 3 and all(p.evaluate("i => i.naturalWidth > 0 && i.alt.length > 0") for p in pictures)


def test_an_answer_can_be_downloaded(tab):
    enter(tab, "Fine; really, $5.")
    press(tab)
    links = {a.get_attribute("download"): a.get_attribute("href") for a in tab.query_selector_all("#answer a.download")}
    assert set(links) == {"both.csv", "both.png"}
    table = pd.read_csv(io.BytesIO(base64.b64decode(links["both.csv"].split(",")[1])))
    shares = table[table.what == "probability"].value
    np.testing.assert_allclose(shares, shown_probabilities(tab), atol=1e-4)
    assert {"word", "modality"} <= set(table.what)
    png = cv2.imdecode(np.frombuffer(base64.b64decode(links["both.png"].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert png.shape[1] > 800 and png.std() > 5


def test_two_runs_side_by_side(tab, folder):
    tab.click("label:has-text('Compare with') input, [aria-label='Compare with']")
    tab.click("[role=option]:has-text('text')")
    enter(tab, "No!", "Ada: hello\nBen: come here")
    answer = press(tab)
    names = [e.inner_text() for e in tab.query_selector_all("#answer .run")]
    assert names == ["both", "text"], answer
    expected = predictor(folder, "text").predict(["No!"], contexts=[["Ada: hello", "Ben: come here"]]).probabilities[0]
    np.testing.assert_allclose(shown_probabilities(tab, 1), expected, atol=1e-4)
    assert "Previous utterances" in tab.query_selector_all("#answer .answer")[1].inner_text()


def test_a_clip_and_a_webcam_shot(tab, folder, files):
    from emotion_tf.faces.crops import crop_clip
    from emotion_tf.faces.frames import Segment

    tab.click("button[role=tab]:has-text('Clip')")
    upload(tab, "clip", files / "clip.mp4")
    tab.wait_for_selector("#faces .scene")
    press(tab)
    run_predictor = predictor(folder, "both")
    size = run_predictor.run.spec.face_size
    crops = crop_clip([Segment(files / "clip.mp4")], synthetic_faces.load_detector(), CropConfig(), size)
    expected = run_predictor.predict([""], [list(crops.jpegs)]).probabilities[0]
    np.testing.assert_allclose(shown_probabilities(tab), expected, atol=1e-4)
    tab.click("button:text-is('Clear')")
    tab.click("button[role=tab]:has-text('Picture')")
    tab.click("#picture [aria-label='Capture from camera']")
    tab.click("#picture button:has-text('Click to Access Webcam')")
    tab.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
    tab.click("#picture [aria-label='capture photo']")
    tab.wait_for_selector("#faces p:has-text('No face was found')")  # the browser's test camera shows none


def test_the_timeline_of_a_film(tab, files):
    tab.click("button[role=tab]:has-text('A film')")
    upload(tab, "film", files / "clip.mp4")
    upload(tab, "subtitles", files / "film.srt")
    tab.wait_for_selector("#film video")
    tab.wait_for_selector("#subtitles td.filename[aria-label='film.srt']")  # shown once it is uploaded
    answer = press(tab, "Predict the film")
    assert "2 utterances, 2 with a face" in answer and "You did it!" in answer and "2 < 3" not in answer
    moments = tab.query_selector_all("#answer [data-moment]")
    moments[1].click()
    details = tab.inner_text("#answer .details:not([hidden])")
    assert '2 < 3 & "yes".' in details
    assert tab.query_selector("#answer .details:not([hidden]) img").evaluate("i => i.naturalWidth") == 32
    moments[1].press("ArrowLeft")
    assert "You did it!" in tab.inner_text("#answer .details:not([hidden])")
    assert moments[0].get_attribute("aria-pressed") == "true"


def test_the_camera_is_answered_live(tab, folder):
    tab.click("button[role=tab]:has-text('Live')")
    tab.click("#live .start")
    tab.wait_for_selector("#live .state:has-text('There is no face in the picture')")  # of the browser's test camera
    tab.fill("#live .said", "You did it!")
    tab.wait_for_selector("#live .bars .best")
    cells = tab.query_selector("#live .bars").query_selector_all(".number")
    expected = predictor(folder, "both").predict(["You did it!"]).probabilities[0]
    assert [cell.inner_text() for cell in cells] == [f"{100 * p:.2f} %" for p in expected]
    tab.wait_for_selector("#live .rate:has-text('answers a second')")
    assert tab.is_visible("#live .history")
    tab.press("#live .said", "Enter")
    assert "Before: You did it!" in tab.inner_text("#live")
    tab.click("#live .start")
    tab.wait_for_selector("#live .state:has-text('The camera is off.')")


@pytest.mark.parametrize(
    "mistake, message",
    [
        ("nothing", "Nothing to predict: there is no text, no picture and no clip."),
        ("broken", "Cannot decode the picture broken.png"),
        ("endless", "At most 2,000"),
    ],
)
def test_a_mistake_is_answered_with_a_message(tab, files, mistake, message):
    if mistake == "broken":
        upload(tab, "picture", files / "broken.png")
        tab.wait_for_selector("#faces .notice")
    if mistake == "nothing":
        enter(tab, "Something.")
        assert "Nothing to predict" not in press(tab)
    enter(tab, {"endless": "word " * 500, "nothing": "  "}.get(mistake, ""))
    answer = press(tab)
    assert message in answer and "Traceback" not in answer and "/" not in answer.replace("JPEG or PNG", "")


def test_with_the_keyboard_only(tab):
    tab.focus("#text textarea")
    tab.keyboard.type("You did it!")
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.innerText") == "Predict":
            break
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#answer h2")


def test_enter_predicts_and_tab_closes_a_dropdown(tab):
    tab.focus("#text textarea")
    tab.keyboard.type("You did it!")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#answer h2")
    assert tab.input_value("#text textarea") == "You did it!"
    tab.wait_for_selector("[role=status]:has-text('The answer is there.')", state="attached")
    tab.click("[aria-label='Run']")
    tab.wait_for_selector("ul.option-list")
    for name in ("Run", "Compare with", "When to answer"):
        tab.keyboard.press("Tab")  # opens the next one
        tab.wait_for_selector(f"[aria-label='{name}'][aria-expanded='false']")
    tab.wait_for_selector("ul.option-list", state="detached")
    tab.fill("#context textarea", "Ada: Hello.")
    tab.evaluate("document.querySelector('#answer .answer').id = 'old'")
    tab.press("#context textarea", "Shift+Enter")
    tab.wait_for_selector("#old", state="detached")


def test_an_example_fills_in_the_inputs(tab):
    tab.click("#examples button >> nth=0")
    tab.wait_for_function("document.querySelector('#text textarea').value.length > 0")
    tab.wait_for_selector("#picture img")
    assert tab.is_checked("#is_crop input")
    press(tab)
    assert len(tab.query_selector_all("#answer .faces img")) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(tab, files, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.reload()
    tab.wait_for_selector("#text textarea")
    enter(tab, "You did it!")
    upload(tab, "picture", files / "pair.png")
    tab.wait_for_selector("#face_choice input")
    press(tab)
    tab.add_script_tag(content=axe_source())
    for name in ("An utterance", "A film", "Live"):
        tab.click(f"button[role=tab]:has-text('{name}')")
        tab.wait_for_timeout(500)  # colours have a transition
        violations = tab.evaluate("axe.run()")["violations"]
        serious = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
        assert serious == []


def test_on_a_phone(tab, files):
    tab.set_viewport_size({"width": 400, "height": 800})
    enter(tab, "You did it! " + "w" * 300)
    upload(tab, "picture", files / "pair.png")
    tab.wait_for_selector("#faces .scene")
    press(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    tab.wait_for_function("document.getElementById('answer').getBoundingClientRect().top < window.innerHeight")
    if shots := os.environ.get("SHOTS"):
        tab.screenshot(path=str(Path(shots) / "telephone.png"), full_page=True)
