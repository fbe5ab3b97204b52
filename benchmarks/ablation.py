"""Ablations: `python -m benchmarks.ablation DATA --face-init RUN --out FOLDER [--mismatched DATA]`.

Trains a baseline (concat, cross-entropy, mean of the tokens, no modality dropout) and variants that differ from it in
one part, each with several seeds. All of them read cached features of a frozen text encoder (with `--text-init RUN`: of
the frozen text tower of that run, which determines the pooling) and of the frozen face tower of a run. The epoch is
chosen on dev.

Prints weighted F1 on test, with all faces and with the faces of half of the utterances removed (the same utterances for
every run): mean and standard deviation over the seeds, and the difference to the baseline with its 95 % interval over
seeds and dialogues. p is adjusted for the number of variants in the table (Holm 1979). A difference is set against the
published result only if its adjusted p is below 0.05 and it has five seeds; fewer are descriptive. FOLDER keeps the
result of every run: rerun the command to continue; results of other data, runs or options raise an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import make_parser, run_benchmark
from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.evaluation.jackknife import LEVEL
from emotion_tf.evaluation.seeds import MIN_SEEDS
from emotion_tf.evaluation.significance import Difference, crossed_difference, format_bounds, format_p, holm
from emotion_tf.progress import track
from emotion_tf.quiet import start_tensorflow

SHARE = 0.5
"""Share of the utterances whose faces are removed."""


@dataclass(frozen=True)
class Variant:
    """A change to the baseline.

    Attributes:
        kind: the part that changes, as `--only` names it.
        name: the variant.
        changes: option -> value.
        expected: sign of the difference that `source` published; 0: no source.
        source: the paper.
        mismatched: whether the variant trains on the data set of `--mismatched`.
    """

    kind: str
    name: str
    changes: Mapping[str, Any]
    expected: int = 0
    source: str = ""
    mismatched: bool = False


BASELINE = Variant("", "baseline", {})
VARIANTS = (
    Variant("fusion", "sum", {"fusion.kind": "sum"}),
    Variant("fusion", "weighted", {"fusion.kind": "weighted"}, +1, "Snoek 2005: late above early"),
    Variant("fusion", "gated", {"fusion.kind": "gated"}, +1, "Arevalo 2017"),
    Variant("fusion", "lowrank", {"fusion.kind": "lowrank"}, +1, "Liu 2018"),
    Variant("fusion", "cross_attention", {"fusion.kind": "cross_attention"}, +1, "Tsai 2019"),
    Variant("loss", "focal", {"train.loss": "focal"}),
    Variant("loss", "smoothing 0.1", {"train.label_smoothing": 0.1}, +1, "Szegedy 2016"),
    Variant("loss", "class weights", {"train.class_weights": "balanced"}, -1, "conv-emotion#23, on MELD"),
    Variant("loss", "logit adjustment 1", {"train.logit_adjustment": 1.0}, -1, "Menon 2021: for balanced error alone"),
    Variant("loss", "tower losses 0.3", {"train.auxiliary_weight": 0.3}),
    Variant("pooling", "cls", {"text.pooling": "cls"}, -1, "Reimers 2019, table 6"),
    Variant("pooling", "max", {"text.pooling": "max"}, -1, "Reimers 2019, table 6"),
    Variant("pooling", "attention", {"text.pooling": "attention"}, +1, "Yang 2016"),
    Variant("pooling", "gru", {"text.pooling": "gru"}),
    Variant("modality dropout", "0.15", {"fusion.modality_dropout": 0.15}),
    Variant("modality dropout", "0.3", {"fusion.modality_dropout": 0.3}),
    *(
        Variant("dropout by fusion", f"{kind}, {share:g}", {"fusion.kind": kind, "fusion.modality_dropout": share})
        for kind, shares in {
            "concat": (0.5,),
            "lowrank": (0.0, 0.3, 0.5, 0.7),
            "weighted": (0.0, 0.3),
            "gated": (0.0, 0.3, 0.5),
            "sum": (0.0, 0.3),
        }.items()
        for share in shares
    ),
    Variant("faces", "half of another emotion", {}, -1, "by construction", mismatched=True),
)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--face-init", required=True, type=Path, help="run whose face tower is frozen")
    arguments.add_argument("--text-init", type=Path, help="run whose text tower is frozen, instead of --encoder")
    arguments.add_argument("--out", required=True, type=Path, help="folder of the results")
    arguments.add_argument("--mismatched", type=Path, help="the data set with half of the faces of another emotion")
    arguments.add_argument("--encoder", default="minilm")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--epochs", type=int, default=8)
    kinds = list(dict.fromkeys(variant.kind for variant in VARIANTS))
    arguments.add_argument("--only", nargs="*", default=[], choices=kinds, help="kinds of variants")
    return arguments


def main() -> None:
    """Trains the runs that have no result yet, then prints the table."""
    arguments = parser().parse_args()
    if arguments.seeds < 1:
        raise UserError(f"Expected `--seeds` of at least 1. Received: {arguments.seeds}.")
    start_tensorflow()
    variants = [
        variant
        for variant in (BASELINE, *VARIANTS)
        if (not variant.mismatched or arguments.mismatched)
        and (not arguments.only or variant is BASELINE or variant.kind in arguments.only)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = [(variant, seed) for variant in variants for seed in range(arguments.seeds)]
    for variant, seed in track(runs, len(runs), "ablation", "runs"):
        file = _file(arguments.out, variant, seed)
        if file.exists():
            _check_same(file, _digest(arguments, variant, seed))
        else:
            _run(arguments, variant, seed, file)
    _print(arguments, variants)


def _file(out: Path, variant: Variant, seed: int) -> Path:
    return out / f"{variant.kind}-{variant.name}-seed{seed}.npz".replace(" ", "_")


def _digest(arguments: argparse.Namespace, variant: Variant, seed: int) -> str:
    """Returns a hash of everything that a result depends on: configuration, data, initial checkpoints."""
    from emotion_tf.config import to_json
    from emotion_tf.data.dataset import Dataset

    config = _config(arguments, variant, seed)
    initial = [run / "model.keras" for run in (arguments.face_init, arguments.text_init) if run]
    parts = [to_json(config), Dataset.open(Path(config.data)).spec.data_sha256]
    return hashlib.sha256(" ".join([*parts, *map(files.sha256, initial)]).encode()).hexdigest()


def _check_same(file: Path, digest: str) -> None:
    """Raises UserError if a result was made with other data, runs or options."""
    with np.load(file, allow_pickle=False) as result:
        if json.loads(str(result["about"])).get("digest") != digest:
            raise UserError(f"{file} was made with other data, runs or options. Expected another --out for these.")


def _config(arguments: argparse.Namespace, variant: Variant, seed: int) -> Any:
    from emotion_tf import config as configuration
    from emotion_tf.config import Config, TextConfig, TrainConfig

    face = configuration.read_config(arguments.face_init / "config.json").face
    text = TextConfig(branches=("bert",), encoder=arguments.encoder, train_encoder=False)
    if arguments.text_init:
        tower = configuration.read_config(arguments.text_init / "config.json").text
        text = dataclasses.replace(tower, init=str(arguments.text_init), train_tower=False)
    config = Config(
        data=str(arguments.mismatched if variant.mismatched else arguments.data),
        text=text,
        face=dataclasses.replace(face, init=str(arguments.face_init), train_tower=False, augment=False),
        train=TrainConfig(epochs=arguments.epochs, patience=arguments.epochs, seed=seed),
    )
    for name, value in variant.changes.items():
        part, _, option = name.partition(".")
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{option: value})})
    return config


def _run(arguments: argparse.Namespace, variant: Variant, seed: int, out: Path) -> None:
    """Trains one run and writes its predictions on test, with all faces and with half of them removed."""
    import keras

    from emotion_tf.data import pipeline
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.features.boundary import connect_rest, frozen_parts, rest_inputs
    from emotion_tf.features.cache import FeatureCache
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.runs.run import Run
    from emotion_tf.training.loop import train
    from emotion_tf.training.outputs import collect_outputs, inference
    from emotion_tf.training.setup import TrainingData

    config = _config(arguments, variant, seed)
    dataset = Dataset.open(Path(config.data))
    folder = arguments.out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    run, command, silent = Run(folder), "benchmarks.ablation", lambda line: None
    splits = TrainingData.of_splits(dataset)
    state = train(config, run, splits, pretrained_files(config), command=command, say=silent)
    test = dataset.rows("test")
    parts = frozen_parts(run.model)
    if not parts:
        raise ValueError("The model has no frozen part, so no features are cached and the ablation would take hours.")
    cache = FeatureCache(parts, run.preprocessor(run.model), silent)
    inputs = rest_inputs(run.model, parts)
    infer = inference(keras.Model(inputs, connect_rest(run.model, parts, inputs)))
    preprocess = cache.preprocess.for_inputs(name for name in inputs if name not in cache.columns)
    predictions: dict[str, np.ndarray] = {}
    reduced = _without_faces(test, arguments.out / f"{dataset.path.name}-reduced")
    for name, rows in (("whole", test), ("reduced", reduced)):
        features = cache.read(rows, {path: files.sha256(Path(path)) for path in rows.paths})
        outputs = collect_outputs(infer, pipeline.eval_batches(rows, preprocess, 64, features))
        predictions |= {name: outputs.logits.argmax(axis=1), "label": outputs.label}
    dialogue = np.array([row["dialogue_id"] for row in pipeline.read_rows(test)])
    about = {"dev": state.best, "digest": _digest(arguments, variant, seed)}
    with files.new_file(out) as temporary:
        np.savez(temporary, allow_pickle=False, **predictions, dialogue=dialogue, about=json.dumps(about))
    shutil.rmtree(folder)
    keras.backend.clear_session()


def _without_faces(rows: Any, folder: Path) -> Any:
    """Writes copies of the shards in which a share of the utterances has no faces. Returns their rows."""
    import tensorflow as tf

    from emotion_tf.data.rows import Rows

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / Path(path).name for path in rows.paths]
    rng = np.random.default_rng(0)
    for source, path in zip(rows.paths, paths, strict=True):
        with files.new_file(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for record in _records(source):
                if rng.random() < SHARE:
                    record.features.feature["face_jpeg"].bytes_list.ClearField("value")
                    record.features.feature["face_mask"].int64_list.ClearField("value")
                writer.write(record.SerializeToString(deterministic=True))
    return Rows(tuple(map(str, paths)))


def _records(path: str) -> Iterator[Any]:
    import tensorflow as tf

    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        yield tf.train.Example.FromString(record)


def _print(arguments: argparse.Namespace, variants: list[Variant]) -> None:
    from emotion_tf.evaluation.metrics import weighted_f1

    results = {
        variant.name: [_load(arguments.out, variant, seed) for seed in range(arguments.seeds)] for variant in variants
    }
    baseline = results[BASELINE.name]
    label, dialogue = baseline[0]["label"], baseline[0]["dialogue"]
    for result in (result for seeds in results.values() for result in seeds):
        if not (np.array_equal(result["label"], label) and np.array_equal(result["dialogue"], dialogue)):
            raise UserError(f"{arguments.mismatched} has other utterances than {arguments.data}.")
    floor = weighted_f1(label, np.full_like(label, np.bincount(label).argmax()))
    text = arguments.text_init.name if arguments.text_init else arguments.encoder
    title = (
        f"weighted F1 on test of {arguments.data} ({len(label)} utterances, floor {floor:.4f}); frozen: {text}, faces "
        f"of {arguments.face_init.name}; seeds 0 to {arguments.seeds - 1}, {arguments.epochs} epochs, the best on dev"
    )
    removed = f"{SHARE:.0%} of faces removed"
    table = Table("part", "variant", "dev", "test", "to baseline [95 %]", "p (Holm)", removed, "loss", "", title=title)
    stacks = {name: np.stack([result["whole"] for result in runs]) for name, runs in results.items()}
    tests = dict(
        zip([name for name in stacks if name != BASELINE.name], differences(label, stacks, dialogue), strict=True)
    )
    for variant in variants:
        seeds = results[variant.name]
        predicted = {name: np.stack([result[name] for result in seeds]) for name in ("whole", "reduced")}
        scores = {name: [weighted_f1(label, y_pred) for y_pred in rows] for name, rows in predicted.items()}
        comparison = ["", "", ""]
        if variant is not BASELINE:
            test, p_value = tests[variant.name]
            bounds = f"{test.difference:+.4f} {format_bounds((test.low, test.high), '+')}"
            p_cell = format_p(p_value) if len(seeds) >= MIN_SEEDS else "-"
            comparison = [bounds, p_cell, remark(variant, test.difference, p_value, len(seeds))]
        table.add_row(
            variant.kind,
            variant.name,
            _spread([result["dev"] for result in seeds]),
            _spread(scores["whole"]),
            *comparison[:2],
            _spread(scores["reduced"]),
            _spread(np.subtract(scores["whole"], scores["reduced"])),
            comparison[2],
        )
    Console(width=200).print(table)


def differences(
    label: np.ndarray, predicted: Mapping[str, np.ndarray], dialogue: np.ndarray
) -> list[tuple[Difference, float]]:
    """Tests each variant against the baseline, over seeds and dialogues.

    Args:
        label: int (N,), true classes.
        predicted: name -> int (S, N), predicted classes of each seed; the baseline is among them.
        dialogue: (N,), dialogue of each utterance.

    Returns:
        The difference and its p-value, adjusted for their number, of each variant but the baseline.
    """
    tests = [
        crossed_difference(label, of_seeds, predicted[BASELINE.name], dialogue)[0]
        for name, of_seeds in predicted.items()
        if name != BASELINE.name
    ]
    return list(zip(tests, holm([test.two_sided for test in tests]), strict=True))


def remark(variant: Variant, difference: float, p_value: float, seeds: int) -> str:
    """Sets a difference against the published one; `p_value` is the adjusted one."""
    if not variant.expected:
        return ""
    if seeds < MIN_SEEDS:
        return f"descriptive ({variant.source})"
    sign = 0 if p_value >= LEVEL else 1 if difference > 0 else -1
    verdict = {variant.expected: "as", 0: "not different from 0, unlike"}.get(sign, "CONTRADICTS")
    return f"{verdict} {variant.source}"


def _load(out: Path, variant: Variant, seed: int) -> dict[str, Any]:
    with np.load(_file(out, variant, seed), allow_pickle=False) as result:
        arrays = {name: result[name] for name in ("label", "whole", "reduced", "dialogue")}
        return arrays | json.loads(str(result["about"]))


def _spread(values: Any) -> str:
    """Returns mean ± standard deviation."""
    values = np.asarray(values)
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


if __name__ == "__main__":
    run_benchmark(main)
