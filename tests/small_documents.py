"""A valid document of each kind that is read: functions that write and read it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from helpers import ensemble_info, run_info

from emotion_tf import config, documents
from emotion_tf.errors import UserError
from emotion_tf.evaluation import results, vote
from emotion_tf.evaluation.calibration import Calibration, Temperatures, read_calibration, write_calibration
from emotion_tf.evaluation.selective import Threshold
from emotion_tf.run_info import read_run_info

LABELS = ("joy", "fear", "anger")
SCORES = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3.0}
METRICS = {
    "utterances": 9, "accuracy": 0.5, "weighted_f1": 0.5, "macro_f1": 0.5, "data": "d", "command": "c",
    "majority_floor": {"label": "joy", "accuracy": 0.5, "weighted_f1": 0.5},
    "per_class": {label: SCORES for label in LABELS}, "intervals": {"accuracy": [0.25, 0.75], "macro_f1": None},
}  # fmt: skip


def stacking():
    zeros = ((0.0,) * 3,) * 3
    return vote.Vote("stacking", coefficients=(zeros, zeros), bias=(0.0,) * 3, strength=1.0)


def calibration():
    own = {"text only": 2.0}
    return Calibration(Temperatures(1.5, own, {"all": (9, 3)}, (0.5, 0.0, 0.0)), (Threshold(0.8, 0.5, 0.4, 0.9),), 9, 3)


@dataclass(frozen=True)
class Document:
    """A kind of document.

    Attributes:
        file: its file in a folder; a document that is no file of its own gets one here.
        write: writes a valid document to a path.
        read: reads the document at a path, by the function of the project that does.
        source: how messages begin; `{path}` stands for the path. Empty: the reader gives no reason.
        is_answer: whether it is a server's answer, in which a key may occur twice.
    """

    file: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    source: str = "{path}: "
    is_answer: bool = False


def write_json(values):
    return lambda path: path.write_text(json.dumps(values))


def text_of(path):
    return path.read_text("utf-8", "surrogateescape")


def write_dataset_info(path):
    from emotion_tf import schema
    from emotion_tf.data import dataset

    shard = dataset.Shard("train-00000-of-00001.tfrecord", 3, 99, "0" * 64)
    split = dataset.Split(3, 1, 2, dict.fromkeys(LABELS, 1), (shard,))
    info = dataset.DatasetInfo(
        schema_version=schema.SCHEMA_VERSION, labels=LABELS, face_size=32, max_faces=1, context=1,
        tokenizer=dataset.Tokenizer("learned", True, "0" * 64), splits={"train": split}, faces={"rate": 8.0},
        account={"rows": {"train": {"used": 3}}}, demo={"seed": 0}, notes=("A remark.",),
    )  # fmt: skip
    path.write_text(documents.to_json(info))


def read_dataset_info(path):
    from emotion_tf.data.dataset import Dataset

    return Dataset.open(path.parent)


def read_note(path):
    from emotion_tf.data.partial import PartialDataset

    return PartialDataset(path.parent, ())._read_note(path)


def write_crossval(path):
    from emotion_tf.training.cross_validate import CrossValidationInfo

    path.write_text(documents.to_json(CrossValidationInfo(3, 1, "0" * 64, "crossval")))
    (path.parent / "config.json").write_text(config.to_json(config.Config()))


def read_crossval(path):
    from emotion_tf.training.cross_validate import CrossValidation, CrossValidationInfo

    validation = CrossValidation(config.Config(), path.parent, None, None, print)
    validation._check_same(CrossValidationInfo(3, 1, "0" * 64, "crossval"))


def read_checkpoint(path):
    import numpy as np

    from emotion_tf.training.checkpoint import Checkpoints

    np.savez(path.with_name("about"), about=text_of(path))
    return Checkpoints(path.parent, ())._read_about("about.npz")


def write_facts(path):
    from emotion_tf.runs.facts import ExportFacts

    facts = ExportFacts(
        name="x", labels=LABELS, face_size=32, max_faces=1, context=0, speaker=False, most_text_bytes=9,
        model_sha256="0" * 64,
    )  # fmt: skip
    path.write_text(documents.to_json(facts))


def read_facts(path):
    from emotion_tf.runs.facts import read_exported

    return read_exported(path.parent.parent)


def read_answers(path):
    from emotion_tf.serving import answers

    content, out = path.read_bytes(), path.with_name("out.csv")
    path.with_suffix("").touch()
    answers._kept(path.with_suffix(""), path)
    with answers.open_answers(out, "model", lambda count: []):
        pass
    path.write_bytes(content)  # the finished file needs it no more


def read_state(path):
    from emotion_tf import remote_folders

    with mock.patch.dict(os.environ, EMOTION_TF_CACHE=str(path.parents[2])):
        return remote_folders._find_state(path.parent / "mine")


def find_stored(path):
    from emotion_tf import remote_folders

    return remote_folders._find_stored(path)


class Session:
    """Stands in for `requests.Session`: every answer has these bytes."""

    status_code = 200

    def __init__(self, content):
        self.raw, self.file = self, io.BytesIO(content)
        self.post = self.get = lambda *_, **__: contextlib.nullcontext(self)

    def read1(self, size, decode_content):
        return self.file.read1(size)


def ask(path):
    """Returns a REST client whose server answers with the content of a file."""
    from emotion_tf.serving.transport import Rest, Server

    client = Rest(Server("http://x:1", "x", 9.0))
    client._session = Session(path.read_bytes())
    return client


def read_status(path):
    if not ask(path).is_ready():
        raise UserError("The model is not ready.")


def search_plan():
    from tuning.plan import Plan

    return Plan(config.Config(), ("fusion.kind",), (), "random", 0, "0" * 64, 3, "tune")


def read_search(path):
    from tuning.arguments import read_plan

    return read_plan(path.parent)


def read_sent_plan(path):
    from tuning.plan import from_json

    return from_json(text_of(path))


def search_state(path):
    from tuning import oracle

    return oracle.build("random", lambda space: space.Choice("kind", ["a", "b"]), 3, 4, 0, path, "plan")


def read_report(path):
    from tuning.oracle import parse_report

    return parse_report(text_of(path))


REPORT = {"score": 0.5, "epochs": 3, "seconds": 1.5, "error": "", "folds": [], "died": False, "worker": "w0"}
DOCUMENTS = {
    "run": Document(
        "run.json",
        lambda path: path.write_text(run_info(LABELS, absent_shares={"text": 0.5}, crops={"rate": 8.0})),
        lambda path: read_run_info(path.parent),
    ),
    "config": Document(
        "config.json", lambda path: path.write_text(config.to_json(config.Config())), config.read_config
    ),
    "calibration": Document(
        "calibration.json",
        lambda path: write_calibration(path.parent, calibration()),
        lambda path: read_calibration(path.parent),
    ),
    "ensemble": Document(
        "ensemble.json",
        lambda path: path.write_text(ensemble_info(LABELS, "ab")),
        lambda path: vote.read_ensemble_info(path.parent),
    ),
    "metrics": Document("metrics.json", write_json({"test": METRICS}), lambda path: results.read_metrics(path.parent)),
    "splits": Document("metrics.json", write_json({"test": METRICS}), results.read_splits),
    "cross-validated metrics": Document(
        "metrics.json",
        write_json({"pooled": [METRICS], "command": "c", "data": "d", "folds": []}),
        lambda path: results.read_cross_validation(path.parent),
    ),
    "data set": Document("dataset_info.json", write_dataset_info, read_dataset_info),
    "note": Document(
        "note.json",
        write_json(
            {
                "bytes": 99,
                "sha256": "0" * 64,
                "with_face": 1,
                "max_faces": 1,
                "problems": [["", ""], ["no face", "a.jpg"]],
            }
        ),
        read_note,
    ),
    "cross-validation": Document("crossval.json", write_crossval, read_crossval),
    "checkpoint": Document(
        "about.json",
        write_json({"epoch": 1, "best": 0.5, "best_epoch": 0, "seconds": 1.5, "base": None}),
        read_checkpoint,
        "{path.parent}/about.npz: ",
    ),
    "export": Document("export/assets.extra/model.json", write_facts, read_facts),
    "search": Document("search.json", lambda path: path.write_text(search_plan().to_json()), read_search),
    "sent plan": Document(
        "sent.json", lambda path: path.write_text(search_plan().to_json()), read_sent_plan, "The chief's search: "
    ),
    "state of a search": Document(
        "oracle.json", lambda path: search_state(path).save(), lambda path: search_state(path).reload()
    ),
    "report": Document("report.json", write_json(REPORT), read_report, "The report of a worker: "),
    "answer": Document(
        "answer.json",
        write_json({"outputs": {"logits": [[0.0, 1.0]]}}),
        lambda path: ask(path)._call_once("serve_full", {}, 9.0),
        "http://x:1 rejected the request (200: http://x:1: ",
        is_answer=True,
    ),
    "status": Document(
        "status.json",
        write_json({"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {}}]}),
        read_status,
        source="",
        is_answer=True,
    ),
    "answers to a table": Document(
        ".out.csv.partial.json",
        write_json({"model": "0" * 64, "table": "0" * 64, "rows": 2, "unread": 0, "bytes": 9}),
        read_answers,
    ),
    "copy of a run": Document(
        "runs/0/state.json",
        write_json({"url": "s3://b/mine", "files": {"run.json": {"bytes": 9, "time": 1, "version": "1"}}}),
        read_state,
    ),
    "files of a data set in a store": Document(
        "prepared/0/stored.json",
        write_json({"files": {"vocab.txt": {"sha256": "0" * 64, "version": "1"}}}),
        find_stored,
    ),
}
