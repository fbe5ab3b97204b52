"""The page: what is asked, what is shown, and which function stands behind which button."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from emotion_tf.errors import UserError
from emotion_tf.faces.candidates import Candidates
from emotion_tf.faces.detect import Detector
from emotion_tf.page import html
from emotion_tf.page.answer import Answer, answer
from emotion_tf.page.examples import draw_examples
from emotion_tf.page.film import answer_film
from emotion_tf.page.inputs import FaceFinder, Given, read_texts
from emotion_tf.page.runs import OpenRun, Runs

P = ParamSpec("P")
R = TypeVar("R")
HERE = Path(__file__).parent
NOBODY = ""
"""What the chooser of a second run has for none."""
SURE = {
    "always": 0.0,
    **{f"right in {100 * p:.0f} of 100": p for p in (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)},
}
USUAL = list(SURE)[2]
ABOUT = """# Emotion of an utterance
What annotators would call it, from what was said and the face that said it: **not what anybody feels**. Decide nothing
about a person by it. What you give stays on this computer. Uploads are deleted after ten minutes; what at most 100
visitors asked last, and the answers, stay in memory until the page ends.
"""
EMPTY = "Write an utterance, give a picture or a clip, or take an example; then press Predict."
UNSHOWN = "What the browser cannot show is read all the same."
BROKEN = "Something went wrong here, and it is not your fault. Try again, or with another input."


NO_FACES = Candidates()
PROGRESS = gr.Progress()
"""As a default it is how Gradio is asked for a bar."""


@dataclass(frozen=True)
class Seen:
    """The faces that were found in an upload, kept with the visitor's session."""

    key: tuple[str, int, bool] = ("", 0, False)
    found: Candidates = NO_FACES


