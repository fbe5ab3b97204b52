"""The command line: `python main.py VERB`. Wiring only; TensorFlow is imported when a verb needs it."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from emotion_tf import cli
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.quiet import needs_tensorflow, start_tensorflow

if TYPE_CHECKING:
    from emotion_tf.data.films import Films
    from emotion_tf.data.manifest import Row
    from emotion_tf.data.records import PrepareOptions
    from emotion_tf.serving.predict import Predictor

DEMO = Path("tfrecords/demo")
CROPS = CropConfig()


@needs_tensorflow
def prepare_table(
    manifest: Positional[Path],
    out: Path,
    labels: tuple[str, ...] = ("meld",),
    face_size: int = 112,
    context: int = 8,
    tokenizer: str = "minilm",
    overwrite: bool = False,
) -> None:
    """Write the data set of a manifest: a CSV table with one row an utterance.

    Args:
        manifest: CSV with columns split, dialogue_id, utterance_id, speaker, utterance, emotion, faces (picture paths
            joined by ;), and weight if wanted.
        out: folder of the data set, such as tfrecords/NAME.
        labels: meld, emorynlp, sentiment, or the labels themselves in order.
        face_size: side of the kept face crops in pixels.
        context: past utterances kept with each utterance.
        tokenizer: word pieces of a text encoder (a name of `weights list`, a TF-Hub handle, a SavedModel, a vocab.txt),
            or learned (from the training split).
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.manifest import read_manifest
    from emotion_tf.labels import label_set

    options = _options(out, label_set(labels), face_size, context, tokenizer, overwrite)
    _write(read_manifest(manifest, options.labels), out, options, overwrite)


@needs_tensorflow
def prepare_clips(
    table: Positional[Path],
    out: Path,
    faces: CropConfig = CROPS,
    labels: tuple[str, ...] = ("meld",),
    face_size: int = 112,
    context: int = 8,
    tokenizer: str = "minilm",
    processes: int = 0,
    overwrite: bool = False,
) -> None:
    """Write the data set of a table of clips: faces are found, the one that speaks is chosen, aligned and kept.

    Args:
        table: CSV with columns split, dialogue_id, utterance_id, speaker, utterance, emotion, clip (a video relative to
            the table; empty: not filmed), and start, end, weight if wanted.
        out: folder of the data set.
        faces: how faces are found.
        labels: as for `prepare table`.
        face_size: side of the kept face crops in pixels.
        context: past utterances kept with each utterance.
        tokenizer: as for `prepare table`.
        processes: clips at once; 0: one a processor.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.clips import read_clips
    from emotion_tf.labels import label_set

    options = _options(out, label_set(labels), face_size, context, tokenizer, overwrite)
    rows, clips = read_clips(table, options.labels)
    _write(rows, out, options, overwrite, films=_films(table.parent, clips, faces, processes))


@needs_tensorflow
def prepare_meld(
    root: Path,
    out: Path,
    faces: CropConfig = CROPS,
    target: str = "emotion",
    text_only: bool = False,
    fair_times: Path | None = None,
    fair_boxes: Path | None = None,
    face_size: int = 112,
    context: int = 8,
    tokenizer: str = "minilm",
    processes: int = 0,
    overwrite: bool = False,
) -> None:
    """Write the data set of MELD, wherever and however it was unpacked, with an account of every row and clip.

    Args:
        root: folder with MELD's tables and clips, at any depth.
        out: folder of the data set.
        faces: how faces are found.
        target: emotion (seven classes) or sentiment (three).
        text_only: the texts alone; needs no clips.
        fair_times: MELD-FAIR's folder `csvs`: take its realigned times.
        fair_boxes: MELD-FAIR's MELD_active_speaker_face_bboxes.csv: take the face that it says speaks (with
            --fair-times).
        face_size: side of the kept face crops in pixels.
        context: past utterances kept with each utterance.
        tokenizer: as for `prepare table`.
        processes: clips at once; 0: one a processor.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.meld import TARGETS, read_meld
    from emotion_tf.data.meld_fair import read_fair

    if target not in TARGETS:
        raise UserError(f"Invalid `--target`. Expected one of: {', '.join(TARGETS)}. Received: {target!r}.")
    options = _options(out, TARGETS[target][1], face_size, context, tokenizer, overwrite)
    if fair_boxes and not fair_times:
        raise UserError("--fair-boxes counts the frames of realigned clips. Expected --fair-times with it.")
    if text_only and fair_times:
        raise UserError("--text-only takes no clips. Expected neither --fair-times nor --fair-boxes with it.")
    fair = read_fair(fair_times, fair_boxes) if fair_times else None
    meld = read_meld(root, target, text_only, fair)
    if text_only:
        _write(meld.rows, out, options, overwrite, {"notes": meld.account["notes"]})
        return
    faces = dataclasses.replace(faces, policy="boxes") if fair_boxes else faces
    _write(meld.rows, out, options, overwrite, films=_films(root, meld.clips, faces, processes, meld.account))


