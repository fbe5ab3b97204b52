"""Every JSON document that is read: one edit of a valid one, and the rule that the message states."""

from __future__ import annotations

import ast
import json
import os
import sys

import pytest
from helpers import ROOT, ensemble_info, run_info
from small_documents import DOCUMENTS, LABELS, stacking

from emotion_tf import config, documents
from emotion_tf.errors import UserError
from emotion_tf.evaluation import vote
from emotion_tf.run_info import read_run_info

NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture
def document(tmp_path):
    """Function from the name of a document to its valid file and its kind."""

    def write(name):
        kind = DOCUMENTS[name]
        path = tmp_path / kind.file
        path.parent.mkdir(parents=True, exist_ok=True)
        kind.write(path)
        kind.read(path)
        return path, kind

    return write


def edit(values, field, value):
    """Sets a field, such as `splits.train.records`; the value `KeyError` removes it."""
    *parents, last = (int(key) if key.isdigit() else key for key in field.split("."))
    for key in parents:
        values = values[key]
    if value is KeyError:
        del values[last]
    else:
        values[last] = value


ROWS = [
    ("run", "labels", 3, "`labels`. Expected a list. Received: 3"),
    ("run", "labels", "abc", "`labels`. Expected a list. Received: 'abc'"),
    ("run", "labels", {"a": 1}, "`labels`. Expected a list"),
    ("run", "labels", [], "`labels`. Expected 2 or more items"),
    ("run", "labels", ["joy", 3, "x"], "`labels[1]`. Expected a text. Received: 3"),
    ("run", "labels", ["joy", "", "x"], "`labels[1]`. Expected a printable label of 1 to 100 characters"),
    ("run", "labels", ["joy", "joy", "x"], "`labels`. Expected different values"),
    ("run", "labels", ["joy", "a\nb", "x"], "`labels[1]`. Expected a printable label of 1 to 100 characters"),
    ("run", "labels", ["joy", "fear"], "`class_counts`. Expected 2, one for each label. Received: 3"),
    ("run", "labels", KeyError, "No `labels`. Expected this field"),
    ("run", "majority", "zzz", "`majority`. Expected one of the labels. Received: 'zzz'"),
    ("run", "face_size", 1_000_000, "`face_size`. Expected a number of at most 1024. Received: 1000000"),
    ("run", "face_size", 10**400, "`face_size`. Expected a number of at most 1024"),
    ("run", "face_size", -1, "`face_size`. Expected a number of at least 1. Received: -1"),
    ("run", "face_size", 0, "`face_size`. Expected a number of at least 1. Received: 0"),
    ("run", "face_size", "48", "`face_size`. Expected an integer. Received: '48'"),
    ("run", "face_size", 48.5, "`face_size`. Expected an integer. Received: 48.5"),
    ("run", "face_size", True, "`face_size`. Expected an integer. Received: True"),
    ("run", "face_size", None, "`face_size`. Expected an integer. Received: None"),
    ("run", "lower_case", "no", "`lower_case`. Expected true or false. Received: 'no'"),
    ("run", "crops", "x", "`crops`. Expected an object. Received: 'x'"),
    ("run", "crops.rate", "x", "`crops.rate`. Expected a number"),
    ("run", "crops.zoom", 2, "Unknown key `crops.zoom`"),
    ("run", "parameters", INFINITE, "`parameters`. Expected an integer. Received: inf"),
    ("run", "class_counts.1", INFINITE, "`class_counts[1]`. Expected a finite number. Received: inf"),
    ("run", "class_counts.1", -1, "`class_counts[1]`. Expected a number of at least 0"),
    ("run", "word_dim", 10**20, "`word_dim`. Expected a number of at most 100000"),
    ("run", "absent_shares.text", 2, "`absent_shares.text`. Expected a number of at most 1"),
    ("run", "absent_shares", KeyError, "No `absent_shares`"),
    ("run", "words_sha256", "x", "`words_sha256`. Expected"),
    ("run", "versions.keras", 3, "`versions.keras`. Expected a text"),
    ("run", "command", "x" * (9 << 20), "`command`. Expected at most 8388608 characters. Received: 'xxx"),
    ("run", "label", [], "Unknown key `label`. Did you mean 'labels'?"),
    ("config", "train.epochs", "3", "`train.epochs`. Expected an integer"),
    ("config", "towers", None, "`towers`. Expected a list"),
    ("calibration", "utterances", INFINITE, "`utterances`. Expected an integer. Received: inf"),
    ("calibration", "utterances", -3, "`utterances`. Expected a number of at least 0"),
    ("calibration", "dialogues", 10, "`dialogues`. Expected at most one for each of 9 utterances. Received: 10"),
    ("calibration", "confidence", 0.5, "`confidence`. Expected 0.9. Received: 0.5"),
    ("calibration", "confidence", KeyError, "No `confidence`"),
    ("calibration", "fitted_on", "test", "`fitted_on`. Expected dev. Received: 'test'"),
    ("calibration", "temperatures.pooled", 0, "`temperatures.pooled`. Expected a number above 0.025"),
    ("calibration", "temperatures.pooled", NAN, "`temperatures.pooled`. Expected a number below 40"),
    ("calibration", "temperatures.pooled", INFINITE, "`temperatures.pooled`. Expected a number below 40"),
    ("calibration", "temperatures.own", {"texts": 1.0}, "`own`. Expected only "),
    ("calibration", "temperatures.biases.0", NAN, "`temperatures.biases[0]`. Expected a finite number"),
    ("calibration", "temperatures.biases", KeyError, "No `temperatures.biases`"),
    ("calibration", "temperatures.fitted_on.all", [9], "`temperatures.fitted_on.all"),
    ("calibration", "thresholds.0.threshold", 1.5, "`thresholds[0].threshold`. Expected a number of at most 1"),
    ("calibration", "thresholds.0.precision", None, "`thresholds`. Expected a threshold with its precision"),
    ("calibration", "thresholds.0.coverage", KeyError, "No `thresholds[0].coverage`"),
    ("calibration", "thresholds", [[0.8, 0.5, 0.4, 0.9]], "No `thresholds[0].target`"),
    ("ensemble", "members", [], "`members`. Expected 1 or more items"),
    ("ensemble", "members.1", KeyError, "`weights`. Expected the shape (1,), for 1 member and 3 labels"),
    ("ensemble", "members.0.path", 3, "`members[0].path`. Expected a text. Received: 3"),
    ("ensemble", "members.0.sha256", "", "`members[0].sha256`. Expected"),
    ("ensemble", "vote.method", "median", "`method`. Expected one of: soft, weighted, stacking"),
    ("ensemble", "vote.weights", [NAN, 0.5], "`vote.weights[0]`. Expected a finite number. Received: nan"),
    ("ensemble", "vote.weights", [-0.5, 1], "`vote.weights[0]`. Expected a number of at least 0"),
    ("ensemble", "vote.weights", [1, 1], "`weights`. Expected a sum of 1. Received: 2"),
    ("ensemble", "vote.weights", [1], "`weights`. Expected the shape (2,)"),
    ("ensemble", "vote.weights", None, "`weights`. A soft vote has weights alone"),
    ("ensemble", "vote.temperature", INFINITE, "`vote.temperature`. Expected a number below 40"),
    ("ensemble", "labels", ["joy", "joy"], "`labels`. Expected different values"),
    ("ensemble", "parameters", 1.5, "`parameters`. Expected an integer"),
    ("metrics", "test", [], "`test`. Expected an object"),
    ("metrics", "test", {}, "No `test.utterances`"),
    ("metrics", "test.weighted_f1", "x", "`test.weighted_f1`. Expected a number. Received: 'x'"),
    ("metrics", "test.weighted_f1", None, "`test.weighted_f1`. Expected a number. Received: None"),
    ("metrics", "test.weighted_f1", NAN, "`test.weighted_f1`. Expected a number of at most 1"),
    ("metrics", "test.majority_floor", 3, "`test.majority_floor`. Expected an object"),
    ("metrics", "test.per_class.joy.f1", -1, "`test.per_class.joy.f1`. Expected a number of at least"),
    ("metrics", "test.intervals.accuracy", [0.5], "`test.intervals.accuracy"),
    ("data set", "labels", ["joy", "anger", "fear"], "`splits.train.per_class`. Expected a number for each of the lab"),
    ("data set", "splits.train.shards.0.file", "../x", "`splits.train.shards[0].file`. Expected the name of a file"),
    ("data set", "max_faces", 10**6, "`max_faces`. Expected a number of at most 10000"),
    ("note", "max_faces", -1, "`max_faces`. Expected a number of at least 0"),
    ("cross-validation", "folds", 1.5, "`folds`. Expected an integer"),
    ("checkpoint", "epoch", -1, "`epoch`. Expected a number of at least 0"),
    ("checkpoint", "seconds", KeyError, "No `seconds`"),
    ("export", "context", 10**9, "`context`. Expected a number of at most 10000"),
    ("export", "model_sha256", KeyError, "No `model_sha256`"),
    ("search", "trials", 0, "`--trials`. Expected a number"),
    ("sent plan", "algorithm", "grid", "`tuner.algorithm`. Expected one of: random"),
    ("report", "score", NAN, "`score`. Expected a finite number. Received: nan"),
    ("answer", "outputs.logits", 3, "`outputs.logits`. Expected a list. Received: 3"),
    ("cross-validated metrics", "pooled", [], "`pooled`. Expected 1 or more items"),
    ("cross-validated metrics", "pooled.0.accuracy", 7, "`pooled[0].accuracy`. Expected a number of at most 1"),
]


