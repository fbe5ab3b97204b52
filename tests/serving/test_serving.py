"""`predict` from raw input, the export in a process of its own, and a run that was moved."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from helpers import ROOT

import emotion_tf
from emotion_tf.data import manifest, pipeline, records
from emotion_tf.data.context import before
from emotion_tf.errors import UserError
from emotion_tf.labels import MELD_EMOTIONS
from emotion_tf.serving.export import export
from emotion_tf.training.evaluate import evaluate

# What a server does: TensorFlow and its text ops, nothing of this project.
CLIENT = """
import sys, numpy as np, tensorflow as tf, tensorflow_text
given = np.load(sys.argv[2], allow_pickle=False)
signatures = tf.saved_model.load(sys.argv[1]).signatures
serve, full = signatures["serving_default"], signatures["serve_full"]
texts = [bytes(t).rstrip(b"\\0") for t in given["texts"]]
faces, ends = given["faces"].tobytes(), given["ends"]
crops = [faces[a:b] for a, b in zip([0, *ends[:-1]], ends)]
def ask(rows):
    out = serve(utterance=tf.constant([texts[i] for i in rows]), face_jpeg=tf.constant([crops[i] for i in rows]))
    return out["probabilities"].numpy(), out["label"].numpy().astype("U")
whole, label = ask(range(len(texts)))
single = np.concatenate([ask([i])[0] for i in range(len(texts))])
given_all = dict(utterance=tf.constant(texts), context=tf.constant(given["context"].tolist()),
                 face_jpeg=tf.constant([[crop, crop] for crop in crops]))
