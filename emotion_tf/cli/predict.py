"""`predict`, `predict-table` and `predict-film`: the emotion of one utterance, of table rows, of subtitles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from emotion_tf import files, streams
from emotion_tf.cli.inputs import CropOptions, ServerOptions, UtteranceOptions, open_predictor
from emotion_tf.cli.prepare import count_processes
from emotion_tf.cluster import check_scheduler
from emotion_tf.command_line import NO_PREFIX, Flag, RunPath, SchedulerAddress, opens_models
from emotion_tf.config import rules
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.modalities import FACE, TEXT
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say
from emotion_tf.wording import plural

if TYPE_CHECKING:
    from emotion_tf.serving.predictor import Prediction


@opens_models
@needs_tensorflow
def predict(
    run: RunPath,
    utterance: Annotated[UtteranceOptions, NO_PREFIX],
    serving: Annotated[ServerOptions, NO_PREFIX],
    abstain_below: Annotated[float, rules.SHARE] = 0.0,
) -> None:
    """Predict the emotion of one utterance from its text, its face, or both.

    Args:
        run: Run or ensemble: its name in saved_models/, or its folder; or an export, RUN/serving/VERSION.
        abstain_below: Least probability of a prediction; below it prints "abstained". The report of a run
            lists thresholds that promise a precision with 90 % confidence, and what cannot be promised.
    """
    from emotion_tf.evaluation.reliability import rank

    if utterance.is_empty:
        raise UserError("Give at least one of: --text, --face, --clip.")
    predictor = open_predictor(run, serving)
    crops = utterance.find_crops(predictor.facts)
    if not utterance.text and not crops:
        raise UserError(f"No face found in {utterance.clip}, and no --text. Expected at least one of them.")
    prediction = predictor.predict([utterance.text], [crops or None], [utterance.context])
    _check_read(predictor.source, prediction, {TEXT: bool(utterance.text), FACE: bool(crops)})
    if prediction.label_or_abstained(abstain_below) != prediction.label:
        say(f"abstained: the prediction has a probability below {abstain_below:g}")
    for name, p in rank(prediction.labels, prediction.probabilities[0], prediction.label[0]):
        say(f"{name:<12} {p:.6f}  {'#' * round(40 * p)}")


@opens_models
@needs_tensorflow
def predict_table(
    run: RunPath,
    table: Annotated[Positional[Path], tyro.conf.arg(metavar="TABLE")],
    out: Annotated[Path, rules.Output.FILE, rules.value("CSV")],
    serving: Annotated[ServerOptions, NO_PREFIX],
    abstain_below: Annotated[float, rules.SHARE] = 0.0,
    scheduler: SchedulerAddress = "",
) -> None:
    """Predict the emotion of each row of a table.

    Args:
        run: Run, ensemble or export, as for `predict`.
        table: CSV with a column utterance, faces (aligned crops; paths joined by ;), or both. With dialogue_id and
            speaker, earlier rows of a dialogue are the context of later ones.
        out: CSV to write: the table with the predictions; - is standard output. Rerun to continue after an
            interruption.
        abstain_below: As for `predict`; the prediction of such a row is "abstained".
        scheduler: Address of Dask's scheduler, tcp://HOST:PORT, whose workers predict the rows. Empty: this
            machine does.
    """
    from emotion_tf.serving import tables

    if scheduler:
        check_scheduler(scheduler)
        if serving.server:
            raise UserError("Received --server and --scheduler. Expected one: the workers open the model themselves.")
    with streams.reserve_stdout(out):
        total = tables.count_rows(table)  # a table that cannot be read is refused before the model is opened
        predictor = open_predictor(run, serving)
        count, unread = tables.write_table(out, table, predictor, total, abstain_below, scheduler)
        say(f"{plural(count, 'prediction')}: {out}")
        if unread:
            say(f"Rows with nothing that {predictor.source} reads: {unread}. Their predictions are meaningless.")


@opens_models
@needs_tensorflow
def predict_film(
    run: RunPath,
    clip: Annotated[Positional[Path], tyro.conf.arg(metavar="CLIP")],
    subtitles: Annotated[Positional[Path], tyro.conf.arg(metavar="SUBTITLES")],
    out: Annotated[Path, rules.Output.FOLDER, rules.value("DIR")],
    serving: Annotated[ServerOptions, NO_PREFIX],
    faces: CropOptions,
    abstain_below: Annotated[float, rules.SHARE] = 0.0,
    processes: Annotated[int, rules.PROCESSES] = 0,
    overwrite: Flag = False,
) -> None:
    """Predict the emotion of each subtitle of a film, from its text and the face that speaks.

    Args:
        run: Run, ensemble or export, as for `predict`.
        clip: Video of the film.
        subtitles: SRT, WebVTT or ASS file. Earlier subtitles are the context of later ones.
        out: Folder to write: predictions.csv and timeline.png.
        faces: How faces are found.
        abstain_below: As for `predict`; the prediction of such a subtitle is "abstained".
        processes: Number of subtitles processed at once; 0: one per processor.
        overwrite: Replace the folder.
    """
    from emotion_tf.progress import stage, track
    from emotion_tf.serving import film

    processes = count_processes(processes)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new name; --overwrite replaces it.")
    files.check_replaceable(out, film.KIND)
    rows = film.read_subtitles(subtitles)
    predictor = open_predictor(run, serving)
    spec = predictor.facts
    config = film.crop_config(spec.crops, faces)
    crops = film.crop_clips(
        film.clips_of_subtitles(clip, rows), config, detector_model(config), spec.face_size, processes
    )
    prediction = film.predict_film(
        predictor, rows, crops, lambda items, total: track(items, total, "faces", "utterances")
    )
    with files.new_folder(out, film.KIND, overwrite) as folder, stage("drawing the timeline"):
        prediction.write(folder, clip.name, abstain_below)
    say(f"{plural(len(rows), 'utterance')}, {prediction.with_face} with a face: {out / film.TABLE}")
    if outside := prediction.outside:
        say(f"Subtitles outside the film, predicted from their text alone: {len(outside)}. First: {outside[0].detail}")
    say(f"Timeline: {out / film.TIMELINE}")


def _check_read(where: str, prediction: Prediction, inputs: dict[str, bool]) -> None:
    """Prints which inputs the model does not read. Raises UserError if it reads none of them."""
    read = {name: mask[0] for name, mask in prediction.present.items()}
    unread = " and no ".join(name for name, is_present in inputs.items() if is_present and not read[name])
    if not any(read.values()):
        raise UserError(f"{where} reads no {unread}. Expected the other input as well, or another run.")
    if unread:
        say(f"not read: {where} reads no {unread}")
