"""The program from Python: `emotion_tf.prepare`, `train` and `Run`. Each calls a verb of the command line.

Arguments become the words that one would type. So Python and the command line have the same options, checks, messages
and results, and a run stores the command that trains it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_tf import folders, program
from emotion_tf.errors import UserError
from emotion_tf.folders import other_results
from emotion_tf.quiet import start_tensorflow
from emotion_tf.trust import everything

if TYPE_CHECKING:
    import pandas as pd

    from emotion_tf.data.raw import Face
    from emotion_tf.evaluation.results import Metrics
    from emotion_tf.interpret.explanation import Explanation
    from emotion_tf.serving.predictor import Prediction, Predictor

    Faces = Sequence[Face | Sequence[Face] | None]


@dataclass(frozen=True)
class Run:
    """A trained run, by its folder.

    Attributes:
        path: the folder, such as `saved_models/mine`.
        trust: whether to run graphs that this program did not make here for this user, like `--trust`.
    """

    path: Path
    trust: bool = False

    def __post_init__(self) -> None:
        """Takes a path as text, too."""
        object.__setattr__(self, "path", Path(self.path))

    def evaluate(self, split: str = "test", data: str | Path | None = None, *, report: bool = False) -> pd.DataFrame:
        """Evaluates the run, writes the results as `evaluate` does, and returns the scores.

        Args:
            split: train, dev or test.
            data: another data set than that of the run.
            report: whether to write `report.html` and `MODEL_CARD.md` as well.

        Returns:
            A row for accuracy, weighted_f1, macro_f1 and the F1 of each class (`f1_LABEL`). The columns are `value`;
            `low` and `high`, the 95 % interval by dialogue; `floor`, the score of always predicting the most frequent
            class; and `support`, the weighted number of utterances. What does not exist is NaN.

        Raises:
            emotion_tf.UserError: the run is not finished, or cannot read the data.
        """
        from emotion_tf.evaluation.results import read_metrics

        options = {"split": split, "data": data, "report": report, "trust": self.trust}
        _call("evaluate", self.path, options=options)
        return _score_table(read_metrics(self._results(data))[split])

    def _results(self, data: str | Path | None) -> Path:
        """Returns the folder of the results on a data set; None: that of the run."""
        from emotion_tf.data.dataset import Dataset
        from emotion_tf.run_info import read_run_info

        is_own = data is None or Dataset.open(Path(data)).spec.data_sha256 == read_run_info(self.path).data_sha256
        return self.path if is_own or data is None else other_results(self.path, Path(data))

    def resume(self) -> None:
        """Continues an interrupted training in `saved_models/`. Raises UserError if there is none to resume."""
        if self.path.parent.resolve() != folders.RUNS.resolve():
            raise UserError(f"Cannot resume {self.path}. Expected a run in {folders.RUNS}/.")
        _call("train", options={"resume": True, "name": self.path.name, "trust": self.trust})

    def predict(
        self, utterances: Sequence[str], faces: Faces | None = None, contexts: Sequence[Sequence[str]] | None = None
    ) -> Prediction:
        """Predicts the emotion of each utterance; see `emotion_tf.serving.predictor.Predictor.predict`."""
        return self._predictor.predict(utterances, faces, contexts)

    @cached_property
    def _predictor(self) -> Predictor:
        return load(self.path, self.trust)

    def explain(
        self,
        utterances: Sequence[str],
        faces: Faces | None = None,
        contexts: Sequence[Sequence[str]] | None = None,
        label: str = "",
        *,
        check: bool = True,
    ) -> list[Explanation]:
        """Explains the predicted class of each utterance by words, parts of the face and modalities.

        Args:
            utterances: N texts, as for `predict`.
            faces: aligned face crops of each, as for `predict`.
            contexts: previous utterances of each, as for `predict`.
            label: another class to explain, the same for all utterances.
            check: whether to add the checks of `explain`, which take most of the time.

        Raises:
            emotion_tf.UserError: as for `predict`; the label does not exist; an utterance has nothing that is read.
        """
        start_tensorflow()
        from emotion_tf.data.raw import encode_faces
        from emotion_tf.interpret.batch import Utterance
        from emotion_tf.interpret.explain import explain
        from emotion_tf.runs.run import Run as RunFolder
        from emotion_tf.serving.predictor import per_utterance

        crops, lines = per_utterance(utterances, faces, contexts)
        with everything(self.trust):
            run = RunFolder(self.path)
            inputs = [
                Utterance(text, encode_faces(crop, run.spec.face_size, i), context)
                for i, (text, crop, context) in enumerate(zip(utterances, crops, lines, strict=True))
            ]
            return explain(run, inputs, label, check=check)


def prepare(source: str | Path, out: str | Path, kind: str = "table", **options: Any) -> Path:
    """Writes a data set, as `prepare table`, `clips`, `meld`, `faces` and `demo` do.

    Args:
        source: the CSV of `table` and `clips`, the folder of `meld` and `faces`; empty for `demo`.
        out: folder of the data set, such as `tfrecords/mine`.
        kind: which of them.
        **options: options of that verb, such as `face_size=48`, `labels=["good", "bad"]` or `faces__policy="largest"`
            for `--faces.policy largest`.

    Returns:
        The folder of the data set.

    Raises:
        emotion_tf.UserError: as the verb does.
    """
    if kind == "meld":
        _call("prepare meld", options={"root": source, "out": out, **options})
    else:
        _call(f"prepare {kind}", *([source] if source else []), options={"out": out, **options})
    return Path(out)


def train(
    data: str | Path,
    preset: str | None = "minilm",
    *,
    name: str | None = None,
    overwrite: bool = False,
    smoke: bool = False,
    trust: bool = False,
    **changes: Any,
) -> Run:
    """Trains a run and evaluates it on dev and test, as `train` does.

    Args:
        data: folder of the data set.
        preset: initial configuration: demo, minilm or base; or None with `config="saved_models/other/config.json"`.
        name: name of the folder in `saved_models/`. Default: data set, towers and the next free number.
        overwrite: replace the folder of that name, when the new one is complete.
        smoke: train for seconds only.
        trust: as for `Run`.
        **changes: options of the configuration (`python main.py options`), with `__` for the dot:
            `train__epochs=5`, `text__branches=["gru"]`, `towers=["text"]`.

    Raises:
        emotion_tf.UserError: as the verb does.
    """
    from emotion_tf.cli.arguments import train_arguments
    from emotion_tf.cli.train import train as train_verb

    flags = {"name": name, "overwrite": overwrite, "smoke": smoke, "trust": trust}
    words = ["train", *words_of_options({"data": data, "preset": preset, **flags, **changes})]
    with program.typed(words):
        arguments = train_arguments(words[1:])
        if arguments.seeds > 1:
            raise UserError("Expected one run. For several seeds, call `train` with train__seed=0, 1, ... and names.")
        with everything(trust):
            (path,) = train_verb(arguments)
    return Run(path, trust)


def load(run: str | Path, trust: bool = False) -> Predictor:
    """Loads a run, an ensemble or an export, ready for `.predict(utterances, faces)`.

    TensorFlow is imported by this function, not by `import emotion_tf`.

    Args:
        run: its folder, such as `saved_models/demo-text-face`, or an export, `saved_models/demo-text-face/serving/1`.
        trust: whether to run graphs that this program did not make here for this user, like `--trust`.

    Raises:
        emotion_tf.UserError: the folder holds no finished run, ensemble or export, or its graph is not trusted.
    """
    start_tensorflow()
    from emotion_tf.serving.predict import open_predictor

    with everything(trust):
        return open_predictor(Path(run))


def _call(verb: str, *positional: str | Path, options: Mapping[str, Any]) -> None:
    """Runs a verb as the command line does."""
    from emotion_tf import cli

    words = [*verb.split(), *map(str, positional), *words_of_options(options)]
    with program.typed(words):
        cli.dispatch(words)


def words_of_options(options: Mapping[str, Any]) -> list[str]:
    """Returns options as they are typed: `train__epochs=5` is `--train.epochs 5`; None and False are left out."""
    from emotion_tf.option_errors import negated

    words: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('__', '.').replace('_', '-')}"
        if isinstance(value, bool):
            is_pair = "." in option  # of the configuration, such as --face.augment and --face.no-augment
            words += [option] if value else [negated(option)] if is_pair else []
        elif isinstance(value, (list, tuple)):
            words += [option, *map(str, value)]
        elif value is not None:
            words += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
    return words


def _score_table(metrics: Metrics) -> pd.DataFrame:
    import pandas as pd

    floor, intervals = metrics["majority_floor"], metrics.get("intervals", {})
    support = sum(scores["support"] for scores in metrics["per_class"].values())
    overall = {
        "accuracy": (metrics["accuracy"], floor["accuracy"]),
        "weighted_f1": (metrics["weighted_f1"], floor["weighted_f1"]),
        "macro_f1": (metrics["macro_f1"], None),
    }
    rows = {
        name: (value, *(intervals.get(name) or (None, None)), of_floor, support)
        for name, (value, of_floor) in overall.items()
    }
    rows |= {
        f"f1_{label}": (scores["f1"], None, None, None, scores["support"])
        for label, scores in metrics["per_class"].items()
    }
    return pd.DataFrame.from_dict(rows, "index", "float64", ["value", "low", "high", "floor", "support"])
