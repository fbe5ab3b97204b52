"""`compare`: on small files, checked by hand and against SciPy."""

import json
import re

import browser
import numpy as np
import pandas as pd
import pytest
from helpers import ensemble_info, run_info
from scipy.stats import bootstrap, norm, t

from emotion_tf.config import Config, TrainConfig, to_json
from emotion_tf.evaluation.axis import zoomed_axis
from emotion_tf.evaluation.compare import compare, differing_options, read_run, rows
from emotion_tf.evaluation.metrics import metrics, weighted_f1
from emotion_tf.evaluation.significance import format_p, holm, intervals

LABELS = ("joy", "fear", "anger")
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 3, 60)


def run(path, predicted, seed=0, **changes):
    """Writes the folder of a run, as training and evaluation do."""
    path.mkdir()
    (path / "config.json").write_text(to_json(Config(train=TrainConfig(seed=seed))))
    probabilities = np.eye(3)[predicted] * 0.7 + 0.1
    numbers = {
        **metrics(TRUE, probabilities.argmax(axis=1), probabilities, LABELS, 0),
        "command": "main.py train",
        "data": "here",
        "seed": seed,
    }
    (path / "metrics.json").write_text(json.dumps({"test": numbers}))
    rows = {
        "dialogue_id": [str(i // 4) for i in range(60)],
        "utterance_id": [str(i % 4) for i in range(60)],
        "emotion": [LABELS[i] for i in TRUE],
        "predicted": [LABELS[i] for i in predicted],
    }
    pd.DataFrame(rows | changes).to_csv(path / "predictions_test.csv", index=False)
    pd.DataFrame({"seconds": [60.0, 30.0]}).to_csv(path / "history.csv", index=False)
    (path / "run.json").write_text(run_info(LABELS))
    return path


def predictions(wrong):
    """Predictions that are wrong in some rows."""
    return np.where(np.isin(np.arange(60), wrong), (TRUE + 1) % 3, TRUE)


@pytest.fixture
def two(tmp_path):
    """5 rows that only the first predicts correctly, 1 that only the second does, 4 that neither does."""
    both = [50, 51, 52, 53]
    return [
        run(tmp_path / "a", predictions([0, *both])),
        run(tmp_path / "b", predictions([10, 11, 20, 30, 40, *both]), seed=1),
    ]


def test_the_table_of_two_runs(two):
    (pair,) = compare([read_run(path, "test") for path in two])
    assert (pair.better, pair.other, pair.only_better, pair.only_other) == ("a", "b", 5, 1)
    assert pair.adjusted == pair.f1.two_sided
    assert pair.f1.two_sided == 2 * pair.f1.p_value
    reverse = compare([read_run(path, "test") for path in reversed(two)])
    assert (reverse[0].better, reverse[0].f1.difference) == ("a", pytest.approx(pair.f1.difference))


def test_every_pair_of_three_runs_by_hand_and_by_scipy(tmp_path, succeed):
    """Rows that only one run predicts correctly: 8 against 0, 6 against 0, 2 against 4."""
    wrong = {"a": [0], "b": [0, *range(4, 36, 4)], "c": [0, *range(20, 44, 4)]}
    runs = [read_run(run(tmp_path / name, predictions(rows)), "test") for name, rows in wrong.items()]
    pairs = {(pair.better, pair.other): pair for pair in compare(runs)}
    counts = {names: (pair.only_better, pair.only_other) for names, pair in pairs.items()}
    assert counts == {("a", "b"): (8, 0), ("a", "c"): (6, 0), ("c", "b"): (4, 2)}
    group, better, other = np.arange(60) // 4, predictions(wrong["c"]), predictions(wrong["b"])

    def difference(drawn):
        rows = np.concatenate([np.flatnonzero(group == dialogue) for dialogue in drawn])
        return weighted_f1(TRUE[rows], better[rows]) - weighted_f1(TRUE[rows], other[rows])

    # expanded percentiles (Hesterberg 2015); the predictions differ in 6 of the 15 dialogues
    level = 1 - 2 * norm.cdf(-np.sqrt(6 / 5) * t.ppf(0.975, 5))
    options = {"n_resamples": 400, "method": "percentile", "vectorized": False, "rng": 0}
    slow = bootstrap((np.arange(15),), difference, confidence_level=level, **options)
    f1, tolerance = pairs["c", "b"].f1, 0.4 * slow.standard_error
    assert (f1.low, f1.high) == tuple(pytest.approx(end, abs=tolerance) for end in slow.confidence_interval)
    ordered = sorted(pairs.values(), key=lambda pair: pair.f1.two_sided)
    assert ordered[0].adjusted == pytest.approx(3 * ordered[0].f1.two_sided)
    printed = succeed("compare", *(tmp_path / name for name in wrong))
    p_values = [p for pair in pairs.values() for p in (pair.f1.two_sided, pair.adjusted)]
    assert all(format_p(p) in printed for p in p_values) and "0.0000" not in printed


def test_weights_apply_to_intervals_and_differences(tmp_path):
    """The weights reverse the order: the better run and the difference are those of the weighted scores."""
    weight = np.where(np.arange(60) % 4 == 0, 9.0, 1.0)  # one utterance of each dialogue
    results = []
    for name, wrong in (("few", range(0, 60, 4)), ("many", range(1, 60, 2))):
        path = run(tmp_path / name, predictions(list(wrong)), weight=[str(w) for w in weight])
        predicted = predictions(list(wrong))
        scores = metrics(TRUE, predicted, np.eye(3)[predicted] * 0.7 + 0.1, LABELS, 0, weight)
        (path / "metrics.json").write_text(json.dumps({"test": scores}))
        results.append(read_run(path, "test"))
    (pair,) = compare(results)
    few, many = (float(result.metrics["weighted_f1"]) for result in results)
    assert pair.better == "many" and pair.f1.difference == pytest.approx(many - few) and pair.f1.low > 0
    for result, row in zip(results, rows(results), strict=False):
        low, high = (float(x) for x in row[1].split("[")[1].rstrip("]").split(", "))
        assert low < result.metrics["weighted_f1"] < high


@pytest.mark.parametrize(
    ("weight", "message"), [("inf", "Received: 'inf' in row 8"), ("-5", "Received: '-5'"), ("nan", "")]
)
def test_weights_that_are_no_weights_are_refused(weight, message, tmp_path, fault):
    runs = [
        run(tmp_path / name, predictions([i]), weight=["1"] * 7 + [weight] + ["1"] * 52) for i, name in enumerate("ab")
    ]
    received = fault("compare", *runs)
    assert "Invalid column `weight`. Expected numbers from 0 to 1e+09" in received and message in received


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"seconds\nx\n", b"seconds\n\n,\n", b"epoch\n1\n", b"seconds\ninf\n"]
)
def test_a_history_that_is_none_is_refused(content, two, fault):
    (two[0] / "history.csv").write_bytes(content)
    assert f"{two[0] / 'history.csv'}: " in fault("compare", *two)


