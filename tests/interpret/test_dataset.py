"""Utterances of a data set as the scorer reads them, and the selection of those to explain."""

import numpy as np
import pytest

from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.interpret.batch import Scorer
from emotion_tf.interpret.dataset import HIT, MISTAKE, UNDECIDED, read_utterances, select_utterances
from emotion_tf.training.evaluate import evaluate


def test_explanation_and_evaluation_read_the_same(untrained_bert, dataset):
    data = Dataset.open(dataset)
    scorer = Scorer(untrained_bert)
    rows = read_utterances(scorer, data.rows("dev"))
    results = evaluate(untrained_bert, data, "dev")
    np.testing.assert_allclose(scorer.logits(rows), results.outputs.logits, atol=1e-5)
    predicted, probabilities = scorer.predict(rows)
    np.testing.assert_allclose(probabilities, results.probabilities, atol=1e-5)
    assert predicted.tolist() == results.outputs.predicted.tolist()
    expected = list(pipeline.read_rows(results.rows))
    assert [utterance.label for utterance in rows] == [row["label"] for row in expected]
    assert [utterance.id for utterance in rows] == [f"{row['dialogue_id']}/{row['utterance_id']}" for row in expected]
    assert max(len(utterance.context) for utterance in rows) == 2 and scorer.modalities == ("text", "face", "context")


def test_the_selection_by_hand():
    probabilities = np.array(
        [[0.9, 0.1], [0.2, 0.8], [0.52, 0.48], [0.99, 0.01], [0.95, 0.05], [0.3, 0.7], [0.45, 0.55], [0.97, 0.03]]
    )
    label = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    assert select_utterances(probabilities.argmax(axis=1), probabilities, label, 6) == [
        (0, MISTAKE), (5, MISTAKE), (2, UNDECIDED), (6, UNDECIDED), (3, HIT), (1, HIT)
    ]  # fmt: skip
    assert select_utterances(probabilities.argmax(axis=1), probabilities, label, 1) == [(0, MISTAKE)]
    assert select_utterances(probabilities.argmax(axis=1), probabilities, label, 0) == []
    assert len(select_utterances(probabilities.argmax(axis=1), probabilities, label, 50)) == 8


@pytest.mark.parametrize("k", [2, 5])
def test_without_mistakes_the_others_fill_the_selection(k):
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.95, 0.05]])
    selected = select_utterances(probabilities.argmax(axis=1), probabilities, np.zeros(5, int), k)
    assert len(selected) == k and {reason for _, reason in selected} <= {UNDECIDED, HIT}