@needs_tensorflow
def prepare_demo(
    out: Path = DEMO,
    utterances: int = 4000,
    seed: int = 0,
    face_size: int = 48,
    context: int = 8,
    tokenizer: str = "learned",
    overwrite: bool = False,
) -> None:
    """Draw and write the built-in demo data set: parametric faces and utterances from a small grammar.

    Args:
        out: folder of the data set.
        utterances: how many, in all splits together.
        seed: another seed gives another data set.
        face_size: side of the face crops in pixels.
        context: past utterances kept with each utterance.
        tokenizer: as for `prepare table`.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.demo import write_demo
    from emotion_tf.data.manifest import read_manifest
    from emotion_tf.labels import MELD_EMOTIONS

    options = _options(out, MELD_EMOTIONS, face_size, context, tokenizer, overwrite)
    with tempfile.TemporaryDirectory() as folder:
        extra = {"demo": write_demo(Path(folder), utterances, seed, face_size)}
        _write(read_manifest(Path(folder) / "manifest.csv", MELD_EMOTIONS), out, options, overwrite, extra)


def _options(
    out: Path, labels: tuple[str, ...], face_size: int, context: int, tokenizer: str, overwrite: bool
) -> PrepareOptions:
    """Checks what all `prepare` verbs share, before anything is read."""
    from emotion_tf.data.records import PrepareOptions

    for name, value, least, most in (("--face-size", face_size, 8, 1024), ("--context", context, 0, 1000)):
        if not least <= value <= most:
            raise UserError(f"Invalid `{name}`. Expected a number from {least} to {most}. Received: {value}.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new name; --overwrite replaces it.")
    return PrepareOptions(labels, face_size, context, tokenizer)


def _films(root: Path, clips: Any, faces: CropConfig, processes: int, account: dict[str, Any] | None = None) -> Films:
    from emotion_tf.data.films import Films

    if not 0 <= processes <= 256:
        raise UserError(f"Invalid `--processes`. Expected a number from 0 to 256. Received: {processes}.")
    if faces.policy == "boxes" and not any(getattr(clip, "boxes", None) for clip in clips.values()):
        raise UserError(
            "--faces.policy boxes needs boxes of the face that speaks. Expected --fair-boxes of `prepare meld`, or "
            "another policy."
        )
    return Films(root, clips, faces, _detector_model(faces), processes or os.cpu_count() or 1, account or {})


def _detector_model(faces: CropConfig) -> Path | None:
    """YuNet's model file, fetched when it is not there yet; None for a detector that has its weights with it."""
    from emotion_tf import weights
    from emotion_tf.faces.detect import load_detector

    if faces.detector != "yunet":
        return None
    if not faces.detector_model and weights.find("yunet") is None:
        fetch("yunet")
    model = Path(faces.detector_model) if faces.detector_model else weights.find("yunet")
    load_detector("yunet", model)  # whatever is wrong with it is told before anything is read
    return model


def _write(
    rows: list[Row],
    out: Path,
    options: PrepareOptions,
    overwrite: bool,
    extra: dict[str, Any] | None = None,
    films: Films | None = None,
) -> None:
    from emotion_tf.data import account, records
    from emotion_tf.data.tokenizer import WordPieceTokenizer
    from emotion_tf.progress import track

    texts = [row.utterance for row in rows if row.split == "train"]
    pieces = WordPieceTokenizer(*_vocabulary(options.tokenizer, texts))
    unit = "clips" if films else "utterances"

    def progress(items: Any, total: int, done: int) -> Any:
        if done:
            print(f"Going on after {done} of {total} {unit}", flush=True)
        return track(items, total, "faces" if films else "writing", unit, done)

    info = records.write_dataset(rows, out, options, pieces, overwrite, extra, films, progress)
    for split, counts in info["splits"].items():
        classes = ", ".join(f"{name} {n}" for name, n in counts["per_class"].items())
        print(
            f"{split}: {counts['records']} utterances in {counts['dialogues']} dialogues, "
            f"{counts['with_face']} with a face ({classes})"
        )
    for line in account.lines(info["account"]) if films else (extra or {}).get("notes", ()):
        print(line)
    print(f"Data set: {out}")


