"""What the objective of `tune` flatters: `python -m benchmarks.tuning_objective DATA --out FOLDER`.

Trains random configurations as the trials of a search are trained and prints, over all of them, the weighted F1 on dev
of the best epoch (the objective) and of the last epoch, and the weighted F1 on test of both models. Then it selects a
configuration by each of the two scores among random subsets of the trials, as searches of that size would have done.
The trials are in `trials.csv`; the same command continues.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from benchmarks import make_parser, run_benchmark
from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

SEARCHES = 2000


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--towers", nargs="+", default=["text"])
    arguments.add_argument("--trials", type=int, default=20)
    arguments.add_argument("--epochs", type=int, default=6)
    arguments.add_argument("--size", type=int, default=6, help="trials of a search")
    arguments.add_argument("--seed", type=int, default=0)
    return arguments


def main() -> None:
    """Trains the configurations that are not in the table yet, and prints the comparison."""
    options = parser().parse_args()
    if min(options.trials, options.size) < 1:
        received = f"{options.trials} and {options.size}"
        raise UserError(f"Expected `--trials` and `--size` of at least 1. Received: {received}.")
    start_tensorflow()
    import pandas as pd

    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "trials.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame()
    for number, config in enumerate(configurations(options)):
        if number < len(table):
            continue
        table = pd.concat([table, pd.DataFrame([run_trial(config, options.out / f"trial{number}")])])
        files.write_text(file, table.to_csv(index=False))
        print(f"trial {number}: " + "  ".join(f"{k} {v:.4f}" for k, v in table.iloc[-1].items()), flush=True)
    print_comparison(table, options.size)


def configurations(options: argparse.Namespace) -> list[Any]:
    """Returns random configurations of the search space around the demo preset, the preset first."""
    from emotion_tf import config as configuration
    from emotion_tf.data.dataset import Dataset
    from tuning import oracle, space

    base = configuration.preset("demo")
    train = dataclasses.replace(base.train, epochs=options.epochs, patience=options.epochs, seed=options.seed)
    base = dataclasses.replace(base, data=str(options.data), towers=tuple(options.towers), train=train)
    dataset = Dataset.open(options.data)
    searched = space.parameters(base, space.DatasetFacts(context=dataset.context, crops=dataset.max_faces))
    oracle_of_trials = oracle.build(
        "random", lambda hp: space.draw(hp, searched, base), options.trials, options.epochs, options.seed,
        options.out / "oracle.json", "",
    )  # fmt: skip
    configs = []
    for number in range(options.trials):
        trial = oracle_of_trials.create_trial(f"worker{number}")
        configs.append(space.draw(trial.hyperparameters, searched, base))
    return configs


def run_trial(config: Any, folder: Path) -> dict[str, float]:
    """Trains a configuration and returns its scores on dev and test, after the best epoch and after the last."""
    import shutil

    import pandas as pd

    from emotion_tf.models.pretrained import PretrainedFiles
    from emotion_tf.runs.run import Run
    from tuning.trial import Task, TrainingJob

    scores: dict[str, float] = {}

    class Job(TrainingJob):
        def _train(self, task: Task, rows: Any, name: str) -> Any:
            state = super()._train(task, rows, name)
            run = Run(task.folder / name)
            dev = pd.read_csv(run.history)["dev_weighted_f1"]
            scores.update(dev_best=dev.max(), dev_last=dev.iloc[-1], best_epoch=state.best_epoch + 1)
            scores.update(test_scores(config, run, state.best_epoch))
            return state

    shutil.rmtree(folder, ignore_errors=True)
    outcome = Job(0, PretrainedFiles()).run(Task(config, folder, "benchmark"))
    check_objective(outcome.score, scores["dev_best"])
    return scores


def check_objective(objective: float | None, score: float) -> None:
    """Raises ValueError if the objective of the trial is another score."""
    if objective != score:
        raise ValueError(f"The objective is {objective}, not {score}.")


def test_scores(config: Any, run: Any, best_epoch: int) -> dict[str, float]:
    """Returns the weighted F1 on test of the best and the last checkpoint of a run."""
    from emotion_tf.data import pipeline
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.evaluation.metrics import weighted_f1
    from emotion_tf.models.pretrained import PretrainedFiles
    from emotion_tf.training.checkpoint import LAST, Checkpoints, best_name
    from emotion_tf.training.outputs import collect_outputs, inference
    from emotion_tf.training.setup import TrainingData, build_setup

    dataset = Dataset.open(Path(config.data))
    setup = build_setup(config, TrainingData.of_splits(dataset), PretrainedFiles(), lambda _: None, run.word_dim)
    checkpoints, scores = Checkpoints(run.checkpoints, setup.variables), {}
    for name, file in (("test_best", best_name(best_epoch)), ("test_last", LAST)):
        checkpoints.load(file)
        batches = pipeline.eval_batches(dataset.rows("test"), setup.preprocess, 64)
        outputs = collect_outputs(inference(setup.model), batches)
        scores[name] = weighted_f1(outputs.label, outputs.logits.argmax(axis=1), outputs.weight)
    return scores


def print_comparison(table: Any, size: int) -> None:
    """Prints the means over the trials, and the winners of searches that are drawn from them."""
    import numpy as np

    for name, values in (
        ("dev, best epoch - dev, last epoch", table.dev_best - table.dev_last),
        ("test, best epoch - test, last epoch", table.test_best - table.test_last),
        ("dev - test, best epoch", table.dev_best - table.test_best),
        ("dev - test, last epoch", table.dev_last - table.test_last),
    ):
        error = values.std(ddof=1) / len(values) ** 0.5
        print(f"{name:36} mean {values.mean():+.4f} +- {error:.4f}, largest {values.max():+.4f}")
    print(f"best epoch is the last in {(table.dev_best == table.dev_last).mean():.0%} of {len(table)} trials")
    rng = np.random.default_rng(0)
    for objective in ("dev_best", "dev_last"):
        rows = [table.iloc[rng.permutation(len(table))[:size]] for _ in range(SEARCHES)]
        winners = [part.loc[part[objective].idxmax()] for part in (row.reset_index(drop=True) for row in rows)]
        score, dev, test = (np.array([w[name] for w in winners]) for name in (objective, "dev_best", "test_best"))
        print(
            f"searches of {size} trials by {objective}: winner's objective {score.mean():.4f}, dev {dev.mean():.4f} "
            f"and test {test.mean():.4f} of its best epoch"
        )
    print(
        "rank correlation with test of the best epoch: "
        + ", ".join(
            f"{name} {table[name].corr(table.test_best, method='spearman'):.2f}" for name in ("dev_best", "dev_last")
        )
    )


if __name__ == "__main__":
    run_benchmark(main)
