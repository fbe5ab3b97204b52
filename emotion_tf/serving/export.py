"""Exports a run as one SavedModel that takes raw strings and pictures, for TF Serving."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from emotion_tf import files, locks
from emotion_tf.data.images import MAX_PIXELS
from emotion_tf.data.tokenizer import write_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.evaluation import model_card
from emotion_tf.folders import check_no_link
from emotion_tf.kinds import Kind
from emotion_tf.progress import stage
from emotion_tf.runs import facts
from emotion_tf.runs.ensemble import Ensemble
from emotion_tf.runs.export import Export, is_version, unoptimized, versions
from emotion_tf.runs.export_files import write_checksums
from emotion_tf.runs.run import Run
from emotion_tf.serving import warmup
from emotion_tf.serving.graph import MAX_TEXT_BYTES
from emotion_tf.serving.predict import RunPredictor
from emotion_tf.serving.verify import verify

KIND = Kind("export", ("saved_model.pb",))


def export(run: Run | Ensemble, version: int | None = None, keep: int = 0) -> Path:
    """Writes `serving/<version>/` of a run, or of an ensemble with all its members, and returns its path.

    `verify` checks the contract of docs/serving.md before the folder gets its name.

    Args:
        run: the run or ensemble.
        version: version number. Default: the next free one.
        keep: number of versions to keep, this one and the newest others; 0: all.

    Raises:
        UserError: the run has no model; its folder `serving` is a link; a member of the ensemble is missing or has
            changed; the version exists; the disk is full; the export breaks the contract.
    """
    serving = run.path / "serving"
    if (version is not None and version < 1) or keep < 0:
        raise UserError(f"Expected `--version` of at least 1 and `--keep` of at least 0. Received: {version}, {keep}.")
    check_no_link(serving)
    with locks.writer(serving):
        _clear(serving)
        out = serving / str(max(versions(serving), default=0) + 1 if version is None else version)
        if not is_version(out.name):
            raise UserError(f"Invalid version. Expected a number of at most 18 digits. Received: {out.name}.")
        if out.exists():
            raise UserError(
                f"{out} exists. Expected a new version: a server may be reading this one. Leave --version out."
            )
        with stage(f"opening {run.path}"):
            predictor = RunPredictor(run)
        with files.new_folder(out, KIND, hint="leave --version out") as folder:
            with stage("writing the export"):
                _write(predictor, folder)
            with stage("verifying the export"):
                verify(folder)
        others = sorted(version for version in versions(serving) if str(version) != out.name)
        for old in others[: max(0, len(others) + 1 - keep)] if keep else ():
            files.delete(serving / str(old))
    return out


def _clear(serving: Path) -> None:
    """Removes what killed exports have left, of any version; the caller holds the lock of `serving`."""
    for suffix in ("lock", "unfinished", "deleted"):
        for leftover in serving.glob(f".*.{suffix}"):
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()


def _write(predictor: RunPredictor, folder: Path) -> None:
    graph, run = predictor.graph, predictor.run
    # TF Serving's C++ loader cannot run what tf.saved_model.save writes of a Keras 3 model; it can run an ExportArchive
    archive = keras.export.ExportArchive()
    # the endpoints bring the models' variables; tracking the models as well would store them twice
    for member in graph.members:
        archive.track(member.preprocess)
    signatures = graph.signatures
    for name, (serve, spec) in signatures.items():
        archive.add_endpoint(name, serve, spec)
    with _disk_errors(run):
        archive.write_out(str(folder), verbose=False)
    _write_assets(predictor, folder / "assets")
    extra = folder / "assets.extra"
    extra.mkdir()
    requests = []
    with unoptimized():
        for signature, inputs in warmup.example_requests(graph):
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            serve, _ = signatures[signature]  # not its endpoint, which is another function
            outputs = serve(tensors)
            requests.append((signature, inputs, {name: value.numpy() for name, value in outputs.items()}))
    with _disk_errors(run):
        warmup.write_requests(folder / warmup.FILE, predictor.facts.name, requests)
    facts.write_exported(
        folder,
        predictor.facts,
        most_text_bytes=MAX_TEXT_BYTES,
        most_pixels=MAX_PIXELS,
        weights_bytes=sum(weight.shape.num_elements() * weight.dtype.size for weight in _weights(predictor)),
        versions={"tensorflow": tf.__version__, "keras": keras.__version__},
    )
    cards = [run.path, *(member.path for member in run.members)] if isinstance(run, Ensemble) else [run.path]
    (extra / model_card.NAME).write_text("\n".join(map(model_card.text, cards)), encoding="utf-8")
    write_checksums(folder)
    Export(folder, facts.read_exported(folder)).remember()


@contextlib.contextmanager
def _disk_errors(run: Run | Ensemble) -> Iterator[None]:
    """Turns TensorFlow's errors of a full or read-only disk, which are of several kinds, into a UserError."""
    try:
        yield
    except tf.errors.OpError as error:
        raise files.WriteError(
            f"Cannot write into {run.path / 'serving'}: {_reason(error)}. Nothing was left "
            "behind; make room or choose another folder."
        ) from None


def _reason(error: tf.errors.OpError) -> str:
    """Returns TensorFlow's message in one line, without the name of the function, which means nothing to a user."""
    return re.sub(r"\{\{.*?\}\}", "", " ".join(str(error.message).split())).strip(" .")[:200]


def _weights(predictor: RunPredictor) -> list[tf.Variable]:
    return [weight.value for member in predictor.graph.members for weight in member.model.weights]


def _write_assets(predictor: RunPredictor, assets: Path) -> None:
    """Writes labels and vocabularies, one per line, for clients that prepare the inputs of `serve_tensors`."""
    assets.mkdir(exist_ok=True)
    write_vocabulary(assets / "labels.txt", predictor.labels)
    for member in predictor.graph.members:
        folder = assets / member.name if len(predictor.graph.members) > 1 else assets
        folder.mkdir(exist_ok=True)
        pieces, words = member.preprocess.pieces, member.preprocess.words
        if member.preprocess.reads_tokens and pieces is not None:
            write_vocabulary(folder / "vocab.txt", pieces.vocabulary)
        if member.preprocess.reads_words and words is not None:
            write_vocabulary(folder / "words.txt", words.words)