def told(shape: Callable[[str], R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a handler: what is raised inside becomes a sentence, in the shape that the handler returns.

    Nothing is logged: neither the visitor's words nor this computer's paths are shown or kept.
    """

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(handler)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return handler(*args, **kwargs)
            except UserError as error:
                return shape(_one_line(error))
            except Exception:  # whatever it was
                return shape(BROKEN)

        return wrapped

    return decorate


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _upload(picture: str | None, clip: str | None) -> str:
    return f"{picture or ''}|{clip or ''}"


def _chooser(seen: Seen) -> Any:
    choices = [(str(n), f"{n}|{seen.key[0]}") for n in range(1, len(seen.found.faces) + 1)]
    return gr.Radio(choices=choices, value=choices[0][1] if choices else None, visible=len(choices) > 1)


def _number(chosen: str | None, upload: str) -> int:
    """Number of the chosen face; 1 when the choice was made for another upload."""
    number, _, of = (chosen or "").partition("|")
    return int(number) if of == upload else 1


class Handlers:
    """The functions behind the buttons."""

    def __init__(self, runs: Runs, finder: FaceFinder, load: Callable[[], Detector]) -> None:
        self.runs, self.finder, self._load = runs, finder, load

    @told(lambda sentence: (html.notice(sentence), _chooser(Seen()), Seen()))
    def look(self, run: str, picture: str | None, clip: str | None, is_crop: bool) -> tuple[str, Any, Seen]:
        """Finds the faces of an upload: the picture of them, the chooser, and what is kept."""
        seen = self._seen(Seen(), self.runs.open(run), picture, clip, is_crop)
        return html.faces_html(seen.found, Path(picture or clip or "").name), _chooser(seen), seen

    def _seen(self, seen: Seen, run: OpenRun, picture: str | None, clip: str | None, is_crop: bool) -> Seen:
        key = (_upload(picture, clip), run.predictor.about.face_size, bool(is_crop))
        if key == seen.key or not (picture or clip):
            return seen if key == seen.key else Seen()
        paths = [Path(one) if one else None for one in (picture, clip)]
        return Seen(key, self.finder.find(paths[0], paths[1], key[1], key[2]))

    @told(html.notice)
    def predict(
        self,
        first: str,
        second: str,
        sure: str,
        text: str,
        past: str,
        picture: str | None,
        clip: str | None,
        is_crop: bool,
        chosen: str | None,
        seen: Seen,
    ) -> str:
        """The answers of one run or two."""
        utterance, lines = read_texts(text, past)
        if not (utterance or lines or picture or clip):
            raise UserError(EMPTY)
        found: list[Answer | str] = []
        for name in dict.fromkeys(one for one in (first, second) if one):
            run = self.runs.open(name)
            faces = self._seen(seen, run, picture, clip, is_crop).found.faces
            number = _number(chosen, _upload(picture, clip))
            crops = faces[min(number, len(faces)) - 1].jpegs if faces else ()
            try:
                with self.runs.lock:
                    found.append(answer(run, Given(utterance, lines, crops), SURE[sure]))
            except UserError as error:
                found.append(_one_line(error))
        return html.answers_html(found)

    @told(html.notice)
    def film(
        self,
        first: str,
        sure: str,
        clip: str | None,
        subtitles: str | None,
        progress: gr.Progress = PROGRESS,
    ) -> str:
        """The timeline of a film."""
        if not clip or not subtitles:
            raise UserError("Give a film and its subtitles.")

        def shown(items: Iterable[Any], total: int) -> Iterator[Any]:
            for n, item in enumerate(items, 1):
                progress((n, total), desc="faces", unit="utterances")
                yield item

        run, config = self.runs.open(first), self.finder.config
        paths = Path(clip), Path(subtitles)
        return html.film_html(answer_film(self.runs, run, *paths, SURE[sure], config, self._load, shown))


def build(do: Handlers, first: str, folder: Path) -> gr.Blocks:
    """The page.

    Args:
        do: what stands behind it.
        first: the run that is chosen at first.
        folder: where the pictures of the examples are drawn.
    """
    names = do.runs.names
    with gr.Blocks(title="emotion_tf", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(ABOUT)
        with gr.Row():
            run = gr.Dropdown(names, value=first, label="Run", filterable=False)
            others = [("none", NOBODY), *((name, name) for name in names)]
            second = gr.Dropdown(others, value=NOBODY, label="Compare with", filterable=False)
            sure = gr.Dropdown(list(SURE), value=USUAL, label="When it answers", filterable=False)
        shown = gr.HTML(
            html.notice(EMPTY), elem_id="answer", apply_default_css=False, js_on_load=_file("film.js"), render=False
        )
        with gr.Row():
            with gr.Column(), gr.Tabs():
                with gr.Tab("An utterance"):
                    _utterance_tab(do, (run, second, sure), shown, folder)
                with gr.Tab("A film with subtitles"):
                    _film_tab(do, (run, sure), shown)
            with gr.Column():
                shown.render()
    return page


def _utterance_tab(do: Handlers, chosen: Sequence[Any], shown: gr.HTML, folder: Path) -> None:
    text = gr.Textbox(label="Utterance", lines=2, elem_id="text", info="As it is said; or nothing.")
    past = gr.Textbox(label="Said before", lines=2, elem_id="past", info="One line each, as Speaker: utterance.")
    with gr.Tabs():
        with gr.Tab("Picture"):
            picture = gr.Image(
                label="Picture or webcam shot", sources=["upload", "webcam", "clipboard"], type="filepath",
                image_mode=None, height=260, elem_id="picture", webcam_options=gr.WebcamOptions(mirror=False),
            )  # fmt: skip
            # what is wrong with a picture is told by us, and not by the library that would open it here
            picture.preprocess = lambda payload: payload and payload.path
            is_crop = gr.Checkbox(False, label="It is an aligned face crop already", elem_id="is_crop")
        with gr.Tab("Clip"):
            clip = gr.Video(
                label="Short clip", sources=["upload", "webcam"], height=260, elem_id="clip",
                webcam_options=gr.WebcamOptions(mirror=False),
            )  # fmt: skip
            gr.Markdown(UNSHOWN)
    faces = gr.HTML(elem_id="faces", apply_default_css=False)
    chooser = gr.Radio([], label="Whose emotion", visible=False, elem_id="chooser")
    chooser.preprocess = lambda payload: payload  # Gradio may have forgotten the choices of a visitor who was long away
    seen = gr.State(Seen(), time_to_live=600)
    with gr.Row():
        go = gr.Button("Predict", variant="primary")
        clear = gr.ClearButton([text, past, picture, clip, is_crop], value="Clear")
    asked = [*chosen, text, past, picture, clip, is_crop, chooser, seen]
    uploads = [picture.change, clip.change, is_crop.change]
    looked = [chosen[0], picture, clip, is_crop]
    gr.on(uploads, do.look, looked, [faces, chooser, seen], show_progress="hidden", api_visibility="private")
    picture.input(lambda: False, None, is_crop, api_visibility="private")  # an example's tick is not the visitor's
    answered = gr.on([go.click, text.submit], do.predict, asked, shown, api_name="predict")
    answered.then(None, js=_file("show.js"))
    clear.click(lambda: html.notice(EMPTY), None, shown, api_visibility="private")
    rows, labels = draw_examples(folder)
    gr.Examples(rows, [text, past, picture, is_crop], label="Examples", example_labels=labels, elem_id="examples")


def _film_tab(do: Handlers, chosen: Sequence[Any], shown: gr.HTML) -> None:
    film = gr.Video(label="Film", sources=["upload"], height=260, elem_id="film")
    gr.Markdown(UNSHOWN)
    subtitles = gr.File(label="Subtitles (SRT, WebVTT or ASS)", elem_id="subtitles")
    go = gr.Button("Predict the film", variant="primary")
    go.click(do.film, [*chosen, film, subtitles], shown, api_name="film").then(None, js=_file("show.js"))


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
