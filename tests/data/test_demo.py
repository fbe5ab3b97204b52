"""The demo data set: its splits, its Bayes accuracy and its files."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_tf.data import demo, demo_distribution, demo_drawing, demo_faces, demo_text
from emotion_tf.data.demo_text import SPLITS
from emotion_tf.errors import UserError

PLANNED = 4000


@pytest.fixture(scope="module")
def plan():
    return demo.plan_demo(PLANNED, seed=3)


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo.write_demo(folder, utterances=220, seed=5)


def _by_split(rows, value) -> dict[str, set]:
    values = defaultdict(set)
    for row in rows:
        values[row.split].update(value(row))
    return values


def _words(text: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in text.lower()).split()


@pytest.mark.parametrize(
    "value",
    [
        lambda row: [row.utterance.lower()],
        lambda row: [(row.template, row.words)],
        lambda row: [face.vector() for face in row.faces],
        lambda row: [face.identity for face in row.faces],
    ],
    ids=["utterance", "template and words", "face parameters", "person"],
)
def test_splits_share_nothing(plan, value):
    values = _by_split(plan[0], value)
    assert all(len(values[split]) > 0 for split in SPLITS)
    assert not values["train"] & values["test"]
    assert not values["train"] & values["dev"]
    assert not values["dev"] & values["test"]


def test_utterances_are_unique(plan):
    rows, _ = plan
    assert len({row.utterance.lower() for row in rows}) == len(rows) == PLANNED


def test_every_word_of_dev_and_test_is_in_train(plan):
    values = _by_split(plan[0], lambda row: _words(row.utterance))
    assert (values["dev"] | values["test"]) <= values["train"]
    assert 200 < len(values["train"]) < 700


def test_every_word_of_an_emotion_is_frequent_in_train(plan):
    counts = Counter(word for row in plan[0] if row.split == "train" for word in _words(row.utterance))
    emotion_words = [word for slot, words in demo_text.SLOTS.items() if "_" in slot for word in words]
    assert min(min(counts[part] for part in _words(word)) for word in emotion_words) >= 5
    assert np.median([counts[word] for word in emotion_words if " " not in word]) >= 10


def test_every_text_has_one_kind():
    rng = np.random.default_rng(0)
    kinds = defaultdict(set)
    for kind in demo_distribution.TEXT_KINDS:
        for split in SPLITS:
            source = demo_text.TextSource(split, rng)
            for _ in range(40):
                text, template, words = source.draw(kind, ["Tavo", "Ilka"], "Ilka")
                kinds[text.lower()].add(kind)
                assert demo_text.render(template, words) == text
                assert demo_text.split_of(text) == split
                assert 3 <= len(text.split()) <= 14
                assert "{" not in text and text[0].isupper()
    assert {len(values) for values in kinds.values()} == {1}


def test_dialogues(plan):
    rows, _ = plan
    dialogues = defaultdict(list)
    for row in rows:
        dialogues[row.dialogue_id].append(row)
    for dialogue in dialogues.values():
        assert 5 <= len(dialogue) <= 12
        assert 2 <= len({row.speaker for row in dialogue}) <= 4
        assert len({row.split for row in dialogue}) == 1
        assert [row.utterance_id for row in dialogue] == list(range(len(dialogue)))
    shares = [sum(row.split == split for row in rows) / len(rows) for split in SPLITS]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.001)


def test_an_answer_has_the_emotion_of_the_utterance_before_it(plan):
    rows, symbols = plan
    answers = [(before, row) for before, row in itertools.pairwise(rows) if row.text_kind == demo_text.ECHO]
    assert 0.05 < len(answers) / len(rows) < 0.11
    for before, row in answers:
        assert before.dialogue_id == row.dialogue_id and before.speaker != row.speaker
        assert before.text_kind == before.emotion == row.emotion
        assert before.speaker in row.utterance
    symbols_of_rows = np.concatenate([symbols[split] for split in SPLITS])
    assert [demo_distribution.EMOTIONS[e] for e in symbols_of_rows[:, 0]] == [row.emotion for row in rows]


def test_kinds_are_compatible_with_the_emotion(plan):
    for row in plan[0]:
        assert row.emotion in demo_distribution.compatible(row.text_kind)
        assert row.emotion in demo_distribution.compatible(row.face_kind)
        assert bool(row.faces) == (row.face_kind != demo_faces.NO_FACE)


def test_tables_are_distributions():
    assert sum(demo_distribution.CELLS.values()) == pytest.approx(1)
    assert demo_distribution.fresh_joint().sum() == pytest.approx(1)
    assert demo_distribution.joint().sum() == pytest.approx(1)
    assert demo_distribution.joint().sum(axis=(1, 2)) == pytest.approx(list(demo_distribution.PRIOR.values()))
    assert demo_distribution.answer_faces().sum(axis=1) == pytest.approx(1)


def test_bayes_accuracy_agrees_with_counts():
    """The most frequent emotion of each symbol in a large sample is as accurate as the posterior predicts."""
    rng = np.random.default_rng(11)
    lengths = rng.integers(demo_distribution.DIALOGUE_LENGTHS[0], demo_distribution.DIALOGUE_LENGTHS[1] + 1, 12_000)
    dialogues = [demo_distribution.sample_dialogue(int(length), rng) for length in lengths]
    seen: dict[str, defaultdict] = {
        view: defaultdict(Counter) for view in ("text", "face", "both", "both_with_context")
    }
    for dialogue in dialogues:
        before = -1
        for e, t, f, _ in dialogue.tolist():
            symbols = {"text": t, "face": f, "both": (t, f), "both_with_context": (t, f, before)}
            for view, symbol in symbols.items():
                seen[view][symbol][e] += 1
            before = t
    rows = np.concatenate(dialogues)
    expected = demo_distribution.describe({"test": rows})["best_accuracy"]["test"]
    for view, symbols in seen.items():
        accuracy = sum(max(emotions.values()) for emotions in symbols.values()) / len(rows)
        assert accuracy == pytest.approx(expected[view], abs=0.006), view
    # the posterior is calibrated
    belief = demo_distribution.posteriors(rows)["both"]
    for e in range(len(demo_distribution.EMOTIONS)):
        assert belief[:, e].mean() == pytest.approx((rows[:, 0] == e).mean(), abs=0.004)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("utterances", [200, 4000])
def test_limits_hold_in_every_split(utterances, seed):
    sizes = {"train": 0.7 * utterances, "dev": 0.1 * utterances, "test": 0.2 * utterances}
    symbols = {
        split: np.concatenate(demo._sample_split(int(size), seed, number))
        for number, (split, size) in enumerate(sizes.items())
    }
    description = demo_distribution.describe(symbols)
    for split in SPLITS:
        assert description["undecidable"][split]["share"] <= 0.05
    if utterances < 4000:
        return
    for split in SPLITS:
        best, shares = description["best_accuracy"][split], description["shares"][split]
        assert 0.70 <= best["text"] <= 0.83 and 0.70 <= best["face"] <= 0.83
        assert best["both"] >= 0.95 and best["both"] - max(best["text"], best["face"]) >= 0.15
        assert best["both_with_context"] > best["both"]
        assert 0.27 < shares["ambiguous_text"] < 0.45 and 0.27 < shares["ambiguous_face"] < 0.45
        assert 0.05 < shares["no_face"] < 0.13
        assert max(shares["emotions"], key=shares["emotions"].get) == "neutral"


def test_manifest_and_pictures(demo_folder):
    folder, description = demo_folder
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(demo.COLUMNS)
    assert len(rows) == 220
    assert {row["split"] for row in rows} == set(SPLITS)
    named = [path for row in rows for path in row["faces"].split(";") if path]
    on_disk = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert sorted(named) == on_disk and len(set(named)) == len(named)
    for path in named[:40]:
        picture = cv2.imread(str(folder / path))
        assert picture.shape == (48, 48, 3) and picture.std() > 5
    assert json.loads(json.dumps(description)) == description
    assert description["generator"] == "demo" and description["seed"] == 5 and description["utterances"] == 220
    assert set(description["best_accuracy"]["test"]) >= {"text", "face", "both", "both_with_context"}


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_files_from_another_process(demo_folder, tmp_path):
    folder, _ = demo_folder
    code = f"from emotion_tf.data.demo import write_demo; write_demo({str(tmp_path / 'again')!r}, 220, 5)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={"PYTHONHASHSEED": "7", "PATH": ""})
    assert _contents(tmp_path / "again") == _contents(folder)


def test_another_seed_gives_other_rows_and_faces(plan):
    rows, other_rows = plan[0], demo.plan_demo(300, seed=4)[0]
    assert [row.emotion for row in rows[:50]] != [row.emotion for row in other_rows[:50]]
    vectors = [{face.vector() for row in rows for face in row.faces} for rows in (rows, other_rows)]
    assert not vectors[0] & vectors[1]


@pytest.mark.parametrize("kind", demo_faces.FACE_KINDS[:-1])
def test_a_kind_of_face_is_drawn_at_any_size(kind):
    rng = np.random.default_rng(2)
    identity, shot = demo_faces.sample_identity(rng), demo_faces.sample_shot(rng)
    face = demo_faces.Face(identity, demo_faces.sample_expression(kind, rng), shot)
    assert demo_drawing.render_face(face, 48).shape == (48, 48, 3)
    assert demo_drawing.render_face(face, 112).dtype == np.uint8


def test_a_hidden_face_does_not_depend_on_the_expression():
    """With equal cover, identity and shot, two expressions give the same image except for the ends of the brows."""
    rng = np.random.default_rng(9)
    identity, shot = demo_faces.sample_identity(rng), demo_faces.sample_shot(rng)
    for cover in (1, 2, 3):
        pictures = []
        for kind in ("anger", "surprise"):
            values = dict(demo_faces.sample_expression(kind, rng).__dict__, cover=cover)
            face = demo_faces.Face(identity, demo_faces.Expression(**values), shot)
            pictures.append(demo_drawing.render_face(face, 48).astype(int))
        assert np.abs(pictures[0] - pictures[1]).mean() < 1.5


@pytest.mark.parametrize(
    "arguments",
    [
        {"utterances": 199},
        {"utterances": 10**7},
        {"face_size": 31},
        {"seed": -1},
        {"utterances": 300.0},
        {"seed": True},
    ],
)
def test_invalid_arguments_give_one_line(tmp_path, arguments):
    with pytest.raises(UserError) as caught:
        demo.write_demo(tmp_path / "out", **arguments)
    assert "\n" not in str(caught.value) and f"`{next(iter(arguments))}`" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_error_of_too_many_utterances_has_the_maximum(tmp_path):
    assert demo.max_utterances() >= 20_000
    with pytest.raises(UserError, match=str(demo.max_utterances())):
        demo.write_demo(tmp_path / "out", utterances=demo.max_utterances() + 1)


def test_a_folder_in_use_is_an_error(demo_folder):
    with pytest.raises(UserError, match="exists already"):
        demo.write_demo(demo_folder[0], utterances=200)


def test_dataset_info_takes_the_description_of_the_demo(demo_folder):
    from emotion_tf import documents
    from emotion_tf.data.dataset import Demo

    content = json.dumps(demo_folder[1]).encode()
    assert documents.parse(content, Demo, "x", "") == demo_folder[1]
