"""What is read of a data set, and which utterances are interesting."""

import numpy as np
import pytest

from emotion_tf.data.dataset import Dataset
from emotion_tf.interpret.batch import Scorer
from emotion_tf.interpret.dataset import HIT, MISTAKE, TORN, interesting, read_utterances
from emotion_tf.training.evaluate import evaluate


def test_what_is_explained_is_what_is_evaluated(untrained_bert, dataset):
    data = Dataset.open(dataset)
    scorer = Scorer(untrained_bert)
    rows = read_utterances(scorer, data.rows("dev"))
    found = evaluate(untrained_bert, data, "dev")
    np.testing.assert_allclose(scorer.logits(rows), found.outputs.logits, atol=1e-5)
    np.testing.assert_allclose(scorer.probabilities(rows), found.probabilities, atol=1e-5)
    known = found.rows
    assert [one.label for one in rows] == [row["label"] for row in known]
    assert [one.id for one in rows] == [f"{row['dialogue_id']}/{row['utterance_id']}" for row in known]
    assert max(len(one.context) for one in rows) == 2 and scorer.modalities == ("text", "face", "context")


def test_the_most_interesting_by_hand():
    probabilities = np.array(
        [[0.9, 0.1], [0.2, 0.8], [0.52, 0.48], [0.99, 0.01], [0.95, 0.05], [0.3, 0.7], [0.45, 0.55], [0.97, 0.03]]
    )
    label = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    assert interesting(probabilities, label, 6) == [
        (0, MISTAKE), (5, MISTAKE), (2, TORN), (6, TORN), (3, HIT), (1, HIT)
    ]  # fmt: skip
    assert interesting(probabilities, label, 1) == [(0, MISTAKE)]
    assert interesting(probabilities, label, 0) == []
    assert len(interesting(probabilities, label, 50)) == 8


@pytest.mark.parametrize("k", [2, 5])
def test_without_mistakes_the_others_fill_their_place(k):
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.95, 0.05]])
    found = interesting(probabilities, np.zeros(5, int), k)
    assert len(found) == k and {why for _, why in found} <= {TORN, HIT}
