"""A run on a split: which data it takes, and what is reported."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from emotion_tf import config as configuration
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import fit_calibration, read_calibration
from emotion_tf.runs.run import Run
from emotion_tf.training.evaluate import calibrate, check_data, check_tokenizer, evaluate


def test_data_must_fit_only_what_the_towers_read(bert_run):
    spec = dataclasses.replace(bert_run.spec, tokenizer_sha256="another")
    face = SimpleNamespace(path="x", spec=bert_run.spec, config=dataclasses.replace(bert_run.config, towers=("face",)))
    data = SimpleNamespace(path="d", spec=spec, context=spec.context)
    check_data(face, data)
    with pytest.raises(UserError, match="tokenizer_sha256"):
        check_data(bert_run, data)
    data.spec = dataclasses.replace(spec, face_size=7)
    with pytest.raises(UserError, match="face_size"):
        check_data(face, data)


@pytest.fixture(scope="module")
def of_dev(bert_run, dataset):
    """The evaluation of a run on dev."""
    return evaluate(bert_run, Dataset.open(dataset), "dev")


def test_evaluate_reports_the_floor_and_refuses_other_data(bert_run, dataset, eager):
    data = Dataset.open(dataset)
    probabilities, records, numbers, outputs, dialogue = evaluate(bert_run, data, "test")
    rows = list(pipeline.read_rows(records))
    assert len(probabilities) == len(rows) == numbers["utterances"] == data.splits["test"].records
    assert [row["label"] for row in rows] == outputs.label.tolist()
    names = np.array([row["dialogue_id"] for row in rows])
    assert dialogue.tolist() == np.unique(names, return_inverse=True)[1].tolist()
    share = data.splits["test"].per_class["neutral"] / len(rows)
    assert numbers["majority_floor"]["accuracy"] == pytest.approx(share)
    with pytest.raises(UserError, match="face_size is 99. Expected 32"):
        evaluate(bert_run, dataclasses.replace(data, face_size=99), "test")
    with pytest.raises(UserError, match="No split 'dev2'"):
        evaluate(bert_run, data, "dev2")


def test_each_pattern_is_divided_by_its_temperature(of_dev):
    """The run's temperatures: 2 with text alone, 0.5 with both, 3 for what is left."""
    probabilities, _, numbers, outputs, _ = of_dev
    assert set(outputs.pattern) == {1, 3}
    logits = outputs.logits / np.where(outputs.pattern == 1, 2.0, 0.5)[:, None]
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, exponents / exponents.sum(axis=1, keepdims=True), atol=1e-6)
    assert numbers["calibration"]["temperatures"]["text only"] == 2.0


def test_calibration_is_written_into_the_folder(bert_run, of_dev, dataset, tmp_path, eager, monkeypatch):
    model, dev = bert_run.model, Dataset.open(dataset).rows("dev")
    preprocess = bert_run.preprocessor(model)
    for name in ("run.json", "config.json"):
        shutil.copy(bert_run.path / name, tmp_path)
    calibration, outputs = calibrate(Run(tmp_path), model, preprocess, dev), of_dev.outputs
    dialogue = np.array([row["dialogue_id"] for row in pipeline.read_rows(dev)])
    expected = fit_calibration(outputs, dialogue)
    assert read_calibration(tmp_path).utterances == calibration.utterances == len(outputs.label)
    assert calibration.dialogues == expected.dialogues == len(set(dialogue))
    np.testing.assert_allclose(calibration.temperatures.values, expected.temperatures.values, rtol=1e-3)
    assert calibration.temperatures.biases == ()

    adjusted = dataclasses.replace(bert_run.config.train, logit_adjustment=0.5)
    config = dataclasses.replace(bert_run.config, train=adjusted)
    (tmp_path / "config.json").write_text(configuration.to_json(config))
    monkeypatch.setattr("emotion_tf.training.evaluate.collect_outputs", lambda *_: outputs)
    biases = calibrate(Run(tmp_path), model, preprocess, dev).temperatures.biases
    counts = np.bincount([row["label"] for row in pipeline.read_rows(Dataset.open(dataset).rows("train"))], minlength=7)
    np.testing.assert_allclose(biases, 0.5 * np.log(counts / counts.sum()), rtol=1e-6)
    run_of_less = Run(tmp_path)
    info = run_of_less.info
    less = dataclasses.replace(info, labels=info.labels[:6], class_counts=info.class_counts[:6])
    vars(run_of_less).update(info=less, spec=less.spec)
    with pytest.raises(UserError, match="Invalid biases. Expected 6, one for each class. Received: 7"):
        _ = run_of_less.calibration


def test_another_tokenizer_is_refused(bert_config, tiny_bert, dataset):
    spec = Dataset.open(dataset).spec
    check_tokenizer(bert_config, spec, tiny_bert)
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        check_tokenizer(bert_config, dataclasses.replace(spec, tokenizer_sha256="0"), tiny_bert)
