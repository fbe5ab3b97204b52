"""TF-Hub encoders inside Keras: adopted variables, freezing, saved models that carry their encoder, remote handles."""

import http.server
import shutil
import subprocess
import sys
import tarfile
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf import weights
from emotion_tf.errors import UserError
from emotion_tf.models import hub_encoder
from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.hub_handles import load_vocabulary, resolve_encoder
from emotion_tf.models.hub_interface import INPUT_NAMES
from emotion_tf.models.hub_module import part_of
from emotion_tf.models.parameter_groups import PretrainedLayer

CONFIG = BertConfig(vocab_size=20, hidden=16, layers=2, heads=2, intermediate=32, positions=12, dropout=0.3)
SPEC = tf.TensorSpec((None, None), tf.int32)
DICT = dict.fromkeys(INPUT_NAMES, SPEC)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(16))]


def batch(rows=4, length=6):
    ids = np.random.default_rng(0).integers(1, 20, (rows, length)).astype(np.int32)
    return dict(zip(INPUT_NAMES, (ids, np.ones_like(ids), ids % 2), strict=True))


LABELS = np.array([0, 1, 2, 0])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT as a SavedModel folder."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    save_bert(BertModule(CONFIG, folder / "vocab.txt", seed=3), folder / "saved")
    return str(folder / "saved")


class Foreign(tf.Module):
    """The smallest module with an encoder's outputs: two tables, the second of them declared frozen or not."""

    def __init__(self):
        super().__init__()
        self.table = tf.Variable(tf.random.stateless_normal((20, 4), (0, 1)), name="table")
        self.kinds = tf.Variable(tf.random.stateless_normal((2, 4), (0, 2)), name="kinds")

    def encode(self, ids, types):
        sequence = tf.gather(self.table, ids) + tf.gather(self.kinds, types)
        return tf.reduce_mean(sequence, axis=1), sequence


class Root(tf.Module):
    """A module whose list of trainable variables is a plain attribute, as in TF-Hub's."""

    trainable_variables = None


def save_foreign(path, function, specs, **attributes):
    """Saves a Foreign module whose __call__ is `function(module, ...)`, traced with each of `specs`."""
    module, root = Foreign(), Root()
    root.__call__ = tf.function(lambda *args, **kwargs: function(module, *args, **kwargs))
    for args, kwargs in specs:
        root.__call__.get_concrete_function(*args, **kwargs)
    root.module = module
    for name, value in attributes.items():
        setattr(root, name, value(module) if callable(value) else value)
    tf.saved_model.save(root, str(path))
    return str(path)


def classifier(encoder):
    """The encoder between other layers of a functional model, as the text tower uses it."""
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
    outputs = encoder(inputs)
    mean = keras.layers.GlobalAveragePooling1D()(outputs["sequence_output"])
    joined = keras.layers.Concatenate()([outputs["pooled_output"], mean])
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(joined))


def compiled(model, eager=True):
    """Ready to train; eager, because a graph of the training step takes longer to make than all its uses here."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2, clipnorm=1.0), loss, jit_compile=False, run_eagerly=eager)
    return model


def values(layer):
    return {w.name: w.numpy() for w in layer.weights}


def changed_names(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.fixture(scope="module")
def trained(bert):
    """A model after one step of AdamW, with the encoder's weights before it."""
    model = compiled(classifier(HubEncoder(bert, name="encoder")), eager=False)
    before = values(model.get_layer("encoder"))
    model.fit(batch(), LABELS, batch_size=4, verbose=0)
    return model, before


def test_keras_allows_replacing_the_variable_of_a_weight():
    """Fails when a Keras release changes the private `Variable._value` that HubEncoder rests on."""
    layer = keras.layers.Layer()
    weight = layer.add_weight(shape=(2,), initializer="zeros", name="w")
    variable = tf.Variable([1.0, 2.0])
    assert isinstance(weight._value, tf.Variable), (
        "keras.Variable._value is no longer the tf.Variable: see HubEncoder._adopt"
    )
    weight._value = variable
    weight.assign([3.0, 4.0])
    assert weight.value is variable and variable.numpy().tolist() == [3.0, 4.0]


