"""What a run starts from: towers of other runs (a face tower trained alone, then the joint model), word embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from emotion_tf.config import Config
from emotion_tf.data import pipeline, records, splits, verify
from emotion_tf.data.embeddings import Embeddings
from emotion_tf.data.tokenizer import UNKNOWN_WORD_ID, WordVocabulary, read_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.schema import DataSpec
from emotion_tf.training.run_folder import RunFolder


def start_towers(
    model: keras.Model, config: Config, spec: DataSpec, words: WordVocabulary, say: Callable[[str], None]
) -> None:
    """Copies the towers that `--text.init` and `--face.init` name into a new model.

    Raises:
        UserError: no such run, a run without that tower, another tower, or another vocabulary.
    """
    for name, init, used in (
        ("text_tower", config.text.init, config.uses_text),
        ("face_tower", config.face.init, config.uses_face),
    ):
        if not (init and used):
            continue
        run = RunFolder(Path(init))
        if name == "text_tower":
            _check_vocabularies(run, config, spec, words)
        copied = _copy(run, name, model.get_layer(name), spec)
        say(f"{name} starts from {init}: {copied:,} weights")


def check_unseen(config: Config, data_sha256: str, say: Callable[[str], None] = print) -> None:
    """Refuses to hold utterances out of data on which a tower that is started from was trained: it has seen them.

    Runs that the tower was started from in its turn count, too, and the same utterances or pictures in another data
    set. What is no longer there to be looked at is said.

    Raises:
        UserError: `--text.init` or `--face.init` names a run that was trained on what a fold would hold out.
    """
    for name, used in (("text", config.uses_text), ("face", config.uses_face)):
        init, looked_at = getattr(config, name).init if used else "", set()
        while init and init not in looked_at:  # a run may have replaced the one that it started from
            looked_at.add(init)
            run = RunFolder(Path(init))
            shared = "all" if run.spec.data_sha256 == data_sha256 else _shared(run, name, Path(config.data), say)
            if shared:
                raise UserError(
                    f"Invalid `{name}.init`. {getattr(config, name).init} has seen what a fold holds out: {init} was "
                    f"trained on {shared} of the utterances of {config.data}. Expected a run on other data, or none."
                )
            init = getattr(run.config, name).init
            if init and not Path(init).is_dir():
                say(f"{run.path} started from {init}, which is gone: whether that had seen these data cannot be told.")
                init = ""


def _shared(run: RunFolder, name: str, data: Path, say: Callable[[str], None]) -> int:
    """How many utterances of a training split a run's tower has seen in its own: of a text tower the same text under
    the same ids, of a face tower a byte-identical picture."""
    home = Path(run.config.data)
    try:
        info = records.read_info(home)
        if records.data_spec(info).data_sha256 != run.spec.data_sha256:
            raise UserError(f"{home} has changed since.")
        verify.verify_shards(home, info)
    except UserError as error:
        say(f"Whether {run.path} had seen these data cannot be told: {error}")
        return 0
    theirs, ours = (_known(one, name) for one in (home, data))
    seen = {key for keys in theirs for key in keys}
    return sum(not seen.isdisjoint(keys) for keys in ours)


def _known(data: Path, name: str) -> list[set[Any]]:
    rows = pipeline.split_rows(data, records.read_info(data), "train")
    if name == "face":
        return [set(hashes) for hashes in splits.picture_hashes(rows)]
    said = ("dialogue_id", "utterance_id", "utterance")
    return [{tuple(row[part] for part in said)} if row["utterance"] else set() for row in pipeline.read_rows(rows)]


def start_words(model: keras.Model, embeddings: Embeddings) -> None:
    """Puts published vectors into the word embedding; words that they do not know keep the random start."""
    layer = model.get_layer("text_tower").get_layer("word_embedding")
    table = np.array(layer.embeddings)
    if table.shape[1] != embeddings.vectors.shape[1]:  # the file is another one than when the run was started
        raise UserError(
            f"The file of --text.embeddings has vectors of {embeddings.vectors.shape[1]} numbers. Expected "
            f"{table.shape[1]}, as when the run was started."
        )
    rows = np.flatnonzero(embeddings.known)
    table[rows + UNKNOWN_WORD_ID + 1] = embeddings.vectors[rows]
    layer.embeddings.assign(table)


def _copy(run: RunFolder, name: str, tower: keras.Model, spec: DataSpec) -> int:
    part = name.removesuffix("_tower")
    found = [layer for layer in run.model.layers if layer.name == name]
    if not found:
        raise UserError(f"{run.path} has no {part} tower. Expected a run trained with --towers {part} or both.")
    values, variables = _weights(found[0]), _weights(tower)
    theirs, ours = ([(v.name, tuple(v.shape)) for v in t] for t in (values, variables))
    differing = [f"{a} and {b}" for a, b in zip(theirs, ours, strict=False) if a != b]
    if differing or len(theirs) != len(ours):
        what = differing[0] if differing else f"{len(theirs)} and {len(ours)} variables"
        if part == "face" and run.spec.face_size != spec.face_size:
            raise UserError(
                f"The face tower of {run.path} was trained on crops of {run.spec.face_size} px. Received crops of "
                f"{spec.face_size} px ({what}). Prepare both with one --face-size."
            )
        raise UserError(
            f"The {part} tower of {run.path} is another one ({what}). Expected the same --{part}.* options: see "
            f"{run.path / 'config.json'}."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return sum(v.value.shape.num_elements() for v in variables)


def _weights(tower: keras.Model) -> list[Any]:
    """In an order that does not hang on which of them are trained, as that of a TF-Hub module's does in Keras."""
    found: list[Any] = []
    for layer in tower.layers:
        found += sorted(layer.weights, key=lambda v: v.name) if isinstance(layer, HubEncoder) else layer.weights
    return found


def _check_vocabularies(run: RunFolder, config: Config, spec: DataSpec, words: WordVocabulary) -> None:
    """Word pieces and words are numbers to a tower: those of the branches that read them have to be the same."""
    other_pieces = config.uses_bert and run.spec.tokenizer_sha256 != spec.tokenizer_sha256
    reads_words = set(config.text.branches) != {"bert"}
    if other_pieces or (reads_words and read_vocabulary(run.path / "words.txt") != list(words.words)):
        raise UserError(
            f"{run.path} knows other words: its vocabulary was made from other data. Expected a text tower trained on "
            "the same data set."
        )
