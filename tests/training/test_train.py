"""Training as the user meets it: what is left behind, resuming, freezing, early stopping."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import train_run

from emotion_tf.data import pipeline, records
from emotion_tf.errors import UserError
from emotion_tf.training.evaluate import check_data, check_tokenizer, evaluate
from emotion_tf.training.run_folder import RunFolder
from emotion_tf.training.train import Trainer


def change(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


def trainer_of(config, path, encoder=None, say=lambda line: None):
    return Trainer(config, RunFolder(path), records.read_info(Path(config.data)), encoder, say)


@pytest.fixture(scope="module")
def text_config(small_config):
    return dataclasses.replace(small_config, towers="text")


@pytest.fixture(scope="module")
def small_run(small_config, tmp_path_factory):
    """A finished run of GRU + CNN."""
    path = tmp_path_factory.mktemp("runs") / "small"
    train_run(small_config, path)
    return RunFolder(path)


def weights(trainer):
    return [np.asarray(v) for v in trainer.model.variables if "seed" not in v.path]


def test_a_run_folder_holds_what_predict_needs(small_run, dataset):
    names = {path.name for path in small_run.path.iterdir()}
    assert names >= {"config.json", "run.json", "vocab.txt", "words.txt", "model.keras", "history.csv", "logs"}
    assert "checkpoint" not in names
    assert list(pd.read_csv(small_run.history)["epoch"]) == [1, 2]
    assert small_run.labels == tuple(json.loads((dataset / "dataset_info.json").read_text())["labels"])


def test_the_word_vocabulary_is_made_from_the_training_split_alone(small_run, dataset):
    info = records.read_info(dataset)
    words = set((small_run.path / "words.txt").read_text().split("\n"))
    texts = {
        s: " ".join(r["utterance"].lower() for r in pipeline.read_rows(pipeline.split_rows(dataset, info, s)))
        for s in info["splits"]
    }
    foreign = [
        w for w in texts["test"].replace(".", "").replace(",", "").split() if w.isalpha() and w not in texts["train"]
    ]
    assert not words & set(foreign)


def test_with_context_the_speakers_are_words_too(small_run, bert_run, dataset):
    rows = pipeline.read_rows(pipeline.split_rows(dataset, records.read_info(dataset), "train"))
    names = {word for row in rows for word in row["speaker"].lower().split()} | {":"}
    alone, with_context = (set((run.path / "words.txt").read_text().split("\n")) for run in (small_run, bert_run))
    assert names <= with_context and ":" not in alone


def test_data_has_to_fit_what_the_towers_read_and_no_more(bert_run):
    spec = dataclasses.replace(bert_run.spec, tokenizer_sha256="another")
    face = SimpleNamespace(path="x", spec=bert_run.spec, config=dataclasses.replace(bert_run.config, towers="face"))
    check_data(face, Path("d"), spec)
    with pytest.raises(UserError, match="tokenizer_sha256"):
        check_data(bert_run, Path("d"), spec)
    with pytest.raises(UserError, match="face_size"):
        check_data(face, Path("d"), dataclasses.replace(spec, face_size=7))


def test_training_moved_the_vector_of_what_its_data_lacked(small_run):
    """Some demo utterances have no face; each has a text."""
    text, face = (
        np.asarray(small_run.model.get_layer(f"{name}_tower").get_layer(f"no_{name}").absent)
        for name in ("text", "face")
    )
    assert face.any() and not text.any()


def test_evaluate_reports_the_floor_and_refuses_other_data(small_run, dataset):
    info = records.read_info(dataset)
    probabilities, rows, numbers, _ = evaluate(small_run, dataset, info, "test")
    assert len(probabilities) == len(rows) == numbers["utterances"] == info["splits"]["test"]["records"]
    share = info["splits"]["test"]["per_class"]["neutral"] / len(rows)
    assert numbers["majority_floor"]["accuracy"] == pytest.approx(share)
    with pytest.raises(UserError, match="face_size is 99. Expected 32"):
        evaluate(small_run, dataset, {**info, "face_size": 99}, "test")
    with pytest.raises(UserError, match="No split 'dev2'"):
        evaluate(small_run, dataset, info, "dev2")


def test_interrupted_and_resumed_equals_uninterrupted(small_config, tmp_path, monkeypatch, eager):
    """With all that a training carries along: averages, auxiliary heads, batches in parts."""
    config = change(
        small_config, steps_per_epoch=1, batch_size=8, accumulate=2, ema=0.9, auxiliary_weight=0.3, schedule="cosine"
    )
    whole = train_run(config, tmp_path / "whole")
    cut = trainer_of(config, tmp_path / "cut")
    cut.start("pytest")
    real = Trainer._validate

    def interrupted(self):
        if self.state.epoch == 1:
            raise KeyboardInterrupt
        return real(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_validate", interrupted)
        cut.fit()
    with pytest.raises(UserError, match="continue it with --resume"):
        _ = RunFolder(tmp_path / "cut").model
    lines = []
    resumed = trainer_of(config, tmp_path / "cut", say=lines.append)
    resumed.resume()
    resumed.fit()
    assert any(line.startswith("Resumed after epoch 1") for line in lines)
    columns = ["epoch", "loss", "dev_loss", "dev_weighted_f1"]
    both = [pd.read_csv(tmp_path / name / "history.csv")[columns].to_numpy() for name in ("whole", "cut")]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-4)
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_resume_refuses_other_data(text_config, tmp_path):
    trainer = trainer_of(text_config, tmp_path / "run")
    trainer.start("pytest")
    other = trainer_of(text_config, tmp_path / "run")
    other.spec = dataclasses.replace(other.spec, data_sha256="another")
    with pytest.raises(UserError, match="trained on other data"):
        other.resume()


def test_the_kept_model_is_the_best_epoch_by_validation(text_config, tmp_path, monkeypatch, eager):
    scores = iter([0.2, 0.5, 0.3, 0.4, 0.1])
    kept = []

    def scored(self):
        kept.append(weights(self))
        return {"dev_loss": 1.0, "dev_accuracy": 0.0, "dev_weighted_f1": next(scores)}

    monkeypatch.setattr(Trainer, "_validate", scored)
    trainer = train_run(change(text_config, epochs=9, patience=3, steps_per_epoch=1), tmp_path / "run")
    assert trainer.state.epoch == 5  # three epochs without a better one
    for a, b in zip(weights(trainer), kept[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_bert_is_trained_and_train_encoder_false_leaves_it_bit_identical(bert_config, tiny_bert, tmp_path, eager):
    said, moved = {}, {}
    for train_encoder in (True, False):
        text = dataclasses.replace(bert_config.text, branches=("bert",), train_encoder=train_encoder)
        config = change(
            dataclasses.replace(bert_config, towers="text", text=text), epochs=1, steps_per_epoch=1, warmup=0.0
        )
        lines = []
        trainer = trainer_of(config, tmp_path / str(train_encoder), tiny_bert, lines.append)
        trainer.start("pytest")
        bert = trainer.model.get_layer("text_tower").get_layer("bert")
        before = [np.array(w) for w in bert.get_weights()]
        trainer.fit()
        moved[train_encoder] = sum(not np.array_equal(a, b) for a, b in zip(before, bert.get_weights(), strict=True))
        said[train_encoder] = lines[0]
    assert moved[False] == 0
    assert moved[True] > 10
    assert "(BERT: 0 in 0 variables)" in said[False]
    assert "(BERT: 0 in" not in said[True]


@pytest.mark.slow
def test_frozen_then_unfrozen(bert_config, tiny_bert, tmp_path, monkeypatch, eager):
    text = dataclasses.replace(bert_config.text, branches=("bert",))
    config = change(
        dataclasses.replace(bert_config, towers="text", text=text), epochs=2, freeze_epochs=1, steps_per_epoch=2
    )
    trainer = trainer_of(config, tmp_path / "run", tiny_bert)
    trainer.start("pytest")
    bert = trainer.model.get_layer("text_tower").get_layer("bert")
    seen = [[np.array(w) for w in bert.get_weights()]]
    real = Trainer._epoch

    def watched(self, epoch):
        line = real(self, epoch)
        seen.append([np.array(w) for w in bert.get_weights()])
        return line

    monkeypatch.setattr(Trainer, "_epoch", watched)
    trainer.fit()
    assert all(np.array_equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))


def test_erase_changes_the_pictures_that_are_trained_on(small_config, tmp_path, eager):
    losses = []
    for erase in (0.0, 1.0, 1.0):
        face = dataclasses.replace(small_config.face, erase=erase)
        config = dataclasses.replace(change(small_config, epochs=1, steps_per_epoch=1), face=face)
        path = tmp_path / str(len(losses))
        train_run(config, path)
        losses.append(pd.read_csv(path / "history.csv")["loss"][0])
    assert losses[0] != losses[1] == losses[2]


def test_a_loss_that_is_not_finite_is_said_with_the_rate(text_config, tmp_path, monkeypatch):
    trainer = trainer_of(text_config, tmp_path / "run")
    numbers = {"loss": float("nan"), "accuracy": 0.0, "dev_weighted_f1": 0.0}
    with pytest.raises(UserError, match=r"loss became nan in epoch 1.*--train\.learning-rate"):
        trainer._record(0, numbers, 1.0, 1.0)


def test_another_tokenizer_is_refused(bert_config, tiny_bert, dataset):
    spec = records.data_spec(records.read_info(dataset))
    check_tokenizer(bert_config, spec, tiny_bert)
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        check_tokenizer(bert_config, dataclasses.replace(spec, tokenizer_sha256="0"), tiny_bert)


def test_collect_keeps_the_order_of_the_records(small_run, dataset):
    from emotion_tf.training.outputs import collect, inference

    info = records.read_info(dataset)
    paths = pipeline.split_rows(dataset, info, "dev")
    model = small_run.model
    _, label, _ = collect(inference(model), pipeline.eval_batches(paths, small_run.preprocessor(model), 7))
    assert list(label) == [row["label"] for row in pipeline.read_rows(paths)]