@pytest.mark.parametrize(("name", "field", "value", "message"), ROWS, ids=lambda value: str(value)[:30])
def test_an_edit_that_breaks_a_rule(name, field, value, message, document):
    path, kind = document(name)
    values = json.loads(path.read_text())
    edit(values, field, value)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        kind.read(path)
    assert str(error.value).startswith(kind.source.format(path=path)) and message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 300


CONTENTS = {
    "empty": (b"", "Expected JSON in UTF-8. Received: EOF"),
    "cut": (b'{"a": ', "Expected JSON in UTF-8. Received: EOF"),
    "deep": (b"[" * 10**5, "Expected JSON in UTF-8. Received: recursion limit"),
    "deep object": (b'{"a":' * 10**5, "Expected JSON in UTF-8. Received: recursion limit"),
    "not UTF-8": (b'{"a": "\xff"}', "Expected JSON in UTF-8. Received: invalid unicode"),
    "half a character": (rb'{"a": "\ud800"}', "Expected JSON in UTF-8. Received: "),
    "null": (b"null", "Expected an object. Received: None"),
    "number": (b"3", "Expected an object. Received: 3"),
    "list": (b"[]", "Expected an object. Received: []"),
    "long number": (b"9" * 5000, "Expected JSON in UTF-8. Received: number out of range"),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_file_that_is_no_such_document(name, content, document):
    path, kind = document(name)
    path.write_bytes(CONTENTS[content][0])
    with pytest.raises(UserError) as error:
        kind.read(path)
    message = kind.source.format(path=path) + CONTENTS[content][1] if kind.source else ""
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name, kind in DOCUMENTS.items() if not kind.is_answer])
def test_a_key_twice(name, document):
    path, kind = document(name)
    text = path.read_text()
    key = json.dumps(next(iter(json.loads(text))))
    path.write_text(text.replace("{", f"{{{key}: {json.dumps(json.loads(text)[json.loads(key)])}, ", 1))
    with pytest.raises(UserError, match=f"Invalid `{json.loads(key)}`. Expected one value. Received: 2"):
        kind.read(path)