def _vocabulary(tokenizer: str, utterances: list[str]) -> tuple[list[str], bool]:
    from emotion_tf.data.tokenizer import learn_vocabulary, read_vocabulary

    if tokenizer == "learned":
        if not utterances:
            raise UserError(
                "--tokenizer learned needs a train split to learn from. Received: none. Name an encoder or a vocab.txt."
            )
        return learn_vocabulary(utterances), True
    if tokenizer.endswith(".txt"):
        vocabulary = read_vocabulary(Path(tokenizer))
        return vocabulary, not any(token != token.lower() for token in vocabulary if not token.startswith("["))
    from emotion_tf.models.hub_encoder import load_vocabulary

    return load_vocabulary(_encoder(tokenizer))


def _encoder(handle: str) -> str:
    """Local path of a text encoder; a name of `weights list` is fetched when it is not there yet."""
    from emotion_tf import weights
    from emotion_tf.models.hub_encoder import resolve_encoder

    if weights.is_name(handle) and weights.find(handle) is None:
        fetch(handle)
    return resolve_encoder(handle)


def weights_list() -> None:
    """List the pretrained weights that are known by name."""
    from rich.console import Console
    from rich.table import Table

    from emotion_tf import weights

    rows = weights.describe()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def fetch(name: Positional[str]) -> None:
    """Download pretrained weights, check them, and keep them in the cache.

    Args:
        name: as in `weights list`.
    """
    from emotion_tf import weights

    if weights.find(name) is None:
        print(f"Fetching {name} ...", flush=True)
    if name == "minilm":
        start_tensorflow()
        from emotion_tf.models.bert_module import convert_minilm

        print(f"{name}: {weights.fetch(name, convert_minilm)}")
    else:
        print(f"{name}: {weights.fetch(name)}")


@needs_tensorflow
def train(arguments: cli.TrainArguments, command: str) -> None:
    """Train a run; with nothing prepared, on the demo data set, which is made first."""
    config = arguments.config
    if not Path(config.data).exists() and Path(config.data) == DEMO:
        print(f"No data at {DEMO}: drawing the demo data set", flush=True)
        prepare_demo()
    from emotion_tf.data import records, verify
    from emotion_tf.training.run_folder import RunFolder
    from emotion_tf.training.train import Trainer

    run = RunFolder(cli.RUNS / (arguments.name or cli.free_name(config)))
    info = records.read_info(Path(config.data))
    verify.verify_shards(Path(config.data), info)
    if arguments.resume and run.model_path.exists():
        raise UserError(
            f"{run.path} is finished: nothing to resume. Evaluate it with: python main.py evaluate {run.path}"
        )
    if run.path.exists() and not (arguments.resume or arguments.overwrite):
        raise UserError(f"{run.path} exists. --resume continues it, --overwrite replaces it, --name gives another.")
    trainer = Trainer(
        config,
        run,
        info,
        _encoder(config.text.encoder) if config.uses_bert else None,
        lambda line: print(line, flush=True),
    )
    print(f"Run: {run.path}", flush=True)
    trainer.resume() if arguments.resume else trainer.start(command, arguments.overwrite)
    trainer.fit()
    for split in ("dev", "test"):
        if split in info["splits"]:
            _evaluate(RunFolder(run.path), Path(config.data), split, command)
    print(f"Run: {run.path}")


@needs_tensorflow
def evaluate(run: Positional[Path], data: Path | None = None, split: str = "test") -> None:
    """Accuracy, F1, confusion matrix and predictions of a run, beside the majority floor.

    Args:
        run: a folder in saved_models/.
        data: another data set than the run's.
        split: train, dev or test.
    """
    from emotion_tf.training.run_folder import RunFolder

    folder = RunFolder(run)
    _evaluate(folder, data or Path(folder.config.data), split, shlex.join(["main.py", *sys.argv[1:]]))


