"""`predict`: one utterance, a table, a clip or a film."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from emotion_tf.cli.prepare import CROPS, count_processes
from emotion_tf.command_line import Flag
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.quiet import needs_tensorflow

if TYPE_CHECKING:
    from emotion_tf.runs.facts import ModelFacts
    from emotion_tf.schema import DataSpec
    from emotion_tf.serving.predict import Asked, Prediction


@needs_tensorflow
def predict(
    run: Positional[Path | None] = None,
    text: str = "",
    context: tuple[str, ...] = (),
    face: tuple[Path, ...] = (),
    face_is_crop: Flag = False,
    clip: Path | None = None,
    subtitles: Path | None = None,
    table: Path | None = None,
    out: Path | None = None,
    abstain_below: float = 0.0,
    export: Path | None = None,
    server: str = "",
    model: str = "",
    timeout: float = 10.0,
    faces: CropConfig = CROPS,
    processes: int = 0,
) -> None:
    """Predict the emotion of one utterance, of each row of a table, or of each subtitle of a film.

    Args:
        run: a folder in saved_models/, of a run or an ensemble; with --server, that of the model that is served, or
            an export of it.
        text: the utterance; "Speaker: utterance" for runs with --text.speaker.
        context: what was said before it, oldest first, each as "Speaker: utterance"; for runs with --text.context.
        face: photo of the face, or several of the same face; the largest face in it is found and aligned.
        face_is_crop: the photos are aligned face crops already.
        clip: video of the utterance, in place of --face; or the film that --subtitles belong to.
        subtitles: SRT, WebVTT or ASS file: predict the film utterance by utterance; needs --out.
        table: CSV with columns utterance and faces (aligned crops; either may be missing), in place of all these; with
            dialogue_id and speaker, earlier rows of a dialogue are the context of later ones.
        out: where the table with the predictions goes; with --subtitles, a timeline (PNG) lies beside it.
        abstain_below: say "abstained" where no class has at least this probability; a run's report has thresholds.
        export: in place of RUN, an export of it, RUN/serving/<version>, whose files are checked first.
        server: ask TensorFlow Serving there: HOST:PORT for gRPC, http://HOST:PORT for REST.
        model: what the server calls the model; by default as its run.
        timeout: seconds that the server has for an answer.
        faces: how faces are found; by default as in the run's data set.
        processes: subtitles at once; 0: one a processor.
    """
    from emotion_tf.serving import tables

    modes = [bool(table), bool(subtitles), bool(text or face or (clip and not subtitles))]
    if sum(modes) != 1 or (clip and face) or (subtitles and not clip) or bool(out) != (modes[0] or modes[1]):
        raise UserError(
            "Nothing to predict, or too much. Expected one of: --text and/or --face or --clip; --clip with --subtitles "
            "and --out; --table with --out."
        )
    if face_is_crop and not face:
        raise UserError("--face-is-crop goes with --face: it says that the picture is an aligned face crop already.")
    if not 0 <= abstain_below <= 1:
        raise UserError(f"Invalid `--abstain-below`. Expected a probability, from 0 to 1. Received: {abstain_below}.")
    if context and not modes[2]:
        raise UserError("--context goes with --text, --face or --clip; a table and a film have their own.")
    if subtitles and out and out.suffix.lower() == ".png":
        raise UserError(f"Invalid `--out`. Expected a table: a name that does not end in .png. Received: {out}.")
    processes = count_processes(processes)
    predictor = _asked(run, export, server, model, timeout)
    if table is not None and out is not None:
        count, blank = tables.write_table(out, tables.read_table(table), predictor, abstain_below)
        print(f"{count} predictions: {out}")
        if blank:
            print(f"{blank} of them are of rows with nothing in them that {predictor.where} reads, and say nothing.")
    elif subtitles is not None and clip is not None and out is not None:
        _predict_film(predictor, clip, subtitles, out, faces, processes, abstain_below)
    else:
        crops: list[Any] = list(face) if face_is_crop else find_faces(predictor.about, face, clip, faces)
        if not text and not crops:
            raise UserError(f"No face found in {clip}, and no --text. Expected at least one of them.")
        prediction = predictor.predict([text], [crops or None], [context])
        _check_read(predictor.where, prediction, {"text": bool(text), "face": bool(crops)})
        if prediction.label_or_abstained(abstain_below) != prediction.label:
            print(f"abstained: no class has a probability of {abstain_below:g}")
        pairs = zip(prediction.labels, prediction.probabilities[0], strict=True)
        for name, p in sorted(pairs, key=lambda pair: -pair[1]):
            print(f"{name:<12} {p:.6f}  {'#' * round(40 * float(p))}")


def _check_read(where: str, prediction: Prediction, given: dict[str, bool]) -> None:
    """Says what of the given was not read. Raises UserError when nothing was: the answer would be about nothing."""
    read = {"text": prediction.text_present[0], "face": prediction.face_present[0]}
    unread = " and no ".join(name for name, there in given.items() if there and not read[name])
    if not any(read.values()):
        raise UserError(
            f"{where} reads no {unread}, and nothing else was given. Expected the other one, or another run."
        )
    if unread:
        print(f"not read: {where} reads no {unread}")


def _asked(run: Path | None, export: Path | None, server: str, model: str, timeout: float) -> Asked:
    """Who answers: a run, an export, or a server."""
    if export is not None and not (run or server or model):
        from emotion_tf.runs.export import Export
        from emotion_tf.serving.predict import ExportPredictor

        return ExportPredictor(Export.open(export))
    if run is None or export is not None or (model and not server):
        raise UserError(
            "Expected one of: RUN; --export RUN/serving/VERSION; RUN or an export with --server, and --model with it."
        )
    if server:
        from emotion_tf.runs.facts import read_facts
        from emotion_tf.serving.client import Client

        return Client(server, read_facts(run), model, timeout)
    from emotion_tf.runs.ensemble import open_run
    from emotion_tf.serving.predict import Predictor

    return Predictor(open_run(run))


def find_faces(
    spec: DataSpec | ModelFacts, photos: tuple[Path, ...], clip: Path | None, faces: CropConfig
) -> list[bytes]:
    """The aligned crops of photos or of a clip, found as in the run's data set."""
    if not photos and clip is None:
        return []
    from emotion_tf.faces.frames import Segment
    from emotion_tf.faces.pool import Clip
    from emotion_tf.serving import film

    config = film.as_prepared(faces, spec.crops, sys.argv)
    model = detector_model(config)
    if clip is None:
        return film.crop_photos(photos, config, model, spec.face_size)
    (found,) = film.crop_clips([Clip((Segment(clip),))], config, model, spec.face_size, 1)
    if found.problem in ("cannot be decoded", "time limit", "decoder crashed"):
        raise UserError(found.detail if found.problem == "cannot be decoded" else f"{clip}: {found.detail}.")
    times = ", ".join(f"{time:.2f}" for time in found.times)
    margin = f", margin {found.margin:.2f} to the next of {found.tracks}" if found.tracks > 1 else ""
    chosen = f"{found.policy}, score {found.score:.2f}{margin}; crops at {times} s"
    print(f"face: {chosen if found.jpegs else found.problem + ', the text alone'}")
    return list(found.jpegs)


def _predict_film(
    predictor: Asked,
    clip: Path,
    subtitles: Path,
    out: Path,
    faces: CropConfig,
    processes: int,
    abstain_below: float,
) -> None:
    from emotion_tf.progress import track
    from emotion_tf.serving import film

    lines = film.read_subtitles(subtitles)
    spec = predictor.about
    config = film.as_prepared(faces, spec.crops, sys.argv)
    crops = film.crop_clips(film.clips_of(clip, lines), config, detector_model(config), spec.face_size, processes)
    found = film.predict_film(predictor, lines, crops, lambda items, total: track(items, total, "faces", "utterances"))
    picture = found.write(out, clip.name, abstain_below)
    print(f"{len(lines)} utterances, {found.with_face} with a face: {out}")
    print(f"Timeline: {picture}")
