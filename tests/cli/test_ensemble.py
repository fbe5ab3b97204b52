"""`ensemble` on the command line: fitting, errors, predictions and exports."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

import emotion_tf
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.evaluation import votes
from emotion_tf.evaluation.metrics import metrics, weighted_f1
from emotion_tf.evaluation.report import write_metrics, write_predictions
from emotion_tf.evaluation.vote import METHODS, Vote
from emotion_tf.labels import MELD_EMOTIONS as LABELS
from emotion_tf.runs.export import unoptimized

TEXTS = ["Yes, no!", "I did not expect that.", "", "Well."]
CONTEXT = [["", "Ilka: No."], ["Tavo: Yes.", "Ilka: Why?"], ["", ""], ["", ""]]


@pytest.fixture(autouse=True)
def fewer_fits(monkeypatch):
    monkeypatch.setattr(votes, "FOLDS", 3)
    monkeypatch.setattr(votes, "STRENGTHS", (0.1, 1.0))


@pytest.fixture(scope="module")
def predicted(dataset):
    """Rows of dev and test with the predictions of three simulated models; the third is uninformative."""
    by_split, rng = {}, np.random.default_rng(0)
    for split in ("dev", "test"):
        rows = list(pipeline.read_rows(Dataset.open(dataset).rows(split)))
        label = np.array([row["label"] for row in rows])
        logits = rng.normal(0, 1, (3, len(rows), len(LABELS)))
        logits += np.array([2.2, 2.0, 0])[:, None, None] * np.eye(len(LABELS))[label]
        by_split[split] = rows, label, np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return by_split


@pytest.fixture
def evaluated(predicted, dataset, tmp_path):
    """Copies runs, each with the files that `evaluate` writes."""

    def copies(*sources):
        paths = [tmp_path / "saved_models" / f"run{i}" for i in range(len(sources))]
        for i, (source, path) in enumerate(zip(sources, paths, strict=True)):
            shutil.copytree(source, path)
            for split, (rows, label, p) in predicted.items():
                numbers = {
                    **metrics(label, p[i].argmax(axis=1), p[i], LABELS, 0),
                    "command": "pytest",
                    "data": str(dataset),
                    "seed": 0,
                }
                write_metrics(path / "metrics.json", split, numbers)
                write_predictions(path / f"predictions_{split}.csv", rows, LABELS, p[i].argmax(axis=1), p[i])
        return paths

    return copies


@pytest.fixture
def members(untrained, untrained_text, evaluated):
    """Two runs: text and face, and text alone with context."""
    return evaluated(untrained, untrained_text)


def about(path) -> dict:
    return json.loads((path / "ensemble.json").read_text())


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_members_and_methods_are_compared(members, predicted, tmp_path, succeed):
    out = tmp_path / "saved_models" / "voted"
    printed = succeed("ensemble", *members, "--name", "voted")
    for part in ("run0", "run1", "voted: soft", "voted: weighted", "voted: stacking", "p (Holm)", "always", str(out)):
        assert part in printed
    about_ensemble = about(out)
    scores = {name: one["weighted_f1"] for name, one in about_ensemble["cross_validated"].items()}
    assert about_ensemble["vote"]["method"] == max(METHODS, key=lambda name: scores[name])
    assert [one["path"] for one in about_ensemble["members"]] == ["../run0", "../run1"]
    assert about_ensemble["command"] and about_ensemble["data"] and about_ensemble["fitted_on"]["predictions"] == "dev"
    vote = Vote(**about_ensemble["vote"])
    numbers = json.loads((out / "metrics.json").read_text())
    for split, (_, label, p) in predicted.items():
        table = pd.read_csv(out / f"predictions_{split}.csv")
        assert list(table.columns) == list(pd.read_csv(members[0] / f"predictions_{split}.csv").columns)
        combined = table[[f"p_{name}" for name in LABELS]].to_numpy()
        assert numbers[split]["weighted_f1"] == pytest.approx(weighted_f1(label, combined.argmax(axis=1)))
        assert numbers[split]["majority_floor"]["label"] == LABELS[0]
        if split == "test":
            np.testing.assert_allclose(combined, vote.combine(p[:2]), atol=1e-5)
        assert (out / f"confusion_{split}.png").stat().st_size
    assert numbers["test"]["seed"] == [0, 0] and "ensemble" in numbers["test"]["command"]
    # on dev, the vote's results come from cross-validation over dialogues
    assert numbers["dev"]["weighted_f1"] == pytest.approx(scores[about_ensemble["vote"]["method"]])
    card = (out / "MODEL_CARD.md").read_text()
    assert "Member run1, seed 0" in card and "cross-validation over dialogues" in card
    assert f"{numbers['test']['accuracy']:.3f} | [" in card
    assert re.search("vote of.* run0,.* run1", succeed("runs"), re.DOTALL)  # a cell may be folded
    assert "ensemble.method" in succeed("compare", out, *members)


def test_test_is_read_after_everything_is_fitted(members, tmp_path, succeed):
    """The votes do not depend on the test split."""
    votes_of = []
    for name in ("with", "other", "without"):
        if name == "other":
            for path in members:
                table = pd.read_csv(path / "predictions_test.csv", dtype=str, keep_default_na=False)
                table.assign(emotion="fear").to_csv(path / "predictions_test.csv", index=False)
        if name == "without":
            (members[1] / "predictions_test.csv").unlink()
        printed = succeed("ensemble", *members, "--name", name)
        values = about(tmp_path / "saved_models" / name)
        votes_of.append([values["vote"], values["cross_validated"], values["selected_by"]])
    assert votes_of[0] == votes_of[1] == votes_of[2]
    assert f"evaluate {members[1]} --split test" in printed and "On dev" in printed
    assert not (tmp_path / "saved_models" / "without" / "predictions_test.csv").exists()


def test_out_of_fold_predictions_instead_of_dev(members, predicted, tmp_path, succeed, fault):
    rows, _, p = predicted["test"]  # other utterances than those of dev, as if from train
    for i, path in enumerate(members):
        write_predictions(
            path / "oof.csv", rows, LABELS, p[2 - 2 * i].argmax(axis=1), p[2 - 2 * i]
        )  # the first is uninformative
    files = [path / "oof.csv" for path in members]
    printed = succeed("ensemble", *members, "--name", "oof", "--method", "weighted", "--weights-from", *files)
    out = tmp_path / "saved_models" / "oof"
    about_ensemble = about(out)
    assert about_ensemble["vote"]["weights"][0] < 0.1 and about_ensemble["fitted_on"]["utterances"] == len(rows)
    assert str(files[0]) in about_ensemble["fitted_on"]["predictions"] and str(files[0]) in printed
    combined = pd.read_csv(out / "predictions_dev.csv")[[f"p_{name}" for name in LABELS]].to_numpy()
    np.testing.assert_allclose(combined, Vote(**about_ensemble["vote"]).combine(predicted["dev"][2][:2]), atol=1e-5)

    words = ("ensemble", *members, "--name", "x", "--weights-from")
    assert "a file for each of the 2 runs" in fault(*words, files[0])
    assert "a file for each of the 2 runs" in fault(*words, files[0], files[0])
    assert "A vote cannot be fitted on the predictions on test" in fault(
        *words, files[0], members[1] / "predictions_test.csv"
    )
    assert "predict other utterances" in fault(*words, files[0], members[1] / "predictions_dev.csv")
    assert "Cannot read the predictions" in fault(*words, files[0], members[1] / "none.csv")
    table = pd.read_csv(files[1], dtype=str)
    table.assign(weight="heavy").to_csv(files[0], index=False)
    assert "Invalid column `weight`" in fault(*words, *files)
    table.to_csv(files[0], index=False)
    table.assign(p_joy="1.5").to_csv(files[1], index=False)
    assert "Invalid probabilities in row 1" in fault(*words, *files)
    table.drop(columns="p_joy").to_csv(files[1], index=False)
    assert "Expected the columns p_neutral, p_joy" in fault(*words, *files)
    for path in files:
        table.assign(emotion="hope").to_csv(path, index=False)
    assert "Received: hope" in fault(*words, *files)
    assert not (tmp_path / "saved_models" / "x").exists()


def test_runs_that_cannot_vote_together(members, tmp_path, fault):
    a, b = members
    words = ("ensemble", a, b, "--name", "x")
    assert "two or more different runs" in fault("ensemble", a, "--name", "x")
    assert "two or more different runs" in fault("ensemble", a, a, "--name", "x")
    assert "No run at" in fault("ensemble", a, tmp_path / "none", "--name", "x")
    assert "`--name`" in fault("ensemble", a, b, "--name", "a/b")
    assert "Invalid `method`" in fault(*words, "--method", "sotf")
    assert "is no ensemble" in fault("ensemble", a, b, "--name", "run0", "--overwrite")  # a member cannot be replaced
    config = json.loads((b / "config.json").read_text())
    for name, value, said in (
        ("labels", [*reversed(LABELS)], "labels is"),
        ("data_sha256", "0" * 64, "trained on different data"),
    ):
        before = (b / "run.json").read_text()
        change(b / "run.json", **{name: value, "majority": "joy"})
        assert said in fault(*words)
        (b / "run.json").write_text(before)
    change(b / "config.json", text=config["text"] | {"speaker": True})
    assert "reads the utterance with its speaker" in fault(*words)
    change(b / "config.json", **config)
    table = pd.read_csv(b / "predictions_dev.csv", dtype=str)
    table.iloc[::-1].to_csv(b / "predictions_dev.csv", index=False)
    assert "run1 and run0 predict other utterances: row 1" in fault(*words)
    (b / "predictions_dev.csv").unlink()
    assert f"python main.py evaluate {b} --split dev" in fault(*words)
    (b / "model.keras").unlink()
    assert "no model.keras" in fault(*words)
    assert not (tmp_path / "saved_models" / "x").exists()


def test_a_name_in_use_and_a_changed_member(members, tmp_path, succeed, fault):
    words = ("ensemble", *members, "--name", "x", "--method", "soft")
    out = tmp_path / "saved_models" / "x"
    succeed(*words)
    assert "--overwrite replaces it" in fault(*words)
    assert "x is an ensemble. Expected runs" in fault("ensemble", out, members[0], "--name", "y")
    assert "is an ensemble. Expected a single run" in fault("evaluate", out)
    change(members[1] / "config.json", data="elsewhere")
    for verb in (["export"], ["predict", "--text", "Hi"]):
        message = fault(verb[0], out, *verb[1:])
        assert str(members[1]) in message and "has changed" in message
    succeed(*words, "--overwrite")
    shutil.rmtree(members[1])
    assert "does not exist" in fault("export", out)
    broken = about(out)
    broken["vote"]["temperature"] = 0
    (out / "ensemble.json").write_text(json.dumps(broken))
    assert "`vote.temperature`. Expected a number above 0.025" in fault("predict", out, "--text", "Hi")
    (out / "ensemble.json").write_text('{"members": []}')
    assert "ensemble.json: No `vote`" in fault("export", out)


@pytest.fixture
def crop(manifest_path):
    return next((manifest_path.parent / "faces").rglob("*.jpg"))


def expected(paths, vote, *given):
    """Combines the predictions of the members by the vote."""
    each = [emotion_tf.load(str(path)) for path in paths]
    return [
        vote.combine(
            np.stack([one.predict(texts, faces, said if one.reads_context else None).probabilities for one in each])
        )
        for texts, faces, said in given
    ]


def test_an_ensemble_predicts_the_vote_of_its_members(members, crop, tmp_path, succeed):
    succeed("ensemble", *members, "--name", "x", "--method", "stacking")
    texts, faces = ["No.", TEXTS[1], ""], [str(crop), "", str(crop)]
    table = {"dialogue_id": "0", "speaker": "Ilka", "utterance": texts, "faces": faces}
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "saved_models" / "x"
    succeed("predict-table", out, tmp_path / "t.csv", "--out", tmp_path / "p.csv")
    combined = pd.read_csv(tmp_path / "p.csv")[[f"p_{name}" for name in LABELS]].to_numpy()
    before = [[], ["Ilka: No."], ["Ilka: No.", f"Ilka: {TEXTS[1]}"]]
    given = [face or None for face in faces]
    said, silent = expected(members, Vote(**about(out)["vote"]), (texts, given, before), (texts, given, None))
    np.testing.assert_allclose(combined, said, atol=1e-5)
    assert (np.abs(said - silent).max(axis=1) > 1e-6).tolist() == [False, True, True]


@pytest.mark.slow
def test_the_export_returns_the_vote_in_another_program(
    untrained_text, untrained_bert, evaluated, crop, tmp_path, succeed
):
    from cpp_server import build_program, largest_differences

    members = evaluated(untrained_text, untrained_bert.path)
    # the other methods are weighted sums; `predict` and the export share the graph
    succeed("ensemble", *members, "--name", "x", "--method", "stacking")
    out = tmp_path / "saved_models" / "x"
    faces = [crop, None, crop, None]
    with unoptimized():
        said, silent = expected(members, Vote(**about(out)["vote"]), (TEXTS, faces, CONTEXT), (TEXTS, faces, None))
    assert np.abs(said - silent).max() > 1e-6 and len(np.unique(said.round(6), axis=0)) == 4
    with unoptimized():  # the program below optimises it
        assert "serving/1" in succeed("export", out)
    predictor = emotion_tf.load(str(out))
    for path in members:
        shutil.rmtree(path)  # an export contains its members
    exported, program = out / "serving" / "1", build_program(tmp_path)
    texts = np.array([text.encode() for text in TEXTS], object)
    context = np.array([[line.encode() for line in lines] for lines in CONTEXT], object)
    pictures = np.array([[crop.read_bytes() if face else b""] for face in faces], object)
    full = {"utterance": texts, "context": context, "face_jpeg": pictures}
    single = {"utterance": texts, "face_jpeg": pictures[:, 0]}
    sent = [("serve_full", full), ("serving_default", single)]
    numbers, attributions, answers = largest_differences(program, exported, predictor, tmp_path, 2, sent)
    assert numbers <= 1e-5 and attributions <= 1e-4
    for (_, outputs), probabilities in zip(answers, (said, silent), strict=True):
        np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    assert "Member run1" in (exported / "assets.extra" / "MODEL_CARD.md").read_text()
    model = json.loads((exported / "assets.extra" / "model.json").read_text())
    assert model["context"] == 2 and model["labels"] == list(LABELS)
