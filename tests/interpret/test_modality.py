"""Shapley values and permutation importance."""

import itertools

import numpy as np
import pytest

from emotion_tf.data.dataset import Dataset
from emotion_tf.interpret import modality
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.interpret.dataset import read_utterances
from emotion_tf.runs.run import Run


def coalitions(players):
    return [frozenset(c) for n in range(len(players) + 1) for c in itertools.combinations(players, n)]


def test_the_glove_game_by_hand():
    """One left glove and two right ones; a pair has the value 1 (Shapley 1953): 2/3, 1/6 and 1/6."""
    value = {c: float("left" in c and len(c) > 1) for c in coalitions(("left", "right", "other"))}
    values = modality.shapley(("left", "right", "other"), value)
    assert values == pytest.approx({"left": 2 / 3, "right": 1 / 6, "other": 1 / 6})


def test_three_players_by_hand():
    value = dict(zip(coalitions("tfc"), [1.0, 3.0, 2.0, 1.5, 7.0, 4.0, 2.5, 9.0], strict=True))
    # t: [(3-1)*2 + (7-2) + (4-1.5) + (9-2.5)*2] / 6, and so on
    expected = {"t": (4 + 5 + 2.5 + 13) / 6, "f": (2 + 4 + 1 + 10) / 6, "c": (1 + 1 + 0.5 + 4) / 6}
    assert modality.shapley("tfc", value) == pytest.approx(expected)


def test_efficiency_symmetry_and_the_null_player():
    rng = np.random.default_rng(0)
    for _ in range(20):
        value = {c: float(rng.normal()) for c in coalitions("abc")}
        values = modality.shapley("abc", value)
        assert sum(values.values()) == pytest.approx(value[frozenset("abc")] - value[frozenset()])
        symmetric = {c: value[frozenset(c - {"b"}) | {"a"} if "b" in c and "a" not in c else c] for c in value}
        values = modality.shapley("abc", symmetric)
        assert values["a"] == pytest.approx(values["b"])
        null = {c: value[c - {"c"}] for c in value}
        assert modality.shapley("abc", null)["c"] == pytest.approx(0)


@pytest.fixture(scope="module")
def scorer(untrained_bert):
    """BERT + GRU with context, and CNN."""
    return Scorer(untrained_bert)


@pytest.fixture(scope="module")
def rows(scorer, dataset):
    return read_utterances(scorer, Dataset.open(dataset).rows("dev"))


def test_shapley_values_of_a_run_sum_to_the_effect_of_all_modalities(scorer, rows):
    full = next(row for row in rows if row.text and row.faces and row.context)
    utterances = [full, modality.keep_modalities(full, ["text"]), modality.keep_modalities(full, ["face", "context"])]
    batch = Batch(scorer, utterances)
    score = np.asarray(scores(batch.logits, batch.target))
    empty = np.asarray(scores(scorer.logits([Utterance()] * 3), batch.target))
    results = modality.modality_shapley_values(batch)
    for n, result in enumerate(results):
        assert tuple(result.values) == ("text", "face", "context")
        assert sum(result.values.values()) == pytest.approx(score[n] - empty[n], abs=1e-4)
        assert (result.empty, result.score) == pytest.approx((empty[n], score[n]), abs=1e-4)
    assert all(value != 0 for value in results[0].values.values())
    assert results[1].values["face"] == results[1].values["context"] == results[2].values["text"] == 0


def test_a_modality_without_weights_has_no_importance(untrained, dataset):
    run = Run(untrained)  # this test changes the model
    scorer = Scorer(run)
    layer = scorer.model.fusion.get_layer("fusion_dense_0")
    kernel = layer.kernel.numpy()
    width = scorer.model.output["text/embedding"].shape[-1]
    kernel[width:] = 0
    layer.kernel.assign(kernel)
    rows = read_utterances(scorer, Dataset.open(dataset).rows("test"))
    baseline, importance = modality.permutation_importance(scorer, rows, repeats=2)
    by_name = {row.modality: row for row in importance}
    assert set(by_name) == {"text", "face"} and 0 <= baseline <= 1
    assert (by_name["face"].drop, by_name["face"].deviation) == (0, 0)
    again = modality.permutation_importance(scorer, rows, repeats=2)
    assert again == (baseline, importance)
