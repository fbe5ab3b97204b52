"""What is each part worth? `python -m benchmarks.ablation DATA --face-init RUN --out FOLDER [--mismatched DATA]`.

On the kept features of a frozen text encoder (`--text-init RUN`: of the frozen text tower of a run, which fixes its
pooling) and of the frozen face tower of a run, trains a baseline (concat,
cross-entropy, the mean of the tokens, no modality dropout) and variants that differ from it in one part, each with
several seeds; the epoch is chosen on dev. Prints weighted F1 on test, once as it is and once with the faces of half the
utterances removed (drawn once), the mean over the seeds with its deviation, and the difference of the means to the
baseline with its 95 % interval (paired bootstrap over dialogues). A difference whose interval lies on the other side of
0 than a paper's result is marked. What is done is kept in FOLDER: the same command goes on, and another one's results
are refused.
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

from benchmarks import reporting
from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.progress import track
from emotion_tf.quiet import start_tensorflow

SHARE = 0.5


@dataclass(frozen=True)
class Variant:
    """What differs from the baseline; `expected` is the sign that `source` found, 0: none was looked up."""

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


def main() -> None:
    """Trains what is not there yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--face-init", required=True, type=Path)
    parser.add_argument("--text-init", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--mismatched", type=Path)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=[], help="kinds of variants")
    arguments = parser.parse_args()
    start_tensorflow()
    variants = [
        variant
        for variant in (BASELINE, *VARIANTS)
        if (not variant.mismatched or arguments.mismatched)
        and (not arguments.only or variant is BASELINE or variant.kind in arguments.only)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = [(variant, seed) for variant in variants for seed in range(arguments.seeds)]
    for variant, seed in track(work, len(work), "ablation", "runs"):
        file = _file(arguments.out, variant, seed)
        if file.exists():
            _check_same(file, _purpose(arguments, variant, seed))
        else:
            _run(arguments, variant, seed, file)
    _print(arguments, variants)


def _file(out: Path, variant: Variant, seed: int) -> Path:
    return out / f"{variant.kind}-{variant.name}-seed{seed}.npz".replace(" ", "_")


def _purpose(arguments: argparse.Namespace, variant: Variant, seed: int) -> str:
    """A digest of all that a result depends on."""
    from emotion_tf.config import to_json
    from emotion_tf.data import records

    config = _config(arguments, variant, seed)
    inits = [one / "model.keras" for one in (arguments.face_init, arguments.text_init) if one]
    parts = [to_json(config), records.data_spec(records.read_info(Path(config.data))).data_sha256]
    return hashlib.sha256(" ".join([*parts, *map(files.sha256, inits)]).encode()).hexdigest()


def _check_same(file: Path, purpose: str) -> None:
    with np.load(file, allow_pickle=False) as found:
        if json.loads(str(found["about"])).get("purpose") != purpose:
            raise UserError(f"{file} is of other data, runs or options. Expected another --out for these.")


def _config(arguments: argparse.Namespace, variant: Variant, seed: int) -> Any:
    from emotion_tf import config as configuration
    from emotion_tf.config import Config, TextConfig, TrainConfig

    face = configuration.read_config(arguments.face_init / "config.json").face
    text = TextConfig(branches=("bert",), encoder=arguments.encoder, train_encoder=False)
    if arguments.text_init:
        known = configuration.read_config(arguments.text_init / "config.json").text
        text = dataclasses.replace(known, init=str(arguments.text_init), train_tower=False)
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
    """Trains one run and keeps its predictions of test, whole and with half of the faces gone."""
    import keras

    from emotion_tf.data import pipeline, records
    from emotion_tf.features.boundary import connect_rest, frozen_parts, rest_inputs
    from emotion_tf.features.cache import FeatureCache
    from emotion_tf.models.pretrained import pretrained_files
    from emotion_tf.runs.run import Run
    from emotion_tf.training.loop import train
    from emotion_tf.training.outputs import collect_outputs, inference
    from emotion_tf.training.setup import TrainingData

    config = _config(arguments, variant, seed)
    data = Path(config.data)
    info = records.read_info(data)
    folder = arguments.out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    run, command, say = Run(folder), "benchmarks.ablation", lambda line: None
    state = train(config, run, TrainingData.of_splits(data, info), pretrained_files(config), command=command, say=say)
    test = pipeline.split_rows(data, info, "test")
    parts = frozen_parts(run.model)
    if not parts:
        raise ValueError("No features are kept: the numbers would take hours.")
    cache = FeatureCache(parts, run.preprocessor(run.model), say)
    inputs = rest_inputs(run.model, parts)
    infer = inference(keras.Model(inputs, connect_rest(run.model, parts, inputs)))
    preprocess = cache.preprocess.reading(name for name in inputs if name not in cache.columns)
    kept = {}
    for name, rows in (("whole", test), ("without", _without_faces(test, arguments.out / f"{data.name}-without"))):
        features = cache.read(rows, {path: files.sha256(Path(path)) for path in rows.paths})
        outputs = collect_outputs(infer, pipeline.eval_batches(rows, preprocess, 64, features))
        kept |= {name: outputs.logits.argmax(axis=1), "label": outputs.label}
    known = list(pipeline.read_rows(test))
    about = {"dev": state.best, "purpose": _purpose(arguments, variant, seed)}
    with files.new_file(out) as temporary:
        np.savez(temporary, **kept, dialogue=np.array([row["dialogue_id"] for row in known]), about=json.dumps(about))
    shutil.rmtree(folder)
    keras.backend.clear_session()


def _without_faces(rows: Any, folder: Path) -> Any:
    """The same utterances with the faces of a share of them removed, as shards of their own."""
    import tensorflow as tf

    from emotion_tf.data.pipeline import Rows

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
    from emotion_tf.evaluation.significance import paired_bootstrap

    runs = {
        variant.name: [_load(arguments.out, variant, seed) for seed in range(arguments.seeds)] for variant in variants
    }
    base = runs[BASELINE.name]
    label, dialogue = base[0]["label"], base[0]["dialogue"]
    for one in (one for found in runs.values() for one in found):
        if not (np.array_equal(one["label"], label) and np.array_equal(one["dialogue"], dialogue)):
            raise UserError(f"{arguments.mismatched} has other utterances than {arguments.data}.")
    floor = weighted_f1(label, np.full_like(label, np.bincount(label).argmax()))
    text = arguments.text_init.name if arguments.text_init else arguments.encoder
    title = (
        f"weighted F1 on test of {arguments.data} ({len(label)} utterances, floor {floor:.4f}), {text} frozen, faces "
        f"of {arguments.face_init.name}; seeds 0 to {arguments.seeds - 1}, {arguments.epochs} epochs, the best on dev"
    )
    table = Table(
        "part",
        "variant",
        "dev",
        "test",
        "to baseline [95 %]",
        "p",
        f"{SHARE:.0%} of faces gone",
        "loss",
        "",
        title=title,
    )
    for variant in variants:
        found = runs[variant.name]
        columns = {name: np.stack([one[name] for one in found]) for name in ("whole", "without")}
        scores = {name: [weighted_f1(label, one) for one in rows] for name, rows in columns.items()}
        difference = paired_bootstrap(label, columns["whole"], np.stack([one["whole"] for one in base]), dialogue)
        against, remark = "", ""
        if variant is not BASELINE:
            against = f"{difference.difference:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            remark = _remark(variant, difference)
        loss = np.subtract(scores["whole"], scores["without"])
        table.add_row(
            variant.kind,
            variant.name,
            _spread([one["dev"] for one in found]),
            _spread(scores["whole"]),
            against,
            f"{difference.two_sided:.4f}" if against else "",
            _spread(scores["without"]),
            _spread(loss),
            remark,
        )
    Console(width=200).print(table)


def _remark(variant: Variant, difference: Any) -> str:
    if not variant.expected:
        return ""
    sign = 1 if difference.low > 0 else -1 if difference.high < 0 else 0
    verdict = {variant.expected: "as", 0: "not told apart from 0, unlike"}.get(sign, "CONTRADICTS")
    return f"{verdict} {variant.source}"


def _load(out: Path, variant: Variant, seed: int) -> dict[str, Any]:
    with np.load(_file(out, variant, seed), allow_pickle=False) as found:
        return {name: found[name] for name in ("label", "whole", "without", "dialogue")} | json.loads(
            str(found["about"])
        )


def _spread(values: Any) -> str:
    values = np.asarray(values)
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


if __name__ == "__main__":
    reporting(main)
