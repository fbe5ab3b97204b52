"""The set-up of a training: what is known before the first epoch, and what is refused."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from helpers import build_setup, train_run, training_data

from emotion_tf import schema
from emotion_tf.data import pipeline
from emotion_tf.data.tokenizer import WordVocabulary
from emotion_tf.errors import UserError
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.runs.run import Run
from emotion_tf.training import setup as training_setup
from emotion_tf.training.statistics import collect_statistics


def change(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@pytest.fixture(scope="module")
def text_config(small_config):
    return dataclasses.replace(small_config, towers=("text",))


def weights(model):
    return [np.array(v) for v in model.weights]


def texts(data, split):
    return [row["utterance"].lower() for row in pipeline.read_rows(data.dataset.rows(split))]


def test_the_word_vocabulary_is_made_from_the_training_split_alone(text_config):
    setup = build_setup(text_config)
    of_train, of_test = (" ".join(texts(setup.data, split)) for split in ("train", "test"))
    words = [w for w in of_test.replace(".", "").replace(",", "").split() if w.isalpha() and w not in of_train]
    assert words and not set(setup.words.words) & set(words)
    assert set(setup.words.words) & set(of_train.split()) and ":" not in setup.words.words


def test_with_context_the_speakers_are_words_too(text_config):
    setup = build_setup(dataclasses.replace(text_config, text=dataclasses.replace(text_config.text, context=1)))
    names = {word for row in pipeline.read_rows(setup.data.train) for word in row["speaker"].lower().split()} | {":"}
    assert names <= set(setup.words.words)


def test_rows_classes_and_updates_are_counted(text_config, dataset):
    setup = build_setup(change(text_config, batch_size=10, accumulate=3))
    train = json.loads((dataset / "dataset_info.json").read_text())["splits"]["train"]
    assert setup.counts.tolist() == [train["per_class"].get(label, 0) for label in setup.data.spec.labels]
    assert setup.utterances == train["records"]
    assert setup.update_rows == 30 and setup.steps == -(-train["records"] // 30)
    short = dataclasses.replace(setup, config=change(setup.config, steps_per_epoch=2))
    long = dataclasses.replace(setup, config=change(setup.config, steps_per_epoch=10_000))
    assert (short.steps, long.steps) == (2, setup.steps)
    shards = setup.data.shards(setup.data.dev)
    dev = setup.data.dataset.splits["dev"].shards
    assert shards == {str(dataset / shard.file): shard.sha256 for shard in dev}


def test_the_same_seed_gives_the_same_weights(text_config):
    first, again, other = (build_setup(change(text_config, seed=seed)) for seed in (3, 3, 4))
    for a, b in zip(weights(first.model), weights(again.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(weights(first.model), weights(other.model), strict=True))


def test_word_vectors_set_the_width_and_leave_the_configuration(text_config, tmp_path):
    vectors = tmp_path / "glove.txt"
    vectors.write_text("the 1.5 2.5 0.5\nyou -1 0.125 2\n")
    config = dataclasses.replace(
        text_config, text=dataclasses.replace(text_config.text, word_dim=9, embeddings=str(vectors))
    )
    lines = []
    setup = build_setup(config, say=lines.append)
    assert setup.config == config and setup.embedding_shape == (len(setup.words), 3)
    table = np.asarray(setup.model.towers["text"].find_layer("word_embedding").embeddings)
    assert table.shape == setup.embedding_shape
    ids = {word: i for i, word in enumerate(setup.words.words, len(setup.words) - len(setup.words.words))}
    np.testing.assert_array_equal(table[[ids["the"], ids["you"]]], [[1.5, 2.5, 0.5], [-1, 0.125, 2]])
    assert any(line.startswith(f"Word embeddings of {vectors}: 2 of ") for line in lines)
    # the run remembers the width, and a checkpoint that is going to replace the weights needs no file
    run = Run(tmp_path / "run")
    training_setup.create_run(run, setup, "pytest", overwrite=False, initial=["a (text) has not seen test."])
    assert run.word_dim == 3 and run.config == config
    assert run.info.initial == ("a (text) has not seen test.",)
    vectors.unlink()
    data = training_data(config)
    resumed = training_setup.build_setup(config, data, PretrainedFiles(), lines.append, run.word_dim)
    assert resumed.embedding_shape == setup.embedding_shape
    assert [v.shape for v in resumed.variables] == [v.shape for v in setup.variables]
    with pytest.raises(UserError, match="Cannot read the word embeddings"):
        build_setup(config)


def test_freezing_leaves_the_order_of_the_variables(bert_config, tiny_bert):
    """By which checkpoints know them."""
    setup = build_setup(change(bert_config, ema=0.9, auxiliary_weight=0.5), tiny_bert)
    means = [mean for mean, _ in setup.average.pairs]
    before = [id(v) for v in (*setup.network.variables, *means)]
    assert [id(v) for v in setup.variables] == before
    for trainable in (False, True):
        for layer in setup.model.pretrained:
            layer.set_trainable(trainable)
        assert [id(v) for v in (*setup.network.variables, *means)] == before


def test_the_number_of_trainable_parameters_is_reported(bert_config, tiny_bert):
    for train_encoder in (True, False):
        lines = []
        text = dataclasses.replace(bert_config.text, branches=("bert",), train_encoder=train_encoder)
        setup = build_setup(dataclasses.replace(bert_config, towers=("text",), text=text), tiny_bert, lines.append)
        bert = setup.model.towers["text"].find_layer("bert").trainable_weights
        assert f"{setup.model.count_params():,} parameters" in lines[-1]
        assert f"(BERT: {sum(int(np.prod(v.shape)) for v in bert):,} in {len(bert)} variables)" in lines[-1]
        assert bool(bert) == train_encoder


def test_the_dropout_of_an_encoder_has_the_seed_of_the_run(bert_config, tiny_bert):
    setup = build_setup(change(bert_config, seed=5), tiny_bert)
    states = {v.name: int(v.value) for v in setup.model.towers["text"].weights if "dropout_seed" in v.name}
    assert set(states.values()) == {5}, states


def test_data_without_faces_are_refused_by_a_face_tower_alone(small_config, monkeypatch):
    read = pipeline.read_rows
    monkeypatch.setattr(pipeline, "read_rows", lambda rows: ({**row, "faces": 0} for row in read(rows)))
    with pytest.raises(UserError, match="has no face to learn from. Expected --towers text"):
        build_setup(dataclasses.replace(small_config, towers=("face",)))


def test_data_without_text_are_refused(text_config, monkeypatch, tmp_path):
    read = pipeline.read_rows
    monkeypatch.setattr(pipeline, "read_rows", lambda rows: ({**row, "utterance": " "} for row in read(rows)))
    with pytest.raises(UserError, match="has no text to learn from. Expected --towers face"):
        train_run(text_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_context_than_the_data_store_is_refused(text_config, tmp_path):
    wide = dataclasses.replace(text_config, text=dataclasses.replace(text_config.text, future=99))
    with pytest.raises(UserError, match="Expected at least the 99 of --text.future"):
        train_run(wide, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_a_split_are_refused(text_config):
    data = training_data(text_config)
    train_alone = dataclasses.replace(data.dataset, splits={"train": data.dataset.splits["train"]})
    with pytest.raises(UserError, match="No split 'dev'"):
        type(data).of_splits(train_alone)


@pytest.mark.parametrize("context", [{}, {"context": 1}, {"future": 1}, {"context": 1, "future": 1}])
def test_the_shares_of_the_training_without_a_modality(small_config, context):
    """By hand: weighted rows without text or face, of what modality dropout leaves; context that is read is text."""
    rows = [
        {"label": 0, "speaker": "", "utterance": text, "faces": faces, "weight": weight}
        | {"context": before, "future": after}
        for text, faces, weight, before, after in (
            ("Yes.", 1, 1.0, 2, 0), (" ", 0, 0.0, 0, 0), ("", 1, 0.5, 2, 0), ("", 0, 0.5, 0, 1), ("", 2, 2.0, 0, 0)
        )
    ]  # fmt: skip
    text = 2.0 + 0.5 * ("context" not in context) + 0.5 * ("future" not in context)
    for dropout in (0.0, 0.25):
        config = dataclasses.replace(
            small_config,
            text=dataclasses.replace(small_config.text, **context),
            fusion=dataclasses.replace(small_config.fusion, modality_dropout=dropout),
        )
        expected = {"text": 1 - (1 - dropout) * (4 - text) / 4, "face": 1 - (1 - dropout) * 3.5 / 4}
        assert collect_statistics(config, rows).absent_shares(config) == pytest.approx(expected)


def test_text_is_absent_as_in_the_model(small_config):
    utterances, lines = ["Yes.", "", " ", "", " "], [[], [], [], ["", "Ada: No."], ["Ada: No.", ""]]
    rows = [
        {"label": 0, "speaker": "", "utterance": text, "faces": 0, "weight": 1.0, "future": 0}
        | {"context": len([*filter(None, before)])}
        for text, before in zip(utterances, lines, strict=True)
    ]
    for context, share in ((0, 0.8), (1, 0.4)):
        config = dataclasses.replace(small_config, text=dataclasses.replace(small_config.text, context=context))
        setup = build_setup(config)
        inputs = setup.preprocess({"utterance": tf.constant(utterances), "context": tf.ragged.constant(lines)})
        assert np.mean(~np.asarray(setup.model(inputs)["text/present"])) == pytest.approx(share)
        assert collect_statistics(config, rows).absent_shares(config) == pytest.approx({"text": share, "face": 1.0})


def test_rows_are_not_held_when_their_statistics_are_collected(small_config):
    """The peak grows by a few bytes a row, and words and labels are those of all rows at once."""

    def rows(count):
        for i in range(count):
            text = f"well {'no' * 50}{i % 7}"
            row = {"label": i % 7, "weight": 1.0, "speaker": "", "utterance": text}
            yield row | {"faces": 0, "context": 0, "future": 0}

    def peak(count):
        tracemalloc.start()
        statistics = collect_statistics(small_config, rows(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, statistics

    collect_statistics(small_config, rows(10))  # what is imported and traced once
    (less, _), (more, statistics) = peak(3 * 4096), peak(6 * 4096)
    assert more - less < 3 * 4096 * 32
    at_once = WordVocabulary.from_utterances([row["utterance"] for row in rows(6 * 4096)], 5000)
    assert (statistics.words.words, statistics.words.frequencies) == (at_once.words, at_once.frequencies)
    assert statistics.label.tolist() == [i % 7 for i in range(6 * 4096)]


def test_lines_around_an_utterance_are_counted(small_config):
    rows = training_data(small_config).train
    counts = [(row["context"], row["future"]) for row in pipeline.read_rows(rows)]
    raw = schema.parse_examples(tf.stack([record for _, record in rows.enumerate_records()]), ["context", "future"])
    empty = [[sum(map(bool, lines)) for lines in raw[name].to_list()] for name in ("context", "future")]
    assert counts == list(zip(*empty, strict=True)) and any(map(any, counts))