def _evaluate(run: Any, data: Path, split: str, command: str) -> None:
    from emotion_tf.data import records, verify
    from emotion_tf.evaluation import report
    from emotion_tf.training.train import evaluate as evaluate_run

    info = records.read_info(data)
    verify.verify_shards(data, info)
    probabilities, rows, numbers = evaluate_run(run, data, info, split)
    context = {"command": command, "data": str(data), "seed": run.config.train.seed}
    report.write_metrics(run.path / "metrics.json", split, {**numbers, **context})
    report.write_predictions(run.path / f"predictions_{split}.csv", rows, run.labels, probabilities)
    title = f"{run.path.name}: {split}, weighted F1 {numbers['weighted_f1']:.3f}"
    report.plot_confusion(run.path / f"confusion_{split}.png", numbers["confusion"], run.labels, title)
    report.print_table(
        f"{run.path} on {split} of {data} (seed {context['seed']})",
        numbers,
        info.get("demo", {}).get("best_accuracy", {}).get(split),
    )


@needs_tensorflow
def predict(
    run: Positional[Path],
    text: str = "",
    face: tuple[Path, ...] = (),
    face_is_crop: bool = False,
    clip: Path | None = None,
    subtitles: Path | None = None,
    table: Path | None = None,
    out: Path | None = None,
    faces: CropConfig = CROPS,
    processes: int = 0,
) -> None:
    """Predict the emotion of one utterance, of each row of a table, or of each subtitle of a film.

    Args:
        run: a folder in saved_models/.
        text: the utterance.
        face: photo of the face, or several of the same face; the largest face in it is found and aligned.
        face_is_crop: the photos are aligned face crops already.
        clip: video of the utterance, in place of --face; or the film that --subtitles belong to.
        subtitles: SRT, WebVTT or ASS file: predict the film utterance by utterance; needs --out.
        table: CSV with columns utterance and faces (aligned crops; either may be missing), in place of all these.
        out: where the table with the predictions goes; with --subtitles, a timeline (PNG) lies beside it.
        faces: how faces are found; by default as in the run's data set.
        processes: subtitles at once; 0: one a processor.
    """
    import emotion_tf
    from emotion_tf.serving import tables

    modes = [bool(table), bool(subtitles), bool(text or face or (clip and not subtitles))]
    if sum(modes) != 1 or (clip and face) or (subtitles and not clip) or bool(out) != (modes[0] or modes[1]):
        raise UserError(
            "Nothing to predict, or too much. Expected one of: --text and/or --face or --clip; --clip with --subtitles "
            "and --out; --table with --out."
        )
    predictor = emotion_tf.load(str(run))
    if table is not None and out is not None:
        print(f"{tables.write_table(out, tables.read_table(table), predictor)} predictions: {out}")
    elif subtitles is not None and clip is not None and out is not None:
        _predict_film(predictor, clip, subtitles, out, faces, processes)
    else:
        crops: list[Any] = list(face) if face_is_crop else _find_faces(predictor, face, clip, faces)
        if not text and not crops:
            raise UserError(f"No face found in {clip}, and no --text. Expected at least one of them.")
        prediction = predictor.predict([text], [crops or None])
        pairs = zip(prediction.labels, prediction.probabilities[0], strict=True)
        for name, p in sorted(pairs, key=lambda pair: -pair[1]):
            print(f"{name:<12} {p:.6f}  {'#' * round(40 * float(p))}")


def _find_faces(predictor: Predictor, photos: tuple[Path, ...], clip: Path | None, faces: CropConfig) -> list[bytes]:
    """The aligned crops of photos or of a clip, found as in the run's data set."""
    if not photos and clip is None:
        return []
    from emotion_tf.faces.frames import Piece
    from emotion_tf.faces.pool import Clip
    from emotion_tf.serving import film

    spec = predictor.run.spec
    config = film.as_prepared(faces, spec.crops)
    model = _detector_model(config)
    if clip is None:
        return film.crop_photos(photos, config, model, spec.face_size)
    (found,) = film.crop_clips([Clip((Piece(clip),))], config, model, spec.face_size, 1)
    if found.problem in ("cannot be decoded", "time limit", "decoder crashed"):
        raise UserError(found.detail if found.problem == "cannot be decoded" else f"{clip}: {found.detail}.")
    times = ", ".join(f"{time:.2f}" for time in found.times)
    margin = f", margin {found.margin:.2f} to the next of {found.tracks}" if found.tracks > 1 else ""
    chosen = f"{found.policy}, score {found.score:.2f}{margin}; crops at {times} s"
    print(f"face: {chosen if found.jpegs else found.problem + ', the text alone'}")
    return list(found.jpegs)