READERS = ("read", "parse", "parse_answer")


def calls(tree):
    """Returns the functions that read documents, each as often as it does."""
    functions = []
    for function in ast.walk(tree):
        if isinstance(function, ast.ImportFrom) and function.module == "emotion_tf.documents":
            assert not {alias.name for alias in function.names} & set(READERS), "Expected `documents.read`, in full"
        if isinstance(function, ast.FunctionDef):
            inner = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
            functions += [function.name for name in inner if name in {f"documents.{reader}" for reader in READERS}]
    return functions


def test_each_function_that_reads_a_document_is_tested(document, monkeypatch):
    """A new one goes into `small_documents.DOCUMENTS`."""
    expected = []
    for path in (*(ROOT / "emotion_tf").rglob("*.py"), *(ROOT / "tuning").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        expected += [(module, name) for name in calls(ast.parse(path.read_text(encoding="utf-8")))]
    seen = set()
    for reader in READERS:
        monkeypatch.setattr(documents, reader, recorded(getattr(documents, reader), seen))
    for name in DOCUMENTS:
        document(name)
    assert sorted(expected) == sorted(seen)


def recorded(function, seen):
    """Returns a function that adds its callers of the project to `seen`."""

    def call(*args, **kwargs):
        frame = sys._getframe(1)
        if frame.f_globals["__name__"] != "emotion_tf.documents":
            seen.add((frame.f_globals["__name__"], frame.f_code.co_name))
        return function(*args, **kwargs)

    return call


def test_pipes_and_large_files_are_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(UserError, match="Not a regular file"):
        read_run_info(tmp_path)
    (tmp_path / "config.json").write_text(config.to_json(config.Config()))
    monkeypatch.setattr(documents, "MAX_BYTES", 99)
    with pytest.raises(UserError, match="More than 99 bytes"):
        config.read_config(tmp_path / "config.json")


def test_a_vote_of_stacking_has_a_matrix_for_each_member(tmp_path):
    path = tmp_path / "ensemble.json"
    path.write_text(ensemble_info(LABELS, "ab", vote=stacking()))
    assert vote.read_ensemble_info(tmp_path).vote == stacking()
    values = json.loads(path.read_text())
    for coefficients in (values["vote"]["coefficients"][:1], [[[0.0] * 3] * 2] * 2, [[[0.0], []]]):
        path.write_text(json.dumps({**values, "vote": {**values["vote"], "coefficients": coefficients}}))
        with pytest.raises(UserError, match="`coefficients`. Expected the shape"):
            vote.read_ensemble_info(tmp_path)


def test_runs_lists_what_it_can_read_and_names_what_it_cannot(tmp_path, capsys):
    from emotion_tf.cli.runs import print_runs

    for name in ("good", "deep", "null", "voted", "broken"):
        (tmp_path / name).mkdir()
        if name in ("voted", "broken"):
            DOCUMENTS["ensemble"].write(tmp_path / name / "ensemble.json")
        else:
            for document in ("run", "config", "metrics"):
                DOCUMENTS[document].write(tmp_path / name / f"{document}.json")
    (tmp_path / "deep" / "metrics.json").write_text("[" * 10**5)
    (tmp_path / "null" / "config.json").write_text("null")
    (tmp_path / "broken" / "ensemble.json").write_text('{"vote": ')
    print_runs(tmp_path)
    table, *problems = capsys.readouterr().out.split("not readable: ")
    lines = [
        line for line in table.splitlines() if any(name in line for name in ("good", "deep", "null", "oted", "oken"))
    ]
    assert [line.count("not readable") for line in lines] == [1, 1, 0, 1, 0]
    assert "0.5000" in table and "soft vote of a, b" in table
    assert [problem.split(": ")[0] for problem in problems] == [
        str(tmp_path / "broken" / "ensemble.json"),
        str(tmp_path / "deep" / "metrics.json"),
        str(tmp_path / "null" / "config.json"),
    ]


def test_a_share_with_a_rounding_error_is_a_share(tmp_path):
    shares = {"text": -2.2e-16, "face": 1 + 2.2e-16}
    (tmp_path / "run.json").write_text(run_info(LABELS, absent_shares=shares))
    assert read_run_info(tmp_path).absent_shares == shares


def test_a_document_that_could_not_be_read_is_not_written(monkeypatch):
    """A run in such a folder trained for hours, and no command opened it."""
    member = vote.Member("a", "../" + "a/" * 1000, "0" * 64, 1)
    assert documents.parse(documents.to_json(member).encode(), vote.Member, "x", "") == member
    with pytest.raises(UserError, match="could not be read: Invalid `path`. Expected at most 4096 characters"):
        documents.to_json(vote.Member("a", "a/" * 3000, "0" * 64, 1))
    with pytest.raises(UserError, match="could not be read: Invalid `seed`. Expected a number of at least 0"):
        documents.to_json(vote.Member("a", "b", "0" * 64, -1))
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="^Cannot write a document of 2,[0-9]* bytes. Expected at most 100"):
        documents.to_json(member)


def test_a_command_line_is_as_long_as_linux_takes(tmp_path):
    (tmp_path / "run.json").write_text(run_info(LABELS, command="x" * (2 << 20)))
    assert len(read_run_info(tmp_path).command) == 2 << 20
