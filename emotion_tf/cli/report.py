"""The report of a run: gathers what the page shows, and writes it with the model card."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from emotion_tf import files
from emotion_tf.config import SMOKE_ROWS
from emotion_tf.errors import UserError
from emotion_tf.terminal import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from emotion_tf.data.dataset import Dataset
    from emotion_tf.data.rows import Rows
    from emotion_tf.evaluation.mistakes import Explanation
    from emotion_tf.evaluation.modalities import Contribution
    from emotion_tf.runs.run import Run
    from emotion_tf.training.evaluate import Evaluation


LEARNING = ("epoch", "loss", "dev_loss", "dev_weighted_f1")
"""Columns of the history that the report shows."""
OPTIMISTIC = {
    "train": "the model was trained on these utterances",
    "dev": "the epoch, the temperatures and the thresholds were selected on these utterances",
}
"""Split -> why results on it are optimistic."""
EXPLAINED_AS = 4000
"""Number of utterances whose evaluation takes about as long as the explanation of the mistakes."""


def read_learning(run: Run) -> pd.DataFrame | None:
    """Returns the history of a run's training, if it has one. Raises UserError if it cannot be read."""
    from emotion_tf.evaluation.csv_tables import read_history

    return read_history(run.history, LEARNING) if run.history.exists() else None


def write(
    run: Run,
    dataset: Dataset,
    split: str,
    results: Evaluation,
    history: pd.DataFrame | None,
    command: str,
    out: Path,
) -> Path:
    """Writes the report into the folder `out`, and MODEL_CARD.md into the run's folder; returns the report's path.

    `history` is that of `read_learning`.
    """
    from emotion_tf.data.utterances import read_crops, read_texts, read_utterances
    from emotion_tf.evaluation import model_card
    from emotion_tf.evaluation.mistakes import worst_mistakes
    from emotion_tf.evaluation.reliability import confidence_of
    from emotion_tf.evaluation.report_page import ReportData, write_report
    from emotion_tf.progress import stage

    rows, is_smoke = results.rows, "smoke" in results.metrics
    outputs, predicted = results.outputs, results.outputs.predicted
    confidence = confidence_of(results.probabilities, predicted)
    mistakes = worst_mistakes(predicted == outputs.label, confidence, outputs.weight)
    with stage("testing what each modality contributes"):
        contributions, note = _contributions(run, rows, results)
    report = ReportData(
        run=run.path.name,
        split=split,
        labels=run.labels,
        majority=run.majority,
        numbers=results.metrics,
        outputs=outputs,
        calibration=run.calibration,
        table=read_utterances(rows),
        facts=_facts(run, dataset, command),
        optimistic_because=OPTIMISTIC.get(split, "") if out == run.path else "",
        corpus=run.info.corpus,
        training_data="" if out == run.path else run.config.data,
        history=history,
        contributions=contributions,
        contributions_note=note,
        best_accuracy={} if is_smoke else dataset.best_accuracy(split),
        texts=read_texts(rows, mistakes),
        crops=read_crops(rows, mistakes),
        explanations={} if is_smoke else _explanations(run, rows, mistakes),
    )
    model_card.write(run.path)
    path = report_path(out, split)
    with stage("drawing the report"):
        write_report(path, report)  # last: `train --resume` writes what is missing, and looks at this file
    return path


def later_stages(dataset: Dataset, splits: Sequence[str], towers: int, smoke: bool) -> float:
    """Returns about how long the evaluation of a run takes after its training, as a multiple of a validation on dev.

    Each split is evaluated, and dev calibrates. The report of the last one reads it again to test the modalities, and
    explains mistakes.
    """
    from emotion_tf.training.history import in_validations

    counts = [dataset.splits[split].records for split in ("dev", *splits)]
    if smoke:
        return sum(min(count, SMOKE_ROWS) for count in counts) / min(counts[0], SMOKE_ROWS)
    return in_validations(sum(counts) + counts[-1] * (towers > 1) + EXPLAINED_AS, counts[0])


def report_path(folder: Path, split: str) -> Path:
    """Returns the path of the report: `report.html` for test, else `report_SPLIT.html`."""
    return folder / ("report.html" if split == "test" else f"report_{split}.html")


