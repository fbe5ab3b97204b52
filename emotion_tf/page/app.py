"""The page: its inputs, its outputs, and the handlers of its buttons."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from emotion_tf.errors import UserError
from emotion_tf.evaluation import selective
from emotion_tf.faces.candidates import Candidates
from emotion_tf.faces.detect import Detector
from emotion_tf.interpret.batch import Utterance
from emotion_tf.page import html
from emotion_tf.page.answer import Answer, answer_utterance
from emotion_tf.page.examples import draw_examples
from emotion_tf.page.film import answer_film
from emotion_tf.page.inputs import FaceFinder, read_texts
from emotion_tf.page.runs import OpenRun, Runs

P = ParamSpec("P")
R = TypeVar("R")
HERE = Path(__file__).parent
NO_RUN = ""
"""Value of the second run's dropdown when no run is selected."""
PRECISIONS = {
    "none": 0.0,
    **{f"{100 * p:.0f} %": p for p in selective.PRECISIONS},
}
"""Value of the dropdown -> least precision of the answers."""
DEFAULT_PRECISION = list(PRECISIONS)[2]
ABOUT = """# Emotion of an utterance
Predicts which emotion annotators would assign to an utterance, from its text and the face of its speaker. **It does not
show what a person feels**: do not base decisions about people on it. Your inputs stay on this computer. Uploads are
deleted after ten minutes. The last inputs and predictions of at most 100 visitors stay in memory until the page is
closed.
"""
START = "Enter an utterance, upload a picture or a clip, or choose an example. Then press Predict."
NOTHING = "Nothing to predict: there is no text, no picture and no clip. Enter one of them, or choose an example."
UNPLAYABLE = "Videos that your browser cannot play can still be used."
INTERNAL_ERROR = "An internal error occurred; your input is not the cause. Try again, or try another input."


NO_FACES = Candidates()
PROGRESS = gr.Progress()
"""As the default of a handler's parameter, it makes Gradio show a progress bar."""


@dataclass(frozen=True)
class UploadFaces:
    """The faces found in an upload, kept in the visitor's session.

    Attributes:
        key: the upload, the side of the crops, and whether it is an aligned crop.
        candidates: the faces.
    """

    key: tuple[str, int, bool] = ("", 0, False)
    candidates: Candidates = NO_FACES