said = full(**given_all)["probabilities"].numpy()
one_by_one = [{k: v[i:i + 1] for k, v in given_all.items()} for i in range(len(texts))]
said_single = np.concatenate([full(**one)["probabilities"] for one in one_by_one])
silent = full(**given_all | {"context": tf.zeros((len(texts), 0), tf.string)})["probabilities"].numpy()
assert "emotion_tf" not in sys.modules
np.savez(sys.argv[3], whole=whole, single=single, label=label, said=said, said_single=said_single, silent=silent)
"""


@pytest.fixture(scope="module")
def rows(manifest_path):
    """Ten utterances with different texts and faces, one without text, one without a face."""
    found = [row for row in manifest.read_manifest(manifest_path, MELD_EMOTIONS) if len(row.faces) >= 1][:10]
    texts = [row.utterance for row in found]
    faces = [row.faces[0].read_bytes() for row in found]
    texts[3], faces[5] = "", None
    return texts, faces


@pytest.fixture(scope="module")
def predictor(bert_run):
    return emotion_tf.load(str(bert_run.path))


def test_predict_from_raw_input_equals_evaluate_from_records(bert_run, predictor, dataset, manifest_path):
    probabilities, rows, _, _ = evaluate(bert_run, dataset, records.read_info(dataset), "test")
    known = {
        (r.dialogue_id, r.utterance_id): r
        for r in manifest.read_manifest(manifest_path, MELD_EMOTIONS)
        if r.split == "test"
    }
    found = [known[row["dialogue_id"], row["utterance_id"]] for row in rows]
    texts, faces = [r.utterance for r in found], [list(r.faces) or None for r in found]
    said = before([(r.dialogue_id, r.speaker, r.utterance) for r in found], 2)
    assert sum(map(bool, said)) > len(found) / 2
    raw = predictor.predict(texts, faces, said)
    np.testing.assert_allclose(raw.probabilities, probabilities, atol=1e-5)
    assert len(set(raw.probabilities.round(6)[:, 0])) > 10
    silent = predictor.predict(texts, faces).probabilities
    assert [bool(lines) for lines in said] == (np.abs(silent - raw.probabilities).max(axis=1) > 1e-6).tolist()


def test_every_kind_of_face_and_none(predictor, manifest_path):
    import cv2

    path = next((manifest_path.parent / "faces").rglob("*.jpg"))
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    given = [path, str(path), path.read_bytes(), [path, path], None]
    result = predictor.predict(["Well."] * 5, given).probabilities
    for i in (1, 2, 3):
        np.testing.assert_allclose(result[0], result[i], atol=1e-6)
    assert np.abs(result[0] - result[4]).max() > 1e-6
    assert predictor.predict(["Well."], [pixels]).probabilities.shape == (1, 7)
    np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-5)
    assert predictor.predict([], []).probabilities.shape == (0, 7)
    assert set(predictor.predict(["Well."]).label) <= set(MELD_EMOTIONS)


def test_each_pattern_of_modalities_has_its_temperature(predictor, rows):
    import tensorflow as tf

    texts, faces = (["You did it!", "You did it!", "", ""], [rows[1][0], None, rows[1][0], None])
    inputs = predictor.preprocess(tf.constant(texts), tf.constant([[face or b""] for face in faces]))
    logits = predictor.model(inputs, training=False).numpy()
    divided = tf.nn.softmax(logits / np.array([[0.5], [2.0], [3.0], [3.0]])).numpy()
    np.testing.assert_allclose(predictor.predict(texts, faces).probabilities, divided, atol=1e-5)


def test_wrong_calls_are_one_line(predictor):
    with pytest.raises(UserError, match="Expected one entry"):
        predictor.predict(["a", "b"], [None])
    with pytest.raises(UserError, match="Invalid `contexts`. Expected one entry"):
        predictor.predict(["a", "b"], None, [["b"]])
    with pytest.raises(UserError, match="Expected a list of strings"):
        predictor.predict("a")
    with pytest.raises(UserError, match="Expected uint8 pixels"):
        predictor.predict(["a"], [np.zeros((4, 4))])
    with pytest.raises(UserError, match="Cannot decode the face of row 0"):
        predictor.predict(["a"], [b"not a picture"])


def test_export_in_a_process_of_its_own_equals_predict(bert_run, predictor, rows, tmp_path):
    texts, faces = rows
    path = export(bert_run)
    assert path.name == "1"
    assert "# Model card: " in (path / "assets.extra" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert json.loads((path / "assets.extra" / "model.json").read_text()) == {
        "labels": list(MELD_EMOTIONS),
        "face_size": 32,
        "max_faces": bert_run.spec.max_faces,
        "context": 2,
    }
    crops = [face or b"" for face in faces]
    contexts = [
        ["Ilka: Oh!", ""],
        ["", "You did it!"],
        ["Tavo: No.", "Ilka: Why not?"],
        ["", ""],
        ["", "a"],
        *[["x", "y"]] * 5,
    ]
    np.savez(
        tmp_path / "in.npz",
        texts=np.array([t.encode() for t in texts]),
        faces=np.frombuffer(b"".join(crops), np.uint8),
        ends=np.cumsum([len(c) for c in crops]),
        context=np.array([[line.encode() for line in lines] for lines in contexts]),
    )
    (tmp_path / "client.py").write_text(CLIENT)
    subprocess.run(
        [sys.executable, "client.py", str(path), "in.npz", "out.npz"], cwd=tmp_path, check=True, capture_output=True
    )
    expected = predictor.predict(texts, faces)
    with np.load(tmp_path / "out.npz") as got:
        np.testing.assert_allclose(got["whole"], expected.probabilities, atol=1e-5)
        np.testing.assert_allclose(got["single"], expected.probabilities, atol=1e-5)
        assert list(got["label"]) == expected.label
        np.testing.assert_allclose(got["silent"], expected.probabilities, atol=1e-5)
        full = predictor.predict(texts, [face and [face, face] for face in faces], contexts).probabilities
        np.testing.assert_allclose(got["said"], full, atol=1e-5)
        np.testing.assert_allclose(got["said_single"], full, atol=1e-5)
        differs = np.abs(full - expected.probabilities).max(axis=1) > 1e-6
        assert differs.tolist() == [any(lines) for lines in contexts]
    assert len(np.unique(expected.probabilities.round(6), axis=0)) == 10


def test_a_second_export_is_the_next_version_and_keeps_the_first(bert_run, predictor):
    (bert_run.path / "serving" / "7").mkdir(parents=True, exist_ok=True)
    path = export(bert_run)
    assert path.name == "8"
    assert (path / "saved_model.pb").is_file()
    assert not [p for p in (bert_run.path / "serving").iterdir() if p.name.startswith(".")]


def test_a_moved_run_predicts_the_same_without_cache_encoder_and_data(bert_run, predictor, rows, tiny_bert, tmp_path):
    texts, _ = rows
    moved = tmp_path / "elsewhere"
    shutil.copytree(bert_run.path, moved)
    hidden = f"{tiny_bert}.hidden"
    shutil.move(tiny_bert, hidden)
    try:
        code = (
            "import sys, json, emotion_tf\n"
            "p = emotion_tf.load(sys.argv[1]).predict(json.loads(sys.argv[2]))\n"
            "print(json.dumps(p.probabilities.tolist()))"
        )
        environment = {**os.environ, "EMOTION_TF_CACHE": str(tmp_path / "empty"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(moved), json.dumps(texts)],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        shutil.move(hidden, tiny_bert)
    got = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(got, predictor.predict(texts).probabilities, atol=1e-6)


def test_a_damaged_model_file_is_one_line(bert_run, tmp_path):
    shutil.copytree(bert_run.path, tmp_path / "run")
    (tmp_path / "run" / "model.keras").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"Cannot load .*model\.keras"):
        emotion_tf.load(str(tmp_path / "run"))


def test_pipeline_and_raw_text_give_the_same_inputs(predictor, dataset):
    """The recorded word pieces are those that the served graph makes."""
    info = records.read_info(dataset)
    paths = pipeline.split_rows(dataset, info, "test")
    inputs, _, _ = next(iter(pipeline.eval_batches(paths, predictor.preprocess, 8)))
    import tensorflow as tf

    rows = list(pipeline.read_rows(paths))
    said = before([(row["dialogue_id"], row["speaker"], row["utterance"]) for row in rows], 2)[:8]
    texts = [row["utterance"] for row in rows][:8]
    raw = predictor.preprocess(tf.constant(texts), tf.fill([8, 1], ""), context=tf.ragged.constant(said, ragged_rank=1))
    assert tf.reduce_max(raw["input_type_ids"]) == 1
    for name in ("input_word_ids", "input_mask", "input_type_ids", "word_ids"):
        np.testing.assert_array_equal(inputs[name], raw[name])


def test_run_and_export_hold_each_weight_once(bert_run):
    """No optimizer in model.keras, no second copy of a weight in the export."""
    import tensorflow as tf

    size = sum(int(np.prod(v.shape)) for v in bert_run.model.weights)
    path = export(bert_run)
    stored = sum(
        int(np.prod(shape))
        for name, shape in tf.train.list_variables(str(path / "variables" / "variables"))
        if "VARIABLE_VALUE" in name
    )
    assert stored <= 1.02 * size
    with zipfile.ZipFile(bert_run.model_path) as archive:
        names = "".join(archive.namelist())
        archive.extract("model.weights.h5", path)
    with h5py.File(path / "model.weights.h5") as weights:
        assert "optimizer" not in weights
    assert "optimizer" not in names
