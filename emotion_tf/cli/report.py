"""The report of a run: gathers what the page shows, and writes it with the model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from emotion_tf import files
from emotion_tf.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emotion_tf.data.dataset import Dataset, Rows
    from emotion_tf.evaluation.mistakes import Explanation
    from emotion_tf.evaluation.modalities import Help
    from emotion_tf.runs.run import Run
    from emotion_tf.training.evaluate import Evaluation


def write(run: Run, dataset: Dataset, split: str, found: Evaluation, command: str, out: Path) -> Path:
    """Writes `report.html` (of another split than test, `report_SPLIT.html`) into the folder `out`, and the run's
    MODEL_CARD.md; returns the page."""
    from emotion_tf.data.utterances import read_crops, read_utterances
    from emotion_tf.evaluation import model_card
    from emotion_tf.evaluation.mistakes import worst
    from emotion_tf.evaluation.report_page import Evidence, write_report

    rows = dataset.rows(split)
    mistakes = worst(found.outputs.label, found.probabilities)
    helps, missing = _helps(run, rows, found)
    evidence = Evidence(
        run=run.path.name,
        split=split,
        labels=run.labels,
        majority=run.majority,
        numbers=found.metrics,
        outputs=found.outputs,
        calibration=run.calibration,
        table=read_utterances(rows),
        facts=_facts(run, dataset, command),
        seen=_seen(split) if out == run.path else "",
        home="" if out == run.path else run.config.data,
        history=pd.read_csv(run.history) if run.history.exists() else None,
        helps=helps,
        helps_missing=missing,
        ceiling=dataset.best_accuracy(split),
        crops=read_crops(rows, mistakes),
        explanations=_explanations(run, rows, mistakes),
    )
    path = report_path(out, split)
    write_report(path, evidence)
    model_card.write(run.path)
    return path


def report_path(folder: Path, split: str) -> Path:
    """Of the page in a folder of results."""
    return folder / ("report.html" if split == "test" else f"report_{split}.html")


def _seen(split: str) -> str:
    return {
        "train": "the model was trained on these utterances",
        "dev": "the epoch, the temperatures and the thresholds were chosen by these utterances",
    }.get(split, "")


def _explanations(run: Run, rows: Rows, chosen: Sequence[int]) -> dict[int, Explanation]:
    """Why these utterances were predicted so, without the checks that `explain` makes: they take most of the time."""
    from emotion_tf.evaluation.mistakes import Explanation
    from emotion_tf.interpret import modality
    from emotion_tf.interpret.batch import Scorer
    from emotion_tf.interpret.dataset import read_utterances
    from emotion_tf.interpret.explain import explain

    if not chosen:
        return {}
    scorer, order = Scorer(run), sorted(chosen)
    read = zip(order, read_utterances(scorer, rows.select(order)), strict=True)
    kept = {row: utterance for row, utterance in read if modality.present(utterance)}
    made = explain(scorer, list(kept.values()), check=False) if kept else []
    return {
        row: Explanation(
            one.words,
            [(title, pictures[0]) for title, pictures in one.overlays if pictures],
            "Shapley values: " + ", ".join(f"{name} {value:+.2f}" for name, value in one.shares.items()) + " nats",
        )
        for row, one in zip(kept, made, strict=True)
    }


def _helps(run: Run, rows: Any, found: Evaluation) -> tuple[list[Help], str]:
    """What each modality is worth, and why that cannot be told of what is not there."""
    import numpy as np

    from emotion_tf.data import pipeline
    from emotion_tf.evaluation.modalities import judge
    from emotion_tf.evaluation.slices import FEWEST_DIALOGUES
    from emotion_tf.modalities import MODALITIES
    from emotion_tf.training.ablation import BATCH, ablations

    if len(run.config.towers) == 1:
        return (
            [],
            f"This run reads the {run.config.towers[0]} alone. A run with several towers is asked here what each is "
            "worth.",
        )
    group = np.array([row["dialogue_id"] for row in found.rows])
    if len(np.unique(group)) < FEWEST_DIALOGUES:
        return [], f"There are fewer than {FEWEST_DIALOGUES} dialogues: too few to tell."
    preprocess = run.preprocessor(run.model)
    batches = pipeline.eval_batches(rows, preprocess, BATCH)
    without = ablations(run.model, preprocess, batches, found.outputs.pattern)
    whole = found.outputs.logits.argmax(axis=1)
    label, weight = found.outputs.label, found.outputs.weight
    helps = [judge(name, label, whole, one, group, weight) for name, one in without.items() if len(one.shuffled)]
    missing = [
        f"Fewer than two utterances have {MODALITIES[name].title}."
        for name, one in without.items()
        if not len(one.shuffled)
    ]
    return helps, " ".join(missing)


def _facts(run: Run, dataset: Dataset, command: str) -> dict[str, str]:
    config = run.config
    branches = [f"{tower}: {', '.join(getattr(config, tower).branches)}" for tower in config.towers]
    joined = [f"fusion: {config.fusion.kind}"] if len(config.towers) > 1 else []
    parameters = run.metadata.get("parameters")
    return {
        "data": str(dataset.path),
        "SHA-256 of the data": dataset.spec.data_sha256,
        "SHA-256 of config.json": files.sha256(run.path / "config.json"),
        "SHA-256 of model.keras": files.sha256(run.model_path),
        "seed": str(config.train.seed),
        "command of the training": run.metadata["command"],
        "command of this report": command,
        "model": "; ".join([*branches, *joined]) + (f"; {parameters:,} parameters" if parameters else ""),
        "versions": ", ".join(f"{tool} {version}" for tool, version in run.metadata["versions"].items()),
    }


def calibrate_if_new(run: Run) -> None:
    """Chooses temperatures and thresholds for a run of before they were, as the end of training does."""
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
        print(f"Not calibrated, since the run's own validation split is not at hand: {error}")
        return
    dataset.verify()
    calibrate(run.path, run.model, run.preprocessor(run.model), dataset.rows("dev"))
    print(f"Calibrated on dev: {run.path / calibration.FILE}")