def test_one_step_trains_every_used_weight_and_counts_dropout(trained):
    model, before = trained
    encoder = model.get_layer("encoder")
    assert len(encoder.trainable_weights) == len(CONFIG.shapes()) and len(encoder.non_trainable_weights) == 3
    moved = changed_names(before, values(encoder))
    assert moved == {w.name for w in encoder.trainable_weights} | {"dropout_counter"}
    assert values(encoder)["dropout_counter"] == 1


def test_outputs_equal_those_of_the_module(bert):
    encoder, inputs = HubEncoder(bert), batch()
    expected = tf.saved_model.load(bert)({k: tf.constant(v) for k, v in inputs.items()}, training=False)
    outputs = encoder(inputs)
    assert set(outputs) == {"pooled_output", "sequence_output"}
    for name in outputs:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-6)
    spec = encoder.compute_output_spec({k: keras.KerasTensor((None, 6), "int32") for k in INPUT_NAMES})
    assert spec["pooled_output"].shape == (None, 16) and spec["sequence_output"].shape == (None, 6, 16)


def test_frozen_is_bit_identical_and_can_be_unfrozen_and_frozen_again(bert):
    model = compiled(classifier(HubEncoder(bert, trainable=False, name="encoder")))
    encoder = model.get_layer("encoder")
    before = values(encoder)
    model.fit(batch(), LABELS, verbose=0)
    assert encoder.trainable_weights == [] and len(model.trainable_weights) == 2
    assert changed_names(before, values(encoder)) == set()
    encoder.trainable = True
    compiled(model).fit(batch(), LABELS, verbose=0)
    assert len(encoder.trainable_weights) == len(CONFIG.shapes())
    after = values(encoder)
    assert changed_names(before, after) == {w.name for w in encoder.trainable_weights} | {"dropout_counter"}
    encoder.trainable = False
    compiled(model).fit(batch(), LABELS, verbose=0)
    assert changed_names(after, values(encoder)) == set()


def test_checkpoint_holds_the_encoder_and_its_dropout(trained, bert, tmp_path):
    model, _ = trained
    model.save_weights(tmp_path / "a.weights.h5")
    other = classifier(HubEncoder(bert, name="encoder"))
    other.load_weights(tmp_path / "a.weights.h5")
    assert changed_names(values(model.get_layer("encoder")), values(other.get_layer("encoder"))) == set()
    np.testing.assert_array_equal(model(batch()), other(batch()))


FRESH = """
import sys, numpy as np, tensorflow as tf, keras, emotion_tf.models.hub_encoder
inputs = dict(np.load(sys.argv[1] + "/inputs.npz"))
model = keras.saving.load_model(sys.argv[1] + "/a.keras", compile=False)
assert len(model.get_layer("encoder").trainable_weights) == int(sys.argv[2])
model.save(sys.argv[1] + "/b.keras")
again = keras.saving.load_model(sys.argv[1] + "/b.keras", compile=False)
archive = keras.export.ExportArchive()
archive.track(again)
spec = {k: keras.InputSpec(shape=(None, None), dtype="int32", name=k) for k in inputs}
archive.add_endpoint("serve", lambda x: again(x, training=False), [spec])
archive.write_out(sys.argv[1] + "/export", verbose=False)
np.savez(sys.argv[1] + "/outputs.npz", first=model(inputs), again=again(inputs))

# Training from the same seed gives the same bits, from another seed others.
tf.config.experimental.enable_op_determinism()
encoder, start, ends = again.get_layer("encoder"), again.get_weights(), []
for seed in (5, 5, 6):
    again.set_weights(start)
    assert encoder.reseed(seed)
    again.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    again.train_on_batch(inputs, np.ones((4, 3)))
    ends.append(encoder.get_weights()[0])
assert np.array_equal(ends[0], ends[1]) and not np.array_equal(ends[0], ends[2])
"""


