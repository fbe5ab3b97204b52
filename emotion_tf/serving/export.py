"""One SavedModel that takes raw strings and pictures, for TF Serving."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from emotion_tf import files
from emotion_tf.data.images import MAX_PIXELS
from emotion_tf.data.tokenizer import write_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.evaluation import model_card
from emotion_tf.runs import facts
from emotion_tf.runs.ensemble import Ensemble
from emotion_tf.runs.export import versions, write_checksums
from emotion_tf.runs.run import Run
from emotion_tf.serving import warmup
from emotion_tf.serving.graph import MOST_BYTES
from emotion_tf.serving.predict import Predictor
from emotion_tf.serving.verify import verify


def export(run: Run | Ensemble, version: int | None = None, keep: int = 0) -> Path:
    """Writes `serving/<version>/` of a run, or of an ensemble with all its members, and returns its path.

    What it holds, and that it does, is the contract of docs/serving.md, which `verify` checks before the folder gets
    its name.

    Args:
        run: the run.
        version: its number; None: the next free one.
        keep: how many versions stay, the newest and this one; 0: all.

    Raises:
        UserError: the run has no model, a member of the ensemble is gone or has changed, the version exists, there is
            no room, or the contract is broken.
    """
    serving = run.path / "serving"
    if (version is not None and version < 1) or keep < 0:
        raise UserError(f"Expected `--version` of at least 1 and `--keep` of at least 0. Received: {version}, {keep}.")
    out = serving / str(max(versions(serving), default=0) + 1 if version is None else version)
    if out.exists():
        raise UserError(
            f"{out} exists. Expected a new version: a server may be reading this one. Leave --version away."
        )
    predictor = Predictor(run)
    with files.new_folder(out, hint="leave --version away") as folder:
        _write(predictor, folder)
        verify(folder)
    others = sorted(version for version in versions(serving) if str(version) != out.name)
    for old in others[: max(0, len(others) + 1 - keep)] if keep else ():
        shutil.rmtree(serving / str(old))
    return out


def _write(predictor: Predictor, folder: Path) -> None:
    graph, run = predictor.graph, predictor.run
    # ExportArchive and not tf.saved_model.save: only the former can be run by TF Serving's C++ loader.
    archive = keras.export.ExportArchive()
    # the models' variables come in with the endpoints; tracked too, they would be stored twice
    for part in graph.parts:
        archive.track(part.preprocess)
    served = {name: archive.add_endpoint(name, serve, given) for name, (serve, given) in graph.signatures.items()}
    with _on_disk(run):
        archive.write_out(str(folder), verbose=False)
    _write_assets(predictor, folder / "assets")
    extra = folder / "assets.extra"
    extra.mkdir()
    found = []
    for signature, inputs in warmup.requests(graph):
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        outputs = served[signature](tensors) if signature == "serve_tensors" else served[signature](**tensors)
        found.append((signature, inputs, {name: value.numpy() for name, value in outputs.items()}))
    with _on_disk(run):
        warmup.write(folder / warmup.FILE, predictor.about.name, found)
    facts.write_exported(
        folder,
        predictor.about,
        most_text_bytes=MOST_BYTES,
        most_pixels=MAX_PIXELS,
        weights_bytes=sum(weight.shape.num_elements() * weight.dtype.size for weight in _weights(predictor)),
        versions={"tensorflow": tf.__version__, "keras": keras.__version__},
    )
    cards = [run.path, *(one.path for one in run.members)] if isinstance(run, Ensemble) else [run.path]
    (extra / model_card.NAME).write_text("\n".join(map(model_card.text, cards)), encoding="utf-8")
    write_checksums(folder)


@contextlib.contextmanager
def _on_disk(run: Run | Ensemble) -> Iterator[None]:
    """What TensorFlow says of a disk that is full or not writable, as one line: it has several kinds of error."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(
            f"Cannot write into {run.path / 'serving'}: {' '.join(str(error.message).split())[:200]}. Nothing was left "
            "behind; make room or choose another folder."
        ) from None


def _weights(predictor: Predictor) -> list[tf.Variable]:
    return [weight.value for part in predictor.graph.parts for weight in part.model.weights]


def _write_assets(predictor: Predictor, assets: Path) -> None:
    """Labels and vocabularies, one a line, for those who prepare what `serve_tensors` takes."""
    assets.mkdir(exist_ok=True)
    write_vocabulary(assets / "labels.txt", predictor.labels)
    for part in predictor.graph.parts:
        folder = assets / part.name if len(predictor.graph.parts) > 1 else assets
        folder.mkdir(exist_ok=True)
        pieces, words = part.preprocess.pieces, part.preprocess.words
        if part.preprocess.reads_tokens and pieces is not None:
            write_vocabulary(folder / "vocab.txt", pieces.vocabulary)
        if part.preprocess.reads_words and words is not None:
            write_vocabulary(folder / "words.txt", words.words)
