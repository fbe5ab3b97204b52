"""Shapley values and permutation importance."""

import itertools

import numpy as np
import pytest

from emotion_tf.data.dataset import Dataset
from emotion_tf.interpret import modality
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.interpret.dataset import read_utterances
from emotion_tf.runs.run import Run


def every(players):
    return [frozenset(c) for n in range(len(players) + 1) for c in itertools.combinations(players, n)]


def test_the_glove_game_by_hand():
    """One left glove and two right ones; a pair is worth 1 (Shapley 1953): 2/3 and 1/6 each."""
    value = {c: float("left" in c and len(c) > 1) for c in every(("left", "right", "other"))}
    found = modality.shapley(("left", "right", "other"), value)
    assert found == pytest.approx({"left": 2 / 3, "right": 1 / 6, "other": 1 / 6})


def test_three_players_by_hand():
    value = dict(zip(every("tfc"), [1.0, 3.0, 2.0, 1.5, 7.0, 4.0, 2.5, 9.0], strict=True))
    # t: [(3-1)*2 + (7-2) + (4-1.5) + (9-2.5)*2] / 6, and so on
    expected = {"t": (4 + 5 + 2.5 + 13) / 6, "f": (2 + 4 + 1 + 10) / 6, "c": (1 + 1 + 0.5 + 4) / 6}
    assert modality.shapley("tfc", value) == pytest.approx(expected)


def test_efficiency_symmetry_and_the_null_player():
    rng = np.random.default_rng(0)
    for _ in range(20):
        value = {c: float(rng.normal()) for c in every("abc")}
        found = modality.shapley("abc", value)
        assert sum(found.values()) == pytest.approx(value[frozenset("abc")] - value[frozenset()])
        alike = {c: value[frozenset(c - {"b"}) | {"a"} if "b" in c and "a" not in c else c] for c in value}
        found = modality.shapley("abc", alike)
        assert found["a"] == pytest.approx(found["b"])
        idle = {c: value[c - {"c"}] for c in value}
        assert modality.shapley("abc", idle)["c"] == pytest.approx(0)


@pytest.fixture(scope="module")
def scorer(untrained_bert):
    """BERT + GRU with context, and CNN."""
    return Scorer(untrained_bert)


@pytest.fixture(scope="module")
def rows(scorer, dataset):
    return read_utterances(scorer, Dataset.open(dataset).rows("dev"))


def test_shares_of_a_run_sum_to_what_all_modalities_together_change(scorer, rows):
    full = next(one for one in rows if one.text and one.faces and one.context)
    picked = [full, modality.only(full, ["text"]), modality.only(full, ["face", "context"])]
    batch = Batch(scorer, picked)
    score = np.asarray(scores(batch.logits, batch.target))
    nothing = np.asarray(scores(scorer.logits([Utterance()] * 3), batch.target))
    found = modality.modality_shares(batch)
    for n, one in enumerate(found):
        assert tuple(one.values) == ("text", "face", "context")
        assert sum(one.values.values()) == pytest.approx(score[n] - nothing[n], abs=1e-4)
        assert (one.empty, one.score) == pytest.approx((nothing[n], score[n]), abs=1e-4)
    assert all(value != 0 for value in found[0].values.values())
    assert found[1].values["face"] == found[1].values["context"] == found[2].values["text"] == 0


def test_a_modality_that_the_logits_do_not_read_is_not_important(untrained, dataset):
    run = Run(untrained)  # a model of its own: it is changed
    scorer = Scorer(run)
    layer = scorer.model.fusion.get_layer("fusion_dense_0")
    kernel = layer.kernel.numpy()
    width = scorer.model.output["text/embedding"].shape[-1]
    kernel[width:] = 0
    layer.kernel.assign(kernel)
    rows = read_utterances(scorer, Dataset.open(dataset).rows("test"))
    before, found = modality.permutation_importance(scorer, rows, repeats=2)
    by_name = {one.modality: one for one in found}
    assert set(by_name) == {"text", "face"} and 0 <= before <= 1
    assert (by_name["face"].drop, by_name["face"].deviation) == (0, 0)
    again = modality.permutation_importance(scorer, rows, repeats=2)
    assert again == (before, found)