def errors_as_messages(shape: Callable[[str], R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator of handlers: an exception becomes a message, in the shape that the handler returns.

    Nothing is logged: neither the visitor's texts nor this computer's paths are shown or kept.
    """

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(handler)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return handler(*args, **kwargs)
            except UserError as error:
                return shape(_one_line(error))
            except Exception:
                return shape(INTERNAL_ERROR)

        return wrapped

    return decorate


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _upload_key(picture: str | None, clip: str | None) -> str:
    return f"{picture or ''}|{clip or ''}"


def _face_choices(faces: UploadFaces) -> Any:
    choices = [(str(n), f"{n}|{faces.key[0]}") for n in range(1, len(faces.candidates.faces) + 1)]
    return gr.Radio(choices=choices, value=choices[0][1] if choices else None, visible=len(choices) > 1)


def _face_number(choice: str | None, upload: str) -> int:
    """Returns the number of the chosen face; 1 if the choice belongs to another upload."""
    number, _, chosen_upload = (choice or "").partition("|")
    return int(number) if chosen_upload == upload else 1


class Handlers:
    """The handlers of the page's events.

    Args:
        runs: the runs of the page.
        finder: finds faces in pictures and clips.
        load: returns a detector for films; must be picklable.
    """

    def __init__(self, runs: Runs, finder: FaceFinder, load: Callable[[], Detector]) -> None:
        self.runs, self.finder, self._load = runs, finder, load

    @errors_as_messages(lambda message: (html.notice(message), _face_choices(UploadFaces()), UploadFaces()))
    def find_faces(
        self, run: str, picture: str | None, clip: str | None, is_crop: bool
    ) -> tuple[str, Any, UploadFaces]:
        """Finds the faces in an upload. Returns their picture, the choice of a face, and the session's state."""
        faces = self._faces_of(UploadFaces(), self.runs.open(run), picture, clip, is_crop)
        return html.faces_html(faces.candidates, Path(picture or clip or "").name), _face_choices(faces), faces

    def _faces_of(
        self, known: UploadFaces, run: OpenRun, picture: str | None, clip: str | None, is_crop: bool
    ) -> UploadFaces:
        """Returns the faces in an upload, which are searched unless they are known."""
        key = (_upload_key(picture, clip), run.predictor.facts.face_size, bool(is_crop))
        if key == known.key or not (picture or clip):
            return known if key == known.key else UploadFaces()
        paths = [Path(name) if name else None for name in (picture, clip)]
        return UploadFaces(key, self.finder.find(paths[0], paths[1], key[1], key[2]))

    @errors_as_messages(html.notice)
    def predict(
        self,
        first: str,
        second: str,
        precision: str,
        text: str,
        context: str,
        picture: str | None,
        clip: str | None,
        is_crop: bool,
        choice: str | None,
        known: UploadFaces,
    ) -> str:
        """Returns the answers of one run or two."""
        text, lines = read_texts(text, context)
        if not (text or lines or picture or clip):
            raise UserError(NOTHING)
        answers: list[Answer | str] = []
        for name in dict.fromkeys(name for name in (first, second) if name):
            run = self.runs.open(name)
            faces = self._faces_of(known, run, picture, clip, is_crop).candidates.faces
            number = _face_number(choice, _upload_key(picture, clip))
            crops = faces[min(number, len(faces)) - 1].jpegs if faces else ()
            utterance = Utterance(text, crops, lines)
            try:
                answers.append(self.runs.call(answer_utterance, run, utterance, PRECISIONS[precision]))
            except UserError as error:
                answers.append(_one_line(error))
        return html.answers_html(answers)

    @errors_as_messages(html.notice)
    def predict_film(
        self,
        first: str,
        precision: str,
        clip: str | None,
        subtitles: str | None,
        progress: gr.Progress = PROGRESS,
    ) -> str:
        """Returns the timeline of a film."""
        if not clip or not subtitles:
            raise UserError("Upload a film and its subtitles.")

        def with_progress(items: Iterable[Any], total: int) -> Iterator[Any]:
            for n, item in enumerate(items, 1):
                progress((n, total), desc="faces", unit="utterances")
                yield item

        run, config = self.runs.open(first), self.finder.config
        paths = Path(clip), Path(subtitles)
        film = answer_film(self.runs, run, *paths, PRECISIONS[precision], config, self._load, with_progress)
        return html.film_html(film)


def build_page(handlers: Handlers, first: str, folder: Path) -> gr.Blocks:
    """Builds the page.

    Args:
        handlers: handlers of its events.
        first: name of the run that is selected first.
        folder: folder for the pictures of the examples.
    """
    names = handlers.runs.names
    with gr.Blocks(title="emotion_tf", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(ABOUT)
        with gr.Row():
            run = gr.Dropdown(names, value=first, label="Run", filterable=False, scale=3)
            others = [("none", NO_RUN), *((name, name) for name in names)]
            second = gr.Dropdown(others, value=NO_RUN, label="Compare with", filterable=False, scale=3)
            levels = [(f"Answer only if at least {name} precise", name) for name in list(PRECISIONS)[1:]]
            precision = gr.Dropdown(
                [("Always answer", "none"), *levels],
                value=DEFAULT_PRECISION,
                label="When to answer",
                filterable=False,
                scale=4,  # its values are the longest
            )
        output = gr.HTML(
            html.notice(START), elem_id="answer", apply_default_css=False, js_on_load=_file("film.js"), render=False
        )
        with gr.Row():
            with gr.Column(), gr.Tabs():
                with gr.Tab("An utterance"):
                    _utterance_tab(handlers, (run, second, precision), output, folder)
                with gr.Tab("A film"):
                    _film_tab(handlers, (run, precision), output)
                with gr.Tab("Live"):
                    gr.HTML(_file("live.html"), elem_id="live", apply_default_css=False, js_on_load=_file("live.js"))
            with gr.Column():
                output.render()
    return page


def _utterance_tab(handlers: Handlers, settings: Sequence[Any], output: gr.HTML, folder: Path) -> None:
    text = gr.Textbox(label="Utterance", lines=1, elem_id="text", info="Its text; may be empty. Enter predicts.")
    context = gr.Textbox(
        label="Previous utterances",
        lines=2,
        elem_id="context",
        info="One per line, as Speaker: utterance. Shift+Enter predicts.",
    )
    with gr.Tabs():
        with gr.Tab("Picture"):
            picture = gr.Image(
                label="Picture of the speaker", sources=["upload", "webcam", "clipboard"], type="filepath",
                image_mode=None, height=260, elem_id="picture", webcam_options=gr.WebcamOptions(mirror=False),
            )  # fmt: skip
            # Gradio would open the picture here, and its errors are not ours
            picture.preprocess = lambda payload: payload and payload.path
            is_crop = gr.Checkbox(False, label="The picture is an aligned face crop", elem_id="is_crop")
        with gr.Tab("Clip"):
            clip = gr.Video(
                label="Clip of the speaker", sources=["upload", "webcam"], height=260, elem_id="clip",
                webcam_options=gr.WebcamOptions(mirror=False),
            )  # fmt: skip
            gr.Markdown(UNPLAYABLE)
    faces = gr.HTML(elem_id="faces", apply_default_css=False)
    choice = gr.Radio([], label="Face of the speaker", visible=False, elem_id="face_choice")
    choice.preprocess = lambda payload: payload  # Gradio forgets the choices of a visitor after a while
    upload_faces = gr.State(UploadFaces(), time_to_live=600)
    with gr.Row():
        button = gr.Button("Predict", variant="primary")
        clear = gr.ClearButton([text, context, picture, clip, is_crop], value="Clear")
    inputs = [*settings, text, context, picture, clip, is_crop, choice, upload_faces]
    gr.on(
        [picture.change, clip.change, is_crop.change], handlers.find_faces, [settings[0], picture, clip, is_crop],
        [faces, choice, upload_faces], show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    picture.input(lambda: False, None, is_crop, api_visibility="private")  # an upload resets an example's check mark
    predicted = gr.on([button.click, text.submit, context.submit], handlers.predict, inputs, output, api_name="predict")
    predicted.then(None, js=_file("show.js"))
    clear.click(lambda: html.notice(START), None, output, api_visibility="private")
    rows, labels = draw_examples(folder)
    gr.Examples(rows, [text, context, picture, is_crop], label="Examples", example_labels=labels, elem_id="examples")


def _film_tab(handlers: Handlers, settings: Sequence[Any], output: gr.HTML) -> None:
    film = gr.Video(label="Film", sources=["upload"], height=260, elem_id="film")
    gr.Markdown(UNPLAYABLE)
    subtitles = gr.File(label="Subtitles (SRT, WebVTT or ASS)", elem_id="subtitles")
    button = gr.Button("Predict the film", variant="primary")
    predicted = button.click(handlers.predict_film, [*settings, film, subtitles], output, api_name="film")
    predicted.then(None, js=_file("show.js"))


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