def _predict_film(
    predictor: Predictor, clip: Path, subtitles: Path, out: Path, faces: CropConfig, processes: int
) -> None:
    from emotion_tf.progress import track
    from emotion_tf.serving import film

    lines = film.read_subtitles(subtitles)
    spec = predictor.run.spec
    config = film.as_prepared(faces, spec.crops)
    processes = processes or os.cpu_count() or 1
    crops = film.crop_clips(film.clips_of(clip, lines), config, _detector_model(config), spec.face_size, processes)
    with_face, picture = film.predict_film(
        predictor, clip, lines, crops, out, lambda items, total: track(items, total, "faces", "utterances")
    )
    print(f"{len(lines)} utterances, {with_face} with a face: {out}")
    print(f"Timeline: {picture}")


@needs_tensorflow
def audit(data: Positional[Path], root: Path | None = None) -> None:
    """Look at a data set: a page (audit.html) and a contact sheet (audit.png) in its folder.

    Args:
        data: a folder in tfrecords/.
        root: folder of the clips, when they are no longer where the data set was prepared from.
    """
    from emotion_tf.data import records, verify
    from emotion_tf.data.audit import gather
    from emotion_tf.evaluation import audit_page

    info = records.read_info(data)
    verify.verify_shards(data, info)
    facts = gather(data, info, root)
    audit_page.write_sheet(data / "audit.png", facts)
    audit_page.write_page(data / "audit.html", facts)
    print(f"Page: {data / 'audit.html'}")
    print(f"Contact sheet: {data / 'audit.png'}")


@needs_tensorflow
def export(run: Positional[Path]) -> None:
    """Export a run as a SavedModel for TF Serving: serving/<next version>/ in the run's folder.

    Args:
        run: a folder in saved_models/.
    """
    from emotion_tf.serving.export import export as export_run
    from emotion_tf.training.run_folder import RunFolder

    print(f"Exported: {export_run(RunFolder(run))}")


def runs() -> None:
    """List the runs in saved_models/ with their scores."""
    from emotion_tf.run_list import print_runs

    print_runs(cli.RUNS)


VERBS: dict[str, dict[str, Callable[..., None]] | Callable[..., None]] = {
    "prepare": {"table": prepare_table, "clips": prepare_clips, "meld": prepare_meld, "demo": prepare_demo},
    "audit": audit,
    "weights": {"list": weights_list, "fetch": fetch},
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "runs": runs,
}
HELP = """usage: python main.py VERB [options]      (VERB --help tells more)

  prepare table MANIFEST --out DIR   a CSV of utterances and face pictures -> aligned TFRecords
  prepare clips TABLE --out DIR      a CSV of utterances and video clips -> the same
  prepare meld --root DIR --out DIR  MELD as it was unpacked -> the same, with an account of rows and clips
  prepare demo                       the built-in demo data set
  audit DATASET                      a page and a contact sheet: faces, choices, what is missing
  weights list | fetch NAME          pretrained weights by name
  train                              train a run (nothing prepared: on the demo data set)
  evaluate RUN                       accuracy, F1, confusion matrix, predictions
  predict RUN --text T --face F      emotion of one utterance (or --clip), of a --table, of a film with --subtitles
  export RUN                         one SavedModel for TF Serving
  runs                               the runs in saved_models/
"""


def dispatch(args: list[str]) -> None:
    """Runs the verb that the arguments name."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    cli.check_verb(args[0], list(VERBS))
    verb, rest, prog = VERBS[args[0]], args[1:], f"main.py {args[0]}"
    if isinstance(verb, dict):
        if not rest or rest[0] in ("-h", "--help"):
            print(
                "\n".join(
                    [
                        f"usage: python {prog} {{{','.join(verb)}}}",
                        *(f"  {n:<8} {(f.__doc__ or '').splitlines()[0]}" for n, f in verb.items()),
                    ]
                )
            )
            return
        cli.check_verb(rest[0], list(verb))
        verb, rest, prog = verb[rest[0]], rest[1:], f"{prog} {rest[0]}"
    if verb is train:
        train(cli.train_arguments(rest), shlex.join(["main.py", *args]))
    else:
        cli.parse(verb, rest, prog)


def main() -> int:
    """Exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    try:
        dispatch(sys.argv[1:])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "Interrupted. `train --resume` goes on with a training; a `prepare` goes on when run again.",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