def _explanations(run: Run, rows: Rows, mistakes: Sequence[int]) -> dict[int, Explanation]:
    """Explains the predictions of these rows, without the checks of `explain`, which take most of its time."""
    from emotion_tf.evaluation.mistakes import Explanation
    from emotion_tf.interpret import modality
    from emotion_tf.interpret.batch import Scorer
    from emotion_tf.interpret.dataset import read_utterances
    from emotion_tf.interpret.explain import explain
    from emotion_tf.progress import track

    if not mistakes:
        return {}
    scorer, order = Scorer(run), sorted(mistakes)
    utterances = zip(order, read_utterances(scorer, rows.select(order)), strict=True)
    readable = {row: utterance for row, utterance in utterances if modality.present_modalities(utterance)}
    show = functools.partial(track, title="explaining mistakes", unit="batches")
    explanations = explain(scorer, list(readable.values()), check=False, progress=show) if readable else []
    return {
        row: Explanation(
            explanation.words,
            [(title, pictures[0]) for title, pictures in explanation.overlays if pictures],
            _shapley_values(explanation.shapley_values, run.never_absent),
        )
        for row, explanation in zip(readable, explanations, strict=True)
    }


def _shapley_values(values: Mapping[str, float], never_absent: Sequence[str]) -> str:
    line = "Shapley values (nats): " + ", ".join(f"{name} {x:+.2f}" for name, x in values.items())
    untrained = f" (not to be trusted: training hardly ever lacked {' and '.join(never_absent)})"
    return line + untrained * (len(values) > 1 and bool(never_absent))


def _contributions(run: Run, rows: Rows, results: Evaluation) -> tuple[list[Contribution], str]:
    """Returns what each modality contributes, and a note on those that cannot be tested."""
    import numpy as np

    from emotion_tf.data import pipeline
    from emotion_tf.evaluation.modalities import measure_contribution
    from emotion_tf.evaluation.slices import MIN_DIALOGUES
    from emotion_tf.modalities import MODALITIES
    from emotion_tf.training.ablation import BATCH, ablations

    if "smoke" in results.metrics:
        return [], "A smoke run does not test it."
    if len(run.config.towers) == 1:
        return [], f"This run reads {run.config.towers[0]} only. The test needs a run with several towers."
    group = results.dialogue
    if len(np.unique(group)) < MIN_DIALOGUES:
        return [], f"The test needs at least {MIN_DIALOGUES} dialogues."
    preprocess = run.preprocessor(run.model)
    batches = pipeline.eval_batches(rows, preprocess, BATCH)
    outputs = results.outputs
    predicted = outputs.predicted
    contributions, notes = [], []
    for name, ablation in ablations(run.model, preprocess, batches, outputs.pattern).items():
        if len(ablation.shuffled):
            measured = measure_contribution(
                name, outputs.label, predicted, ablation, group, outputs.weight, name in run.never_absent
            )
            contributions.append(measured)
        else:
            notes.append(f"Fewer than two utterances have {MODALITIES[name].title}.")
    return contributions, " ".join(notes)


def _facts(run: Run, dataset: Dataset, command: str) -> dict[str, str]:
    config = run.config
    branches = [f"{tower}: {', '.join(getattr(config, tower).branches)}" for tower in config.towers]
    fusion = [f"fusion: {config.fusion.kind}"] if len(config.towers) > 1 else []
    return {
        "data": dataset.place,
        "SHA-256 of the data": dataset.spec.data_sha256,
        "SHA-256 of config.json": files.sha256(run.path / "config.json"),
        "SHA-256 of model.keras": files.sha256(run.model_path),
        "seed": str(config.train.seed),
        "training command": run.info.command,
        "report command": command,
        **({"initial towers": " ".join(run.info.initial)} if run.info.initial else {}),
        "model": "; ".join([*branches, *fusion]) + f"; {run.info.parameters:,} parameters",
        "date": run.info.date and f"{run.info.date} UTC",
        "duration": "" if run.info.seconds is None else f"{run.info.seconds / 60:.1f} minutes",
        "machine": ", ".join(f"{name}: {value}" for name, value in run.info.machine.items()),
        "versions": ", ".join(f"{tool} {version}" for tool, version in run.info.versions.items()),
        "commit of the project": run.info.commit or "none: an installed package",
    }


def calibrate_if_missing(run: Run) -> None:
    """Fits the calibration of a run without one on dev, before the report reads another split."""
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation import calibration
    from emotion_tf.training.evaluate import calibrate

    if (run.path / calibration.FILE).exists():
        return
    try:
        dataset = Dataset.open(Path(run.config.data))
        if dataset.spec.data_sha256 != run.spec.data_sha256:
            raise UserError(f"{dataset.path} has changed since.")
    except UserError as error:
        say(f"Not calibrated, because the dev split of the run cannot be read: {error}")
        return
    dataset.verify()
    calibrate(run, run.model, run.preprocessor(run.model), dataset.rows("dev"))
    say(f"Calibrated on dev: {run.path / calibration.FILE}")
