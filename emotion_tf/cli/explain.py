"""`explain`: explanations of an utterance, or of a data set and selected utterances of it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from emotion_tf import files, locks
from emotion_tf.cli.inputs import UtteranceOptions
from emotion_tf.command_line import NO_PREFIX, Flag, RunPath, opens_models
from emotion_tf.config import rules
from emotion_tf.config.rules import Output, Range
from emotion_tf.errors import UserError
from emotion_tf.folders import check_no_link
from emotion_tf.kinds import Kind
from emotion_tf.program import command
from emotion_tf.quiet import needs_tensorflow
from emotion_tf.terminal import say

if TYPE_CHECKING:
    from emotion_tf.interpret.batch import Scorer, Utterance
    from emotion_tf.interpret.explanation import Explanation
    from emotion_tf.interpret.summary import Summary

PAGE = Kind("page of explanations", ("index.html",), signature='content="emotion_tf explain"')
REPEATS = 5


@opens_models
@needs_tensorflow
def explain(
    run: RunPath,
    utterance: Annotated[UtteranceOptions, NO_PREFIX],
    data: Annotated[Path | None, rules.value("DATASET")] = None,
    split: Annotated[str, rules.SPLIT] = "dev",
    k: Annotated[int, Range(0, 10_000)] = 12,
    limit: Annotated[int, Range(0, 10_000_000)] = 500,
    label: Annotated[str, rules.value("LABEL")] = "",
    layer: Annotated[str, rules.value("LAYER")] = "",
    out: Annotated[Path | None, Output.FOLDER, rules.value("DIR")] = None,
    overwrite: Flag = False,
) -> None:
    """Explain predictions by words, parts of the face and modalities, as a page with sanity checks, and as PNGs.

    Args:
        run: Run: its name in saved_models/, or its folder.
        data: Data set in tfrecords/ instead of an utterance. Explains k selected utterances, and averages the
            attributions of all by class, also as CSV.
        split: Split of --data: train, dev or test.
        k: Number of selected utterances: a third each of the most confident mistakes, the most undecided predictions
            and the most confident correct ones.
        limit: Maximum number of utterances for the averages, drawn at random (seed 0); 0: all.
        label: Class to explain; by default the predicted class of each utterance.
        layer: Layer of the face tower for Grad-CAM, LAYER/INNER inside a network; by default the last map of each
            branch.
        out: Folder of the page; by default the next number in the run's folder explanations/.
        overwrite: Replace an existing folder.
    """
    from emotion_tf.interpret import render
    from emotion_tf.interpret.batch import Scorer
    from emotion_tf.runs.run import Run

    if utterance.is_empty == (data is None) or (data and utterance.context):
        raise UserError("Give exactly one of: an utterance (--text, --face or --clip, and --context), --data.")
    if out:
        _check_new(out, overwrite)
    scorer = Scorer(Run(run))
    with _claim(out, run / "explanations") as folder:
        _check_new(folder, overwrite)
        facts = [("Command", command()), ("Run", str(run)), ("Seed", _seed(scorer))]
        summary: Summary | None = None
        if data is None:
            explanations = _explain_utterance(scorer, utterance, label, layer)
        else:
            explanations, summary = _explain_data(scorer, data, split, k, limit, label, layer)
            facts += [
                ("Data", f"{split} of {data}"),
                ("Utterances", f"{len(explanations)} explained; averages over {summary.count}"),
            ]
        with files.new_folder(folder, PAGE, overwrite) as temporary:
            title = f"Explanations of {run.name}" if data or label else f"Why {run.name} predicted this"
            render.write_page(temporary, explanations, summary, {"title": title, "about": facts, "repeats": REPEATS})
    say(f"Explanations: {folder / 'index.html'}")


def _check_new(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} exists. Expected a new name; --overwrite replaces it.")
    files.check_replaceable(folder, PAGE)


@contextlib.contextmanager
def _claim(out: Path | None, explanations: Path) -> Iterator[Path]:
    """Locks and yields the folder to write: `out`, or the next number that no other process writes."""
    if out:
        with locks.writer(out):
            yield out
        return
    check_no_link(explanations)
    for number in itertools.count(_last_number(explanations) + 1):
        folder = explanations / str(number)
        if os.path.lexists(folder):
            continue
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.writer(folder))
            except locks.Occupied:
                continue
            if not os.path.lexists(folder):
                yield folder
                return


def _seed(scorer: Scorer) -> str:
    return f"{scorer.run.config.train.seed} (training), 0 (shuffles)"


def _last_number(folder: Path) -> int:
    return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)


def _explain_utterance(
    scorer: Scorer, options: UtteranceOptions, label: str, layer: str
) -> list[tuple[Explanation, str]]:
    from emotion_tf.interpret.batch import CONTEXT, Utterance
    from emotion_tf.interpret.explain import explain as explain_utterances

    if options.context and CONTEXT not in scorer.modalities:
        raise UserError(
            f"{scorer.run.path} reads no context. Expected a run trained with --text.context, or no --context."
        )
    crops = options.find_crops(scorer.run.spec)
    (explanation,) = explain_utterances(scorer, [Utterance(options.text, crops, options.context)], label, layer)
    words = sorted(explanation.words, key=lambda word: -word[1])[:5]
    say(f"{explanation.labels[explanation.target]}: {explanation.probabilities[explanation.target]:.4f}")
    if words:
        say("words: " + ", ".join(f"{word} {value:+.2f}" for word, value in words))
    values = explanation.shapley_values
    if len(values) > 1:
        say("modalities: " + ", ".join(f"{name} {value:+.2f}" for name, value in values.items()))
    for note in explanation.shapley_notes:
        say(note)
    return [(explanation, "")]


def _explain_data(
    scorer: Scorer, data: Path, split: str, k: int, limit: int, label: str, layer: str
) -> tuple[list[tuple[Explanation, str]], Summary]:
    from emotion_tf.interpret import dataset
    from emotion_tf.interpret.explain import explain as explain_utterances
    from emotion_tf.interpret.modality import present_modalities
    from emotion_tf.interpret.summary import summarise
    from emotion_tf.progress import stage, track

    rows = [row for row in _read(scorer, data, split) if present_modalities(row)]
    if not rows:
        raise UserError(
            f"{split} of {data} has nothing that {scorer.run.path} reads. Expected utterances with "
            f"{' or '.join(scorer.modalities)}."
        )
    sample: list[Utterance] = rows
    if limit and limit < len(rows):
        sample = [rows[i] for i in np.sort(np.random.default_rng(0).permutation(len(rows))[:limit])]
    summary = summarise(
        scorer, sample, layer, REPEATS, progress=lambda items, total: track(items, total, "all utterances", "batches")
    )
    labels = np.array([row.label for row in rows])
    with stage(f"predicting {split}, to select utterances"):
        selected = dataset.select_utterances(*scorer.predict(rows), labels, k) if k else []
    explanations = explain_utterances(
        scorer,
        [rows[i] for i, _ in selected],
        label,
        layer,
        progress=lambda items, total: track(items, total, "selected utterances", "utterances"),
    )
    reasons = [reason for _, reason in selected]
    return list(zip(explanations, reasons, strict=True)), summary


def _read(scorer: Scorer, data: Path, split: str) -> list[Utterance]:
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.interpret.dataset import read_utterances
    from emotion_tf.progress import stage
    from emotion_tf.training.evaluate import check_data

    dataset = Dataset.open(data)
    dataset.verify()
    check_data(scorer.run, dataset)
    with stage(f"reading {split} of {data}"):
        return read_utterances(scorer, dataset.rows(split))
