"""Initial weights: towers of other runs, and published word vectors."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from emotion_tf.config import Config
from emotion_tf.data import pipeline, splits
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.embeddings import Embeddings
from emotion_tf.data.tokenizer import WordVocabulary, read_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.folders import local_run
from emotion_tf.modalities import FACE, TEXT
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.tower import Tower
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.run_info import DataSpec
from emotion_tf.runs.run import Run
from emotion_tf.schema import UNKNOWN_WORD_ID
from emotion_tf.terminal import with_urls


def initialize_towers(
    model: TwoTower, config: Config, spec: DataSpec, words: WordVocabulary, say: Callable[[str], None]
) -> None:
    """Copies the towers of the runs that `--text.init` and `--face.init` name into a new model.

    Raises:
        UserError: no such run, or the run has no such tower, a different one, or another vocabulary.
    """
    for modality, tower in model.towers.items():
        init = getattr(config, modality).init
        if not init:
            continue
        run = Run(local_run(init))
        if modality == TEXT:
            _check_vocabularies(run, config, spec, words)
        count = _copy(run, modality, tower, spec)
        say(f"{tower.name} starts from {init}: {count:,} weights")


def check_unseen(
    config: Config,
    dataset: Dataset,
    held_out: Sequence[str],
    selecting: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> list[str]:
    """Raises if an initial checkpoint was trained or validated on examples that are held out here.

    It follows the chain of initial checkpoints and finds equal utterances or pictures in other data sets. It reports
    each run of the chain that cannot be checked.

    Args:
        config: configuration of the new run.
        dataset: its data set.
        held_out: splits that evaluate the model. No checkpoint may have been trained on them, or selected by them.
        selecting: splits that select the epoch. No checkpoint may have been trained on them.
        say: receives what could not be checked.

    Returns:
        A sentence about each run of the chains.

    Raises:
        UserError: `--text.init` or `--face.init` names no finished run, or one that has seen such examples.
    """
    sentences = []
    for name in config.towers:
        init, visited = getattr(config, name).init, set()
        if init:
            Run(local_run(init)).check_finished()
        while init and init not in visited:  # a run may have replaced the run that it started from
            visited.add(init)
            run = Run(local_run(init))
            try:
                seen = _count_seen(run, name, dataset, held_out, selecting)
                sentences.append(
                    f"{run.path} ({name}) was not trained on {_join([*held_out, *selecting])} of these data, and not "
                    f"selected by {_join(held_out)}."
                )
            except UserError as error:
                seen = {}
                sentences.append(f"Not checked whether {run.path} was trained on these data: {error}")
                say(sentences[-1])
            for use, (count, splits_of_count) in seen.items():
                raise UserError(
                    f"Invalid `{name}.init`. Expected other data: {init} was {use} on {count} of the utterances of "
                    f"{config.data} that are held out ({_join(splits_of_count)}). "
                    f"Received: {getattr(config, name).init}."
                )
            init = getattr(run.config, name).init
            if init and not local_run(init).is_dir():
                sentences.append(
                    f"{run.path} started from {init}, which does not exist: not checked whether that was trained on "
                    "these data."
                )
                say(sentences[-1])
                init = ""
    return [with_urls(sentence) for sentence in sentences]


def _count_seen(
    run: Run, name: str, dataset: Dataset, held_out: Sequence[str], selecting: Sequence[str]
) -> dict[str, tuple[int | str, Sequence[str]]]:
    """Returns how many held-out utterances a run was trained or validated on; empty if none: use -> (number, splits).

    Utterances are equal for a text tower if text and ids are; for a face tower, if they share a byte-identical picture.

    Raises:
        UserError: the data set of the run is not there any more.
    """
    if run.spec.data_sha256 == dataset.spec.data_sha256:  # the splits of one data set are what they are
        return {"trained": ("all", held_out)} if {"train", "dev"} & set(held_out) else {}
    source = Dataset.open(Path(run.config.data))
    if source.spec.data_sha256 != run.spec.data_sha256:
        raise UserError(f"{source.path} has changed since.")
    source.verify()
    seen: dict[str, tuple[int | str, Sequence[str]]] = {}
    for use, split, splits_here in (("trained", "train", [*held_out, *selecting]), ("validated", "dev", held_out)):
        hashes = (hash(key) for of_example in _example_keys(source, [split], name) for key in of_example)
        keys = np.unique(np.array(array("q", hashes), np.int64))  # 8 bytes of each
        count = sum(_has_any(keys, of_example) for of_example in _example_keys(dataset, splits_here, name))
        if count:
            seen[use] = (count, splits_here)
    return seen


def _has_any(hashes: np.ndarray, keys: Iterable[Any]) -> bool:
    """Whether one of the `keys` has a hash that is in the ascending `hashes`."""
    of_keys = np.array([hash(key) for key in keys], np.int64)
    return bool((np.searchsorted(hashes, of_keys) < np.searchsorted(hashes, of_keys, side="right")).any())


def _example_keys(dataset: Dataset, names: Sequence[str], tower: str) -> Iterator[Iterable[Any]]:
    """Yields the keys by which a tower's utterances of two data sets are compared; nothing of a missing split."""
    present = [name for name in names if name in dataset.splits]
    if not present:
        return
    rows = dataset.rows(*present)
    if tower == FACE:
        yield from splits.hash_pictures(rows)
        return
    columns = ("dialogue_id", "utterance_id", "utterance")
    for row in pipeline.read_rows(rows):
        yield [tuple(row[c] for c in columns)] if row["utterance"] else []