def test_pairs_with_a_reference(two, tmp_path):
    runs = [read_run(path, "test") for path in (*two, run(tmp_path / "c", predictions(range(8))))]
    assert [(pair.better, pair.other) for pair in compare(runs, "c")] == [("a", "c"), ("c", "b")]


def test_an_ensemble_beside_runs(two, tmp_path):
    voted = run(tmp_path / "e", predictions([]))
    for name in ("config.json", "run.json", "history.csv"):
        (voted / name).unlink()
    (voted / "ensemble.json").write_text(ensemble_info(LABELS, "ab"))
    runs = [read_run(path, "test") for path in (voted, *two)]
    assert differing_options(runs) == {
        "ensemble.members": ["a b", "-", "-"],
        "ensemble.method": ["soft", "-", "-"],
        "train.seed": ["-", "0", "1"],
    }
    assert rows(runs)[0][-2:] == ["-", "-"]


def test_p_values_are_never_printed_as_0():
    assert [format_p(p) for p in (0.0, 0.00099, 0.001, 0.0496, 1.0)] == [
        "< 0.001",
        "< 0.001",
        "0.0010",
        "0.0496",
        "1.0000",
    ]


def test_runs_of_the_same_name_in_other_folders(two, tmp_path, succeed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    run(tmp_path / "sub" / "a", predictions(range(8)))
    assert all(name in succeed("compare", "a", "sub/a") for name in (" a ", " sub/a "))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([0.2]) == [0.2]


def test_intervals_contain_the_score_and_shrink_with_more_data():
    group, predicted = np.arange(60) // 4, predictions(range(0, 60, 3))
    results = intervals(TRUE, predicted, group)
    wide = intervals(np.tile(TRUE, 9), np.tile(predicted, 9), np.arange(540) // 4)
    for name in ("weighted_f1", "accuracy"):
        low, high = results[name]
        assert low < 2 / 3 < high and wide[name][1] - wide[name][0] < 0.5 * (high - low)
    perfect = intervals(TRUE, TRUE, group)
    low = 1 / (1 + t.ppf(0.975, 14) ** 2 / 15)  # 15 dialogues, all right (Wilson)
    assert (perfect["accuracy"], perfect["weighted_f1"]) == (pytest.approx((low, 1)), pytest.approx((low, 1)))
    assert perfect["macro_f1"] is None  # a class has fewer than 20 utterances
    assert intervals(TRUE, (TRUE + 1) % 3, group)["accuracy"] == pytest.approx((0, 1 - low))


def test_only_options_that_differ(two):
    runs = [read_run(path, "test") for path in two]
    assert differing_options(runs) == {"train.seed": ["0", "1"]}
    config = json.loads((two[1] / "config.json").read_text())
    del config["train"]["optimizer"], config["train"]["seed"]  # an older run lacks these options
    (two[1] / "config.json").write_text(json.dumps(config))
    assert differing_options([read_run(path, "test") for path in two]) == {}


def test_the_verb_prints_and_writes_a_page(two, tmp_path, succeed, fault):
    page = tmp_path / "c.html"
    printed = succeed("compare", *two, "--out", page)
    assert all(part in printed for part in ("train.seed", "always", "1,234", "1.5", "p (Holm)", str(page)))
    text = page.read_text()
    assert "p (Holm)" in text and "train.seed" in text and "http" not in text and "main.py train" in text
    assert "two or more different runs" in fault("compare", two[0])
    assert "two or more different runs" in fault("compare", two[0], two[0])
    message = fault("compare", two[0], tmp_path / "none")
    assert f"No run at {tmp_path / 'none'}" in message
    assert "has no results on dev" in fault("compare", *two, "--split", "dev")


@pytest.mark.parametrize(
    "changes", [{"utterance_id": [str(i) for i in range(60)]}, {"emotion": ["joy"] * 60}], ids=["ids", "labels"]
)
def test_different_utterances_are_rejected(two, tmp_path, fault, changes):
    other = run(tmp_path / "c", predictions([1]), **changes)
    message = fault("compare", two[0], other)
    assert "c and a predict other utterances: row" in message
    table = pd.read_csv(two[1] / "predictions_test.csv").iloc[:-1]
    table.to_csv(two[1] / "predictions_test.csv", index=False)
    assert "59 and 60 of them" in fault("compare", *two)


def test_the_page_has_a_forest_plot_and_numbers_on_the_right(two, tmp_path, succeed):
    page, (a, b) = tmp_path / "c.html", (read_run(path, "test") for path in two)
    (pair,) = compare([a, b])
    succeed("compare", *two, "--out", page)
    text = page.read_text()
    low, high = zoomed_axis([0.0, pair.f1.low, pair.f1.difference, pair.f1.high])
    zero, value = (f'style="left:{100 * (x - low) / (high - low):.1f}%"' for x in (0.0, pair.f1.difference))
    assert f'<span class="name">{pair.better} - {pair.other}</span><span class="interval"><u {zero}></u>' in text
    assert f"<b {value}></b></span>" in text and f'<span class="text">{pair.f1.difference:+z.4f} [' in text
    assert re.search(r'<td class="number split">0\.\d{4}<td class="bounds">\[', text)
    assert '<td class="number">1,234' in text and '<td>train.seed<td class="number">0<td class="number">1' in text


@pytest.mark.slow
def test_the_page_in_a_browser(two, tmp_path, succeed):
    succeed("compare", *two, "--out", tmp_path / "c.html")
    rendered = browser.load_page(tmp_path / "c.html")
    assert (rendered.requests, rendered.errors, rendered.violations) == ([], [], [])
    assert rendered.widths == {400: 400, 1200: 1200}


def test_the_page_on_standard_output(two, command):
    code, output = command("compare", *two, "--out", "-")
    assert code == 0 and output.out.startswith("<!") and "Page: -" in output.err and "Page: -" not in output.out