@pytest.mark.slow
def test_a_run_loads_in_a_process_without_the_handle_of_its_encoder(bert, tmp_path, monkeypatch):
    """.keras -> fresh process -> .keras -> export, all bit-identical, with the handle deleted."""
    handle = tmp_path / "handle"
    shutil.copytree(bert, handle)
    model = compiled(classifier(HubEncoder(str(handle), name="encoder")))
    model.train_on_batch(batch(), LABELS)
    shutil.rmtree(handle)
    model.save(tmp_path / "a.keras")
    expected = model(batch()).numpy()
    np.savez(tmp_path / "inputs.npz", **batch())
    arguments = [sys.executable, "-c", FRESH, str(tmp_path), str(len(CONFIG.shapes()))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    np.testing.assert_array_equal(outputs["first"], expected)
    np.testing.assert_array_equal(outputs["again"], expected)
    exported = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(exported.serve({k: tf.constant(v) for k, v in batch().items()}), expected, atol=1e-6)
    monkeypatch.setattr(hub_encoder, "_LOADED", {})  # as in a process that has no such layer
    clone = HubEncoder.from_config(model.get_layer("encoder").get_config())
    with pytest.raises(ValueError, match="has no module"):
        clone.call(batch())


def test_reloaded_encoder_can_be_frozen_and_cloned(trained, tmp_path):
    model, _ = trained
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    clone = keras.models.clone_model(loaded)
    clone.set_weights(loaded.get_weights())
    np.testing.assert_array_equal(clone(batch()), model(batch()))
    loaded.get_layer("encoder").trainable = False
    assert len(loaded.trainable_weights) == 2
    compiled(loaded).fit(batch(), LABELS, verbose=0)
    assert changed_names(values(model.get_layer("encoder")), values(loaded.get_layer("encoder"))) == set()


def test_policy_does_not_reach_the_encoder(bert):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = HubEncoder(bert)
        model = classifier(encoder)
    finally:
        keras.config.set_dtype_policy("float32")
    assert encoder(batch())["pooled_output"].dtype == tf.float32 and model(batch()).dtype == tf.bfloat16


def dict_outputs(module, inputs, training=None):
    pooled, sequence = module.encode(inputs["input_word_ids"], inputs["input_type_ids"])
    return {"pooled_output": pooled, "sequence_output": sequence * (2.0 if training else 1.0), "default": pooled}


def list_to_tuple(module, inputs):
    return module.encode(inputs[0], inputs[2])


def dict_no_training(module, inputs):
    return dict_outputs(module, inputs)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Folders of modules as they are met: nested trainable variables, tuple outputs, no list of variables at all."""
    folder = tmp_path_factory.mktemp("foreign")
    traces = [((DICT,), {"training": mode}) for mode in (False, True)]
    return {
        "nested": save_foreign(folder / "a", dict_outputs, traces, trainable_variables=lambda m: [[m.table], []]),
        "tuple": save_foreign(
            folder / "b", list_to_tuple, [(([SPEC] * 3,), {})], trainable_variables=lambda m: [m.table, m.kinds]
        ),
        "plain": save_foreign(folder / "c", dict_no_training, [((DICT,), {})]),
        "none": save_foreign(folder / "d", dict_no_training, [((DICT,), {})], trainable_variables=[]),
    }


@pytest.mark.parametrize(
    ("kind", "trained"), [("nested", {"table"}), ("tuple", {"table", "kinds"}), ("plain", {"table", "kinds"})]
)
def test_foreign_modules_train_what_they_declare(foreign, kind, trained):
    encoder = HubEncoder(foreign[kind], trainable=False)
    model = classifier(encoder)
    encoder.trainable = True
    assert {w.name for w in encoder.trainable_weights} == trained
    before = values(encoder)
    compiled(model).train_on_batch(batch(), LABELS)
    assert changed_names(before, values(encoder)) == trained


def test_training_argument_reaches_the_module_unless_frozen(foreign):
    encoder = HubEncoder(foreign["nested"])
    plain = encoder(batch(), training=False)["sequence_output"]
    np.testing.assert_allclose(encoder(batch(), training=True)["sequence_output"], 2 * plain)
    encoder.trainable = False
    np.testing.assert_array_equal(encoder(batch(), training=True)["sequence_output"], plain)


def test_module_without_trainable_variables(foreign):
    with pytest.raises(UserError, match="no trainable variables"):
        HubEncoder(foreign["none"])
    assert HubEncoder(foreign["none"], trainable=False).weights
    assert HubEncoder(foreign["none"], trainable=False).reseed(1) is False


def test_modules_that_are_no_encoders_are_refused_with_their_signatures(tmp_path):
    text = save_foreign(tmp_path / "a", lambda m, x: tf.strings.lower(x), [((tf.TensorSpec((None,), tf.string),), {})])
    with pytest.raises(UserError, match=r"Expected int32 inputs.*Found: .*string"):
        HubEncoder(text)
    pooled = save_foreign(
        tmp_path / "b", lambda m, x: {"pooled_output": dict_outputs(m, x)["default"]}, [((DICT,), {})]
    )
    with pytest.raises(UserError, match=r"Expected outputs.*Found: .*pooled_output"):
        HubEncoder(pooled)
    tf.saved_model.save(Foreign(), str(tmp_path / "c"))
    with pytest.raises(UserError, match="cannot be called"):
        HubEncoder(str(tmp_path / "c"))


def test_vocabulary(bert, foreign):
    assert load_vocabulary(bert) == (PIECES, True)
    with pytest.raises(UserError, match="no vocabulary"):
        load_vocabulary(foreign["plain"])


@pytest.mark.parametrize(("pieces", "lower"), [(["[UNK]", "he"], True), (["[UNK]", "He"], False)])
def test_case_of_a_vocabulary_without_a_flag(foreign, tmp_path, pieces, lower):
    shutil.copytree(foreign["plain"], tmp_path / "m", dirs_exist_ok=True)
    (tmp_path / "m/assets").mkdir(exist_ok=True)
    (tmp_path / "m/assets/vocab.txt").write_text("\n".join(pieces))
    assert load_vocabulary(str(tmp_path / "m")) == (pieces, lower)


@pytest.fixture
def server(bert, tmp_path):
    """Serves the encoder as tfhub.dev does, at /good; anything else is 404, or a page of HTML at /page."""
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        archive.add(bert, arcname=".")
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            bodies = {
                "/good/1?tf-hub-format=compressed": (tmp_path / "m.tar.gz").read_bytes(),
                "/page?tf-hub-format=compressed": b"<html>Not here</html>",
            }
            self.send_response(200 if self.path in bodies else 404)
            self.end_headers()
            self.wfile.write(bodies.get(self.path, b""))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    return tmp_path / "cache"


def test_remote_handle_is_downloaded_once_into_the_cache(server, cache, bert):
    url, requests = server
    path = resolve_encoder(f"{url}/good/1")
    assert path.startswith(str(cache / "tfhub")) and resolve_encoder(f"{url}/good/1") == path and len(requests) == 1
    np.testing.assert_array_equal(
        HubEncoder(path)(batch())["pooled_output"], HubEncoder(bert)(batch())["pooled_output"]
    )


@pytest.mark.parametrize(("path", "reason"), [("/absent", "404"), ("/page", "valid module")])
def test_bad_remote_handles_name_the_alternatives(server, cache, path, reason):
    with pytest.raises(UserError, match=f"{reason}.*local SavedModel.*weights fetch minilm"):
        resolve_encoder(server[0] + path)


def test_no_network_names_the_alternatives(cache):
    with pytest.raises(UserError, match=r"refused.*local SavedModel.*weights fetch minilm"):
        resolve_encoder("http://127.0.0.1:9/google/bert/1")


def test_local_handles(bert, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py"])  # pytest may be another program
    assert resolve_encoder(bert) == bert
    with pytest.raises(UserError, match=r"no saved_model\.pb"):
        resolve_encoder(str(tmp_path))
    (tmp_path / "tfhub_module.pb").write_text("")
    with pytest.raises(UserError, match="TF1"):
        resolve_encoder(str(tmp_path))
    with pytest.raises(UserError, match=r"python main\.py weights fetch minilm"):
        resolve_encoder("minilm")
    with pytest.raises(UserError, match="Did you mean 'minilm'"):
        resolve_encoder("minilmm")
    folder = cache / "weights" / weights.TABLE["minilm"].folder.name
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_text("")
    assert resolve_encoder("minilm") == str(folder)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("layer_3.attention.qkv.kernel", "3"),
        ("transformer/layer_11/self_attention/query/kernel", "11"),
        ("bert.encoder.layer_0.output.dense.kernel", "0"),
        ("encoder/layers/2/bias", "2"),
        ("embeddings.word", "embeddings"),
        ("word_embeddings/embeddings", "embeddings"),
        ("position_embedding/embeddings", "embeddings"),
        ("embeddings/layer_norm/gamma", "embeddings"),
        ("pooler_transform/kernel", "pooler"),
        ("variable_3", ""),
        ("dense/kernel", ""),
    ],
)
def test_the_part_that_a_variable_belongs_to(name, part):
    assert part_of(name) == part


def test_frozen_embeddings_stay_while_the_rest_trains(bert):
    model = compiled(classifier(HubEncoder(bert, frozen=("embeddings", "pooler"), name="encoder")))
    encoder = model.get_layer("encoder")
    names = {w.name for w in encoder.trainable_weights}
    assert names and all(name.startswith("layer_") for name in names)
    assert all(f"layer_{part}." in weight.name for weight, part in encoder.parts)
    before = values(encoder)
    model.train_on_batch(batch(), LABELS)
    assert changed_names(before, values(encoder)) == {*names, "dropout_counter"}
    again = keras.layers.deserialize(keras.layers.serialize(encoder))
    assert [w.name for w in again.trainable_weights] == [w.name for w in encoder.trainable_weights]


def test_embeddings_without_a_recognised_name_cannot_be_frozen(foreign):
    with pytest.raises(UserError, match="no variable of the encoder .* is named after an embedding"):
        HubEncoder(foreign["tuple"], frozen=("embeddings",))


def test_longest_input(bert, foreign):
    assert HubEncoder(bert).positions == CONFIG.positions
    assert HubEncoder(foreign["tuple"], trainable=False).positions is None


def test_layer_decay_slows_lower_layers(bert, foreign):
    encoder = HubEncoder(bert, frozen=("pooler",))
    rates = {variable.name: rate for variable, rate in PretrainedLayer(encoder, layer_decay=0.5).learning_rates(0.1)}
    by_part = {"layer_1": 0.1, "layer_0": 0.05, "embeddings": 0.025}
    assert len(rates) > 20 and all(rate == by_part[name.split(".")[0]] for name, rate in rates.items())
    assert {rate for _, rate in PretrainedLayer(HubEncoder(bert)).learning_rates(0.1)} == {0.1}
    unnamed = HubEncoder(foreign["tuple"])
    assert {rate for _, rate in PretrainedLayer(unnamed).learning_rates(0.1)} == {0.1}
    with pytest.raises(UserError, match=r"--text\.layer-decay: the names .* do not denote its layers.*table"):
        PretrainedLayer(unnamed, layer_decay=0.5)