def _join(names: Sequence[str]) -> str:
    return " and ".join(names)


def initialize_words(tower: Tower, embeddings: Embeddings) -> None:
    """Assigns published vectors to the word embedding of a text tower; other words keep their random vectors.

    In a frozen embedding the unknown word cannot learn: its vector is the mean of the published ones.
    """
    (layer,) = tower.layers_of(keras.layers.Embedding)
    table = np.array(layer.embeddings)
    rows = np.flatnonzero(embeddings.known)
    table[rows + UNKNOWN_WORD_ID + 1] = embeddings.vectors[rows]
    if not layer.trainable:
        table[UNKNOWN_WORD_ID] = embeddings.vectors[rows].mean(axis=0)
    layer.embeddings.assign(table)


def _copy(run: Run, modality: str, tower: Tower, spec: DataSpec) -> int:
    """Assigns the weights of the tower of a run; returns the number of parameters. Raises UserError."""
    if modality not in run.model.towers:
        raise UserError(f"{run.path} has no {modality} tower. Expected a run trained with --towers {modality}.")
    sources, targets = _weights(run.model.towers[modality]), _weights(tower)
    shapes = [[(v.name, tuple(v.shape)) for v in weights] for weights in (sources, targets)]
    differing = [f"{a} and {b}" for a, b in zip(*shapes, strict=False) if a != b]
    if differing or len(sources) != len(targets):
        difference = differing[0] if differing else f"{len(sources)} and {len(targets)} variables"
        if modality == FACE and run.spec.face_size != spec.face_size:
            raise UserError(
                f"The face tower of {run.path} was trained on crops of {run.spec.face_size} px. Received crops of "
                f"{spec.face_size} px ({difference}). Prepare both with one --face-size."
            )
        raise UserError(
            f"The {modality} tower of {run.path} is a different one ({difference}). Expected the same --{modality}.* "
            f"options: see {run.path / 'config.json'}."
        )
    for target, source in zip(targets, sources, strict=True):
        target.assign(source)
    return sum(v.value.shape.num_elements() for v in targets)


def _weights(tower: Tower) -> list[Any]:
    """Returns the weights in an order that does not depend on freezing; Keras' order for a TF-Hub module does."""
    weights: list[Any] = []
    for layer in tower.layers_by_name.values():
        weights += sorted(layer.weights, key=lambda v: v.name) if isinstance(layer, HubEncoder) else layer.weights
    return weights


def _check_vocabularies(run: Run, config: Config, spec: DataSpec, words: WordVocabulary) -> None:
    """Raises UserError if the word pieces or words that the branches read have other ids in the run."""
    other_pieces = config.uses_bert and run.spec.tokenizer_sha256 != spec.tokenizer_sha256
    reads_words = set(config.text.branches) != {"bert"}
    if other_pieces or (reads_words and read_vocabulary(run.path / "words.txt") != list(words.words)):
        raise UserError(
            f"{run.path} has another vocabulary, from other data. Expected a text tower trained on the same data set."
        )
