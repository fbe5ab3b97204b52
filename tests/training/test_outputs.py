"""A model's outputs on a data set: in its order, with the modalities that each utterance has."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.models.two_tower import presence_pattern
from emotion_tf.runs.run import Run
from emotion_tf.training.outputs import collect_outputs, inference, input_spec

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def dev(dataset):
    return Dataset.open(dataset).rows("dev")


@pytest.fixture(scope="module")
def outputs(bert_run, dataset):
    """Outputs of a model on dev in small batches, of similar length."""
    model = bert_run.model
    batches = pipeline.sorted_batches(Dataset.open(dataset).rows("dev"), bert_run.preprocessor(model), 7)
    return collect_outputs(inference(model), batches)


def test_outputs_are_in_the_order_of_the_records(bert_run, outputs, dev):
    model = bert_run.model
    preprocess = bert_run.preprocessor(model)
    rows = list(pipeline.read_rows(dev))
    assert outputs.label.tolist() == [row["label"] for row in rows]
    assert outputs.weight.tolist() == [row["weight"] for row in rows]
    inputs, _, _ = next(iter(pipeline.eval_batches(dev, preprocess, len(rows))))
    np.testing.assert_allclose(outputs.logits, model(inputs)["logits"], atol=1e-5)


def test_the_pattern_is_the_presence_of_the_inputs(outputs, dev):
    rows = list(pipeline.read_rows(dev))
    assert [bool(p & 2) for p in outputs.pattern] == [row["faces"] > 0 for row in rows]
    assert 0 < np.sum(outputs.pattern == 1) < len(rows)


def test_an_empty_text_without_context_is_absent(untrained):
    run = Run(untrained)
    model = run.model
    silent = run.preprocessor(model)({"utterance": tf.constant(["", "  ", "yes"])})
    assert presence_pattern(model(silent)).numpy().tolist() == [0, 0, 1]


def test_one_tower_has_its_own_bit(initialised, small_config, dev):
    run = initialised(dataclasses.replace(small_config, towers=("face",)))
    model = run.model
    assert set(input_spec(model)) == {"faces", "face_mask"}
    data = pipeline.eval_batches(dev, run.preprocessor(model), 16)
    faces = [row["faces"] > 0 for row in pipeline.read_rows(dev)]
    assert collect_outputs(inference(model), data).pattern.tolist() == [2 * has_face for has_face in faces]
