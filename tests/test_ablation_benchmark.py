"""The table of ablations: differences over seeds and dialogues, adjusted for their number."""

import json

import numpy as np
import pytest

from benchmarks import ablation
from benchmarks.ablation import BASELINE, Variant, differences, remark
from emotion_tf.evaluation.significance import crossed_difference, holm, paired_bootstrap

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 3, 600)
DIALOGUE = np.arange(600) // 10


def predictions(*accuracies):
    """Predictions of seeds with these accuracies, (S, N)."""
    wrong = (LABEL + RNG.integers(1, 3, (len(accuracies), 600))) % 3
    return np.where(RNG.random(wrong.shape) < np.array(accuracies)[:, None], LABEL, wrong)


def test_every_variant_is_tested_against_the_baseline_and_adjusted():
    predicted = {
        "better": predictions(*[0.75] * 5),
        BASELINE.name: predictions(*[0.6] * 5),
        "same": predictions(*[0.6] * 5),
    }
    tests = differences(LABEL, predicted, DIALOGUE)
    expected = [
        crossed_difference(LABEL, predicted[n], predicted[BASELINE.name], DIALOGUE)[0] for n in ("better", "same")
    ]
    assert [test for test, _ in tests] == expected
    assert [p for _, p in tests] == holm([test.two_sided for test in expected])
    assert tests[0][1] < 0.01 and tests[1][1] > 0.05


def test_luck_of_the_seeds_is_no_finding():
    """Two configurations whose seeds vary: significant for these runs, not for the configurations."""
    lucky, unlucky = predictions(0.78, 0.66, 0.74, 0.62, 0.75), predictions(0.7, 0.6, 0.72, 0.64, 0.62)
    ((test, p_value),) = differences(LABEL, {"lucky": lucky, BASELINE.name: unlucky}, DIALOGUE)
    assert paired_bootstrap(LABEL, lucky, unlucky, DIALOGUE).two_sided < 0.01
    assert p_value > 0.05 and test.low < 0 < test.high


@pytest.mark.parametrize(
    ("difference", "p_value", "seeds", "sentence"),
    [
        (0.02, 0.01, 5, "as Author 2020"),
        (-0.02, 0.01, 5, "CONTRADICTS Author 2020"),
        (-0.02, 0.06, 5, "not different from 0, unlike Author 2020"),
        (-0.02, 0.01, 3, "descriptive (Author 2020)"),
    ],
)
def test_a_published_result_is_contradicted_only_by_what_survives(difference, p_value, seeds, sentence):
    assert remark(Variant("part", "name", {}, +1, "Author 2020"), difference, p_value, seeds) == sentence


def test_the_table_has_a_row_for_each_variant(tmp_path, capsys):
    variants = [ablation.BASELINE, ablation.VARIANTS[0]]
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)
    for variant in variants:
        for seed in range(5):
            predicted = {name: rng.integers(0, 3, 60) for name in ("whole", "reduced")}
            about = json.dumps({"dev": 0.5, "digest": ""})
            np.savez(
                ablation._file(tmp_path, variant, seed),
                label=label,
                dialogue=np.arange(60) // 4,
                about=about,
                **predicted,
            )
    words = ["data", "--face-init", "face", "--out", str(tmp_path)]
    ablation._print(ablation.parser().parse_args(words), variants)
    table = capsys.readouterr().out
    assert "baseline" in table and "sum" in table and "seeds 0 to 4" in table
