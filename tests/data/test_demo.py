"""The demo data set: what it promises about its splits, its ceilings and its files."""

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

from emotion_tf.data import demo, demo_faces, demo_text
from emotion_tf.data.demo_text import SPLITS
from emotion_tf.errors import UserError

PLANNED = 4000


@pytest.fixture(scope="module")
def plan():
    return demo.plan_demo(PLANNED, seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo.write_demo(folder, utterances=220, seed=5)


def _by_split(rows, value) -> dict[str, set]:
    found = defaultdict(set)
    for row in rows:
        found[row.split].update(value(row))
    return found


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
    found = _by_split(plan[0], value)
    assert all(len(found[split]) > 0 for split in SPLITS)
    assert not found["train"] & found["test"]
    assert not found["train"] & found["dev"]
    assert not found["dev"] & found["test"]


def test_no_utterance_comes_twice(plan):
    rows, _ = plan
    assert len({row.utterance.lower() for row in rows}) == len(rows) == PLANNED


def test_every_word_of_dev_and_test_is_in_train(plan):
    found = _by_split(plan[0], lambda row: _words(row.utterance))
    assert (found["dev"] | found["test"]) <= found["train"]
    assert 200 < len(found["train"]) < 700


def test_every_word_that_tells_an_emotion_comes_often_in_train(plan):
    counts = Counter(word for row in plan[0] if row.split == "train" for word in _words(row.utterance))
    telling = [word for slot, words in demo_text.SLOTS.items() if "_" in slot for word in words]
    assert min(min(counts[part] for part in _words(word)) for word in telling) >= 5
    assert np.median([counts[word] for word in telling if " " not in word]) >= 10


def test_every_text_has_one_kind():
    rng = np.random.default_rng(0)
    kinds = defaultdict(set)
    for kind in demo.TEXT_KINDS:
        for split in SPLITS:
            source = demo_text.TextSource(split, rng)
            for _ in range(40):
                text, template, words = source.draw(kind, ["Tavo", "Ilka"], "Ilka")
                kinds[text.lower()].add(kind)
                assert demo_text.render(template, words) == text
                assert demo_text.split_of(text) == split
                assert 3 <= len(text.split()) <= 14
                assert "{" not in text and text[0].isupper()
    assert {len(found) for found in kinds.values()} == {1}


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


def test_an_answer_has_the_emotion_of_a_telling_utterance_before_it(plan):
    rows, symbols = plan
    answers = [(before, row) for before, row in itertools.pairwise(rows) if row.text_kind == demo_text.ECHO]
    assert 0.05 < len(answers) / len(rows) < 0.11
    for before, row in answers:
        assert before.dialogue_id == row.dialogue_id and before.speaker != row.speaker
        assert before.text_kind == before.emotion == row.emotion
        assert before.speaker in row.utterance
    noted = np.concatenate([symbols[split] for split in SPLITS])
    assert [demo.EMOTIONS[e] for e in noted[:, 0]] == [row.emotion for row in rows]


def test_kinds_are_compatible_with_the_emotion(plan):
    for row in plan[0]:
        assert row.emotion in demo.compatible(row.text_kind)
        assert row.emotion in demo.compatible(row.face_kind)
        assert bool(row.faces) == (row.face_kind != demo_faces.NO_FACE)


def test_tables_are_distributions():
    assert sum(demo.CELLS.values()) == pytest.approx(1)
    assert demo.fresh_joint().sum() == pytest.approx(1)
    assert demo.joint().sum() == pytest.approx(1)
    assert demo.joint().sum(axis=(1, 2)) == pytest.approx(list(demo.PRIOR.values()))
    assert demo.answer_faces().sum(axis=1) == pytest.approx(1)


def test_ceilings_agree_with_counting():
    """The best guess for every symbol, found by counting emotions, is right as often as the posterior says."""
    rng = np.random.default_rng(11)
    lengths = rng.integers(demo.DIALOGUE_LENGTHS[0], demo.DIALOGUE_LENGTHS[1] + 1, 12_000)
    dialogues = [demo.sample_dialogue(int(length), rng) for length in lengths]
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
    stated = demo.describe({"test": rows})["best_accuracy"]["test"]
    for view, symbols in seen.items():
        counted = sum(max(emotions.values()) for emotions in symbols.values()) / len(rows)
        assert counted == pytest.approx(stated[view], abs=0.006), view
    # The posterior is a probability that can be trusted, symbol by symbol.
    belief = demo.posteriors(rows)["both"]
    for e in range(len(demo.EMOTIONS)):
        assert belief[:, e].mean() == pytest.approx((rows[:, 0] == e).mean(), abs=0.004)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("utterances", [200, 4000])
def test_promises_hold_in_every_split(utterances, seed):
    sizes = {"train": 0.7 * utterances, "dev": 0.1 * utterances, "test": 0.2 * utterances}
    symbols = {
        split: np.concatenate(demo._sample_split(int(size), seed, number))
        for number, (split, size) in enumerate(sizes.items())
    }
    info = demo.describe(symbols)
    for split in SPLITS:
        assert info["undecidable"][split]["share"] <= 0.05
    if utterances < 4000:
        return
    for split in SPLITS:
        best, shares = info["best_accuracy"][split], info["shares"][split]
        assert 0.70 <= best["text"] <= 0.83 and 0.70 <= best["face"] <= 0.83
        assert best["both"] >= 0.95 and best["both"] - max(best["text"], best["face"]) >= 0.15
        assert best["both_with_context"] > best["both"]
        assert 0.27 < shares["text_does_not_tell"] < 0.45 and 0.27 < shares["face_does_not_tell"] < 0.45
        assert 0.05 < shares["no_face"] < 0.13
        assert max(shares["emotions"], key=shares["emotions"].get) == "neutral"


def test_manifest_and_pictures(written):
    folder, info = written
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
    assert json.loads(json.dumps(info)) == info
    assert info["generator"] == "demo" and info["seed"] == 5 and info["utterances"] == 220
    assert set(info["best_accuracy"]["test"]) >= {"text", "face", "both", "both_with_context"}


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_files_from_another_process(written, tmp_path):
    folder, _ = written
    code = f"from emotion_tf.data.demo import write_demo; write_demo({str(tmp_path / 'again')!r}, 220, 5)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={"PYTHONHASHSEED": "7", "PATH": ""})
    assert _contents(tmp_path / "again") == _contents(folder)


def test_another_seed_gives_other_rows_and_faces(plan):
    ours, theirs = plan[0], demo.plan_demo(300, seed=4)[0]
    assert [row.emotion for row in ours[:50]] != [row.emotion for row in theirs[:50]]
    vectors = [{face.vector() for row in rows for face in row.faces} for rows in (ours, theirs)]
    assert not vectors[0] & vectors[1]


@pytest.mark.parametrize("kind", demo_faces.FACE_KINDS[:-1])
def test_a_kind_of_face_is_drawn_at_any_size(kind):
    rng = np.random.default_rng(2)
    identity, shot = demo_faces.draw_identity(rng), demo_faces.draw_shot(rng)
    face = demo_faces.Face(identity, demo_faces.draw_expression(kind, rng), shot)
    assert demo_faces.render_face(face, 48).shape == (48, 48, 3)
    assert demo_faces.render_face(face, 112).dtype == np.uint8


def test_a_hidden_face_tells_nothing():
    """With the same cover, identity and shot, any two expressions give the same picture but for the tips of brows."""
    rng = np.random.default_rng(9)
    identity, shot = demo_faces.draw_identity(rng), demo_faces.draw_shot(rng)
    for cover in (1, 2, 3):
        pictures = []
        for kind in ("anger", "surprise"):
            values = dict(demo_faces.draw_expression(kind, rng).__dict__, cover=cover)
            face = demo_faces.Face(identity, demo_faces.Expression(**values), shot)
            pictures.append(demo_faces.render_face(face, 48).astype(int))
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
def test_bad_arguments_are_one_line(tmp_path, arguments):
    with pytest.raises(UserError) as caught:
        demo.write_demo(tmp_path / "out", **arguments)
    assert "\n" not in str(caught.value) and f"`{next(iter(arguments))}`" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_too_many_utterances_names_the_maximum(tmp_path):
    assert demo.max_utterances() >= 20_000
    with pytest.raises(UserError, match=str(demo.max_utterances())):
        demo.write_demo(tmp_path / "out", utterances=demo.max_utterances() + 1)


def test_a_used_folder_is_refused(written):
    with pytest.raises(UserError, match="exists already"):
        demo.write_demo(written[0], utterances=200)
