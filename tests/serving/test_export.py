"""The export contract: the files of an export, the outputs of its signatures, and what `export --verify` rejects."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from collections import Counter

import h5py
import numpy as np
import pytest
import tensorflow as tf
from helpers import BIASES, pretend_gpu, saved_ops
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
from untrusted_inputs import PICTURES, TEXTS, requests

import emotion_tf
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Calibration, Temperatures, write_calibration
from emotion_tf.labels import MELD_EMOTIONS
from emotion_tf.models.graph_safety import SavedModelProto, nodes
from emotion_tf.runs.export import Export, SavedModel
from emotion_tf.runs.export_files import CHECKSUMS, write_checksums
from emotion_tf.serving import verify, warmup
from emotion_tf.serving.export import export
from emotion_tf.serving.predict import ExportPredictor


@pytest.fixture(scope="module")
def run(small_config, initialised):
    """GRU + CNN that read two previous utterances, with biases, and temperatures that differ.

    Without hidden units: a dead unit would give different utterances the same prediction."""
    text = dataclasses.replace(small_config.text, context=2, context_tokens=16)
    fusion = dataclasses.replace(small_config.fusion, dense_units=())
    run = initialised(dataclasses.replace(small_config, text=text, fusion=fusion))
    own = {"text only": 2.0, "text and face": 0.5}
    write_calibration(run.path, Calibration(Temperatures(3.0, own, {}, BIASES)))
    return run


@pytest.fixture(scope="module")
def predictor(run):
    return emotion_tf.load(str(run.path))


@pytest.fixture(scope="module")
def exported(run):
    """An export, written as on a machine with a GPU. Tests copy it before they change it."""
    with pretend_gpu():
        return export(run)


@pytest.fixture(scope="module")
def served(exported):
    return ExportPredictor(Export.open(exported))


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "1")


def test_the_files_of_an_export(exported, run):
    assert exported.name == "1" and Export.open(exported).facts.labels
    subprocess.run(["sha256sum", "--quiet", "-c", str(CHECKSUMS)], cwd=exported, check=True)
    about = json.loads((exported / "assets.extra" / "model.json").read_text())
    assert about["labels"] == list(MELD_EMOTIONS) and about["name"] == run.path.name
    assert (about["face_size"], about["max_faces"], about["context"]) == (32, run.spec.max_faces, 2)
    assert (exported / "assets" / "labels.txt").read_text().split() == list(MELD_EMOTIONS)
    assert (exported / "assets" / "words.txt").read_bytes() == (run.path / "words.txt").read_bytes()
    card = (exported / "assets.extra" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for part in ("# Model card: ", "What it is not for", "Licence"):
        assert part in card


def test_an_export_of_a_machine_with_a_gpu_runs_on_a_cpu(exported):
    ops = saved_ops(exported)
    assert "While" in ops and not any("Cudnn" in op for op in ops)


def test_signatures_share_the_graph_that_decodes_pictures_and_the_one_that_predicts(exported):
    meta = SavedModelProto.FromString((exported / "saved_model.pb").read_bytes()).meta_graphs[0]
    ops = Counter(node.op for _, node in nodes(meta))
    assert ops["ExtractJpegShape"] == 2  # all pictures together, and one by one if that fails
    assert ops["Softmax"] == 3  # `tensors`, and both passes of `explain`


def test_the_warm_up_requests_cover_every_signature(exported, run):
    records = tf.data.TFRecordDataset(str(exported / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [PredictionLog.FromString(record).predict_log for record in records.as_numpy_iterator()]
    requested = {
        (
            log.request.model_spec.signature_name,
            log.request.inputs[next(iter(log.request.inputs))].tensor_shape.dim[0].size,
        )
        for log in logs
    }
    assert requested == {(name, size) for name in verify.SIGNATURES for size in warmup.BATCHES}
    assert {log.request.model_spec.name for log in logs} == {run.path.name}
    for log in logs:
        expected = {feature.name for feature in verify.SIGNATURES[log.request.model_spec.signature_name][1]}
        assert set(log.response.outputs) == expected


def test_the_export_predicts_as_the_run_does(served, predictor, rows):
    texts, faces = rows
    contexts = [
        ["Ilka: Oh!"],
        ["You did it!"],
        ["Tavo: No.", "Ilka: Why not?"],
        [],
        ["a"],
        *[["x", "y"]] * 5,
    ]
    several = [face and [face, face] for face in faces]
    expected, without_context = predictor.predict(texts, several, contexts), predictor.predict(texts, faces)
    prediction = served.predict(texts, several, contexts)
    np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-5)
    assert prediction.label == expected.label
    assert (prediction.predicted != prediction.probabilities.argmax(axis=1)).any()  # the logits decide, without biases
    single = np.concatenate(
        [served.predict([t], [f], [c]).probabilities for t, f, c in zip(texts, several, contexts, strict=True)]
    )
    np.testing.assert_allclose(single, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(served.predict(texts, faces).probabilities, without_context.probabilities, atol=1e-5)
    differs = np.abs(expected.probabilities - without_context.probabilities).max(axis=1) > 1e-6
    assert differs.tolist() == [any(lines) for lines in contexts]


def test_untrusted_inputs_in_one_batch(served, predictor):
    """Each utterance has the outputs that it has alone; `face_present` is false for pictures that cannot be read."""
    saved = served._saved_model
    inputs = requests(predictor.facts.face_size)["serving_default"]
    together = saved.run("serving_default", inputs)
    good = [name in ("crop", "other", "large", "png", "grey") for name in PICTURES]
    assert together["face_present"].tolist() == [good[i % len(good)] for i in range(len(TEXTS))]
    assert together["text_present"].tolist() == [bool(text.strip()) for text in TEXTS]
    for i in range(0, len(TEXTS), 5):
        alone = saved.run("serving_default", {name: value[i : i + 1] for name, value in inputs.items()})
        np.testing.assert_allclose(alone["probabilities"][0], together["probabilities"][i], atol=1e-5)
    without = inputs | {
        "face_jpeg": np.array([p if good[i % len(good)] else b"" for i, p in enumerate(inputs["face_jpeg"])], object)
    }
    np.testing.assert_allclose(saved.run("serving_default", without)["logits"], together["logits"], atol=1e-5)


def test_a_long_text_is_truncated_between_two_characters():
    from emotion_tf.serving.graph import MAX_TEXT_BYTES, truncate

    long = "é" * MAX_TEXT_BYTES
    texts = tf.constant([long, "a" + long, "ab\udcff".encode("utf-8", "surrogateescape"), "", "é😀", "a\0b"])
    truncated = [text.decode() for text in truncate(texts).numpy()]
    assert truncated == ["é" * (MAX_TEXT_BYTES // 2), "a" + "é" * (MAX_TEXT_BYTES // 2 - 1), "ab", "", "é😀", "a b"]


@pytest.mark.slow
def test_the_command_line_verifies_and_predicts(exported, predictor, succeed, fault):
    printed = succeed("export", exported, "--verify")
    assert "5 signatures, 7 labels" in printed and "Keras" in printed
    p = predictor.predict(["Yes!"]).probabilities.max()
    assert f"{p:.6f}" in succeed("predict", exported, "--text", "Yes!")
    assert "--verify checks an existing export" in fault("export", exported, "--verify", "--keep", "2")


def test_an_export_of_somebody_else_runs_in_a_process_with_limits(exported, served, rows, tmp_path, monkeypatch):
    from emotion_tf.serving.confined import ConfinedModel

    with monkeypatch.context() as patch:
        patch.setattr(verify, "check_outputs", lambda model: 0.0)  # `export` has compared them in this process
        assert "made or trusted by you" in verify.verify(exported)
    monkeypatch.setenv("EMOTION_TF_CONFIG", str(tmp_path))  # of another user
    other = ExportPredictor(Export.open(exported))
    assert isinstance(other._saved_model, ConfinedModel)
    texts, faces = rows
    probabilities = served.predict(texts, faces).probabilities
    np.testing.assert_allclose(other.predict(texts, faces).probabilities, probabilities, atol=1e-6)
    monkeypatch.setattr(verify, "open_model", lambda export: other._saved_model)
    assert "not made here by you: run in a process with limits" in verify.verify(exported)


def test_an_export_whose_file_was_changed_by_one_byte(copy, fault):
    for name in ("variables/variables.data-00000-of-00001", "saved_model.pb", "assets/labels.txt"):
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        for words in (("predict", copy, "--text", "Hi"), ("export", copy, "--verify")):
            message = fault(*words)
            assert name in message and "has changed" in message
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
    (copy / "assets" / "more.txt").write_text("")
    assert "more.txt does not belong to this export" in fault("predict", copy, "--text", "Hi")
    (copy / "assets" / "more.txt").unlink()
    (copy / "assets" / "labels.txt").unlink()
    assert "Received: no file" in fault("predict", copy, "--text", "Hi")
    (copy / "assets.extra" / "SHA256SUMS").unlink()
    assert "No export at" in fault("predict", copy, "--text", "Hi")
    assert "No run at" in fault("predict", copy / "variables", "--text", "Hi")


@pytest.mark.slow
def test_outputs_that_differ_from_those_of_keras(served, copy, exported, monkeypatch):
    monkeypatch.setattr(served._saved_model, "path", copy)
    assert verify.check_outputs(served._saved_model) < 1e-6
    requests = warmup.read_requests(exported / warmup.FILE)
    requests[3][2]["probabilities"][0, 0] += 1e-3
    warmup.write_requests(copy / warmup.FILE, "x", requests)
    with pytest.raises(UserError, match="The probabilities of explain differ"):
        verify.check_outputs(served._saved_model)
    warmup.write_requests(copy / warmup.FILE, "x", [])
    with pytest.raises(UserError, match="No warm-up request"):
        verify.check_outputs(served._saved_model)
    (copy / warmup.FILE).write_bytes(b"no record" * 9)
    with pytest.raises(UserError, match="Cannot read the warm-up requests"):
        verify.check_outputs(served._saved_model)


def test_verify_refuses_an_export_with_the_answers_of_another_model(served, copy, monkeypatch):
    request = warmup.read_requests(copy / warmup.FILE)[3]
    request[2]["probabilities"][0, 0] += 1e-3
    warmup.write_requests(copy / warmup.FILE, "x", [request])
    write_checksums(copy)
    monkeypatch.setattr(served._saved_model, "path", copy)
    monkeypatch.setattr(served._saved_model, "close", lambda: None)
    monkeypatch.setattr(verify, "open_model", lambda export: served._saved_model)
    with pytest.raises(UserError, match="The probabilities of explain differ"):
        verify.verify(copy)


def test_an_op_that_a_server_lacks_is_named(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
        def serve(self, utterance):
            return tf.strings.length(tf.py_function(lambda text: text, [utterance], tf.string))

    tf.saved_model.save(Module(), str(tmp_path))
    with pytest.raises(UserError, match=r"has the op EagerPyFunc \(node .*TensorFlow Serving 2\.18"):
        verify.check_ops(tmp_path)
    # RoundRobinTrim is not linked into TensorFlow Serving (github.com/tensorflow/serving/issues/2267)
    assert not {"TFText>RoundRobinTrim", "PyFunc"} & verify.allowed_ops()
    assert {"NoOp", "FastBertNormalize", "DecodeJpeg"} <= verify.allowed_ops()


@pytest.mark.slow
def test_a_plain_saved_model_is_refused(predictor, tmp_path):
    """It loads in Python, but no server can run it."""
    model = predictor.model
    module = tf.Module()
    module.model = model
    module.serve = tf.function(
        lambda ids, mask: model({**{n: ids for n in model.input if "face" not in n}, "face_mask": mask,
                                 "faces": tf.zeros((1, 1, 32, 32, 3), tf.uint8)}),
        input_signature=[tf.TensorSpec((1, 4), tf.int32), tf.TensorSpec((1, 1), tf.bool)], autograph=False,
    )  # fmt: skip
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    inputs = {"ids": np.ones((1, 4), np.int32), "mask": np.ones((1, 1), bool)}
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    assert loaded(**{name: tf.constant(value) for name, value in inputs.items()})["logits"].shape == (1, 7)
    with pytest.raises((UserError, tf.errors.OpError)):
        SavedModel(tmp_path).run("serving_default", inputs)


def test_a_signature_that_breaks_the_contract(served, monkeypatch):
    saved = served._saved_model
    changed = type(saved.signatures["serve_full"]).FromString(saved.signatures["serve_full"].SerializeToString())
    changed.inputs["more"].CopyFrom(changed.inputs["context"])
    monkeypatch.setitem(saved.signatures, "serve_full", changed)
    with pytest.raises(UserError, match="serve_full: Expected the inputs context .string, rank 2.*more"):
        verify.check_signatures(saved)
    monkeypatch.delitem(saved.signatures, "serve_full")
    with pytest.raises(UserError, match="No signature serve_full"):
        verify.check_signatures(saved)


def test_an_invalid_version_is_an_error_before_the_model_is_loaded(run, exported, untrained, fault, tmp_path):
    assert "serving/1 exists. Expected a new version" in fault("export", run.path, "--version", "1")
    for option, value in (("--version", "0"), ("--keep", "-1")):
        assert f"Invalid `{option}`. Expected a number from" in fault("export", run.path, option, value)
    assert [path.name for path in (run.path / "serving").iterdir()] == ["1"]
    unfinished = shutil.copytree(untrained, tmp_path / "run", ignore=lambda *_: ["model.keras"])
    assert "no model.keras" in fault("export", unfinished) and not (unfinished / "serving").exists()


def test_a_run_and_its_export_store_each_weight_once(run, exported, tmp_path):
    """model.keras has no optimizer, and the export no second copy of a weight."""
    size = sum(int(np.prod(v.shape)) for v in run.model.weights)
    stored = sum(
        int(np.prod(shape))
        for name, shape in tf.train.list_variables(str(exported / "variables" / "variables"))
        if "VARIABLE_VALUE" in name
    )
    assert stored <= 1.02 * size
    with zipfile.ZipFile(run.model_path) as archive:
        names = "".join(archive.namelist())
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as weights:
        assert "optimizer" not in weights
    assert "optimizer" not in names


def test_versions_are_numbered_and_kept(untrained_text, succeed, fault, tmp_path, monkeypatch):
    from emotion_tf.serving import export as module

    run = shutil.copytree(untrained_text, tmp_path / "run")
    (run / "serving" / "7").mkdir(parents=True)
    monkeypatch.setattr(module, "_write", lambda predictor, folder: (folder / "new").write_text(""))
    monkeypatch.setattr(module, "verify", lambda folder: None)
    assert "serving/8" in succeed("export", run)
    assert "serving/12" in succeed("export", run, "--version", "12", "--keep", "2")
    assert sorted(path.name for path in (run / "serving").iterdir()) == ["12", "8"]
    assert (run / "serving" / "12" / "new").exists()

    succeed("export", run, "--version", "3", "--keep", "2")  # the new version is kept, though it is not the highest
    assert sorted(path.name for path in (run / "serving").iterdir()) == ["12", "3"]
    succeed("export", run, "--keep", "9")

    def fail(folder):
        raise UserError("not so")

    monkeypatch.setattr(module, "verify", fail)  # a failed export gets no version
    assert fault("export", run, "--keep", "1") == "not so"
    assert sorted(path.name for path in (run / "serving").iterdir()) == ["12", "13", "3"]


@pytest.mark.slow
def test_a_disk_that_becomes_full(untrained, tmp_path):
    """No file of the version is left behind, whichever file did not fit."""
    run = shutil.copytree(untrained, tmp_path / "run")
    code = (
        "import resource, sys, pathlib, emotion_tf.serving.export as e\n"
        "from emotion_tf.runs.run import Run\n"
        "from emotion_tf.errors import UserError\n"
        "run = Run(pathlib.Path(sys.argv[1]))\n"
        "sys.dont_write_bytecode = True  # half of a compiled module would stay\n"
        "for limit in (100, 20_000, 400_000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try: print('exported', e.export(run))\n"
        "    except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr[-2000:]
    for line in lines:
        assert "Cannot write" in line and "Nothing was left behind" in line
    assert not (run / "serving").exists()
