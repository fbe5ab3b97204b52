"""Batches: contents, order and padding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from small_tables import write_table

from emotion_tf.config import TextConfig
from emotion_tf.data import manifest, pipeline, records
from emotion_tf.data.augment import augment_faces
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.pipeline import EpochOrder, eval_batches, sorted_batches, train_batches
from emotion_tf.data.preprocess import FACE_NAMES, TEXT_NAMES, WORD_NAMES, Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, learn_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.labels import MELD_EMOTIONS

BATCH = 8


@pytest.fixture(scope="module")
def data(dataset):
    opened = Dataset.open(dataset)
    return {split: opened.rows(split) for split in opened.splits}, opened


@pytest.fixture(scope="module")
def preprocess(data):
    words = WordVocabulary.from_utterances((row["utterance"] for row in pipeline.read_rows(data[0]["train"])), 500)
    return Preprocessor((*TEXT_NAMES, *WORD_NAMES, *FACE_NAMES), 32, TextConfig(), words=words)


class Plain:
    """A preprocessor that returns the features of the record."""

    context_fields = ()
    text = TextConfig()
    calls = 0

    def __call__(self, raw):
        self.calls += 1
        assert raw.get("context") is None and raw.get("future") is None
        return {"utterance": raw["utterance"], "face_jpeg": raw["face_jpeg"], "length": raw["tokens"].row_lengths()}


plain = Plain()


@pytest.fixture(scope="module")
def epoch_batches(data):
    """Function from an epoch to the batches of the training split."""
    return train_batches(data[0]["train"], plain, BATCH, None)


def texts(batches) -> list[list[bytes]]:
    return [inputs["utterance"].numpy().tolist() for inputs, _, _ in batches]


def flat(batches) -> list[bytes]:
    return [text for batch in texts(batches) for text in batch]


def test_every_record_once_an_epoch(data, epoch_batches):
    paths, opened = data
    batches = list(epoch_batches(EpochOrder(0, 0)))
    count = opened.splits["train"].records
    expected = [row["utterance"].encode() for row in pipeline.read_rows(paths["train"])]
    assert Counter(flat(batches)) == Counter(expected) and len(set(expected)) == count
    assert len(batches) == -(-count // BATCH)
    assert sorted(len(label) for _, label, _ in batches)[1:] == [BATCH] * (len(batches) - 1)


def test_label_weight_and_faces_stay_with_their_utterance(data, epoch_batches):
    paths, _ = data

    def rows(batches):
        return {
            text: (label, weight, tuple(jpeg for jpeg in faces if jpeg))
            for inputs, labels, weights in batches
            for text, faces, label, weight in zip(
                inputs["utterance"].numpy(), inputs["face_jpeg"].numpy(), labels.numpy(), weights.numpy(), strict=True
            )
        }

    shuffled = rows(epoch_batches(EpochOrder(3, 1)))
    assert shuffled == rows(eval_batches(paths["train"], plain, 50))
    labels = {row["utterance"].encode(): row["label"] for row in pipeline.read_rows(paths["train"])}
    assert {text: label for text, (label, _, _) in shuffled.items()} == labels


def test_the_order_follows_from_seed_and_epoch(data):
    paths, _ = data
    preprocess = Plain()
    epoch_batches = train_batches(paths["train"], preprocess, BATCH, None)
    orders = {o: texts(epoch_batches(EpochOrder(*o))) for o in ((0, 0), (0, 1), (1, 0))}
    assert preprocess.calls == 1  # traced once for all epochs
    assert texts(train_batches(paths["train"], plain, BATCH, augment_faces)(EpochOrder(0, 0))) == orders[0, 0]
    mixed = [[sorted(batch) for batch in order] for order in orders.values()]
    for i, first in enumerate(mixed):
        for second in mixed[i + 1 :]:
            assert sum(batch in second for batch in first) <= 2  # other batches, not the same ones in another order


def test_the_order_of_an_epoch_is_a_permutation_that_never_changes():
    """Runs are continued with it, by other releases of NumPy too."""
    assert EpochOrder(0, 0).shuffle(np.arange(8)).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert EpochOrder(7, 2).shuffle(10 * np.arange(8)).tolist() == [60, 40, 0, 50, 70, 10, 30, 20]
    for order in (EpochOrder(0, 0), EpochOrder(2**32 - 1, 10_000)):
        assert sorted(order.shuffle(np.arange(1000))) == list(range(1000))


def test_all_orders_are_equally_likely():
    """Of 3 records in 6,000 epochs; chi-squared with 5 degrees of freedom is below its 99.9 % quantile."""
    counts = Counter(tuple(EpochOrder(seed, e).shuffle(np.arange(3))) for seed in (0, 1) for e in range(3000))
    assert len(counts) == 6 and sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 20.5


def test_sixty_thousand_rows_sorted_by_class_are_mixed():
    """Batches of 32 have the classes of random draws; where a row is in the file says nothing of when it is read."""
    rows, classes, batch = 60_000, 6, 32
    for epoch in range(2):
        order = EpochOrder(0, epoch).shuffle(np.arange(rows))
        label = order * classes // rows
        counts = (label.reshape(-1, batch, 1) == np.arange(classes)).sum(axis=1)  # of each batch
        expected, variance = batch / classes, batch / classes * (1 - 1 / classes)
        assert np.abs(counts.var(axis=0) / variance - 1).max() < 0.15  # 5 standard errors
        tenths = label.reshape(10, -1, 1) == np.arange(classes)  # of each tenth of the epoch
        assert np.abs(tenths.mean(axis=1) - 1 / classes).max() < 0.025
        assert counts.mean() == expected
        assert abs(np.corrcoef(np.arange(rows), order)[0, 1]) < 5 / rows**0.5


def test_batches_follow_the_order_of_the_epoch(data, epoch_batches):
    """Records are taken in this order; a pool of batches is sorted by length."""
    paths, opened = data
    order = EpochOrder(5, 3)
    utterances = [row["utterance"].encode() for row in pipeline.read_rows(paths["train"])]
    count = opened.splits["train"].records
    expected = [utterances[i] for i in order.shuffle(np.arange(count))]
    pool = BATCH * pipeline.pool_batches(BATCH, count)
    received = flat(epoch_batches(order))
    assert count > pool > BATCH
    for start in range(0, count, pool):
        assert sorted(received[start : start + pool]) == sorted(expected[start : start + pool])
    some = paths["train"].select(range(3, count, 5))
    expected = [utterances[i] for i in order.shuffle(np.arange(3, count, 5))]
    assert sorted(flat(train_batches(some, plain, 1, None)(order))[:16]) == sorted(expected[:16])


@pytest.mark.parametrize(("rows", "batches"), [(10, 1), (32 * 4 * 7, 7), (32 * 4 * 7 - 1, 6), (100_000, 50)])
def test_a_pool_is_a_quarter_of_a_small_data_set(rows, batches):
    assert pipeline.pool_batches(32, rows) == batches


@pytest.mark.parametrize(("batch_size", "batches"), [(8, 50), (64, 50), (256, 16), (5000, 1)])
def test_a_pool_of_large_batches_fits_into_memory(batch_size, batches):
    assert pipeline.pool_batches(batch_size) == pipeline.pool_batches(batch_size, 10**7) == batches


def test_epochs_of_neighbouring_seeds_differ():
    """Epoch 1 of seed 0 must not be epoch 0 of seed 1; and seeds fit what TensorFlow takes."""
    seeds = [EpochOrder(seed, epoch).mixed for seed in (0, 1, 2**32 - 1) for epoch in range(50)]
    assert len(set(seeds)) == len(seeds) and min(seeds) >= 0 and max(seeds) + 1 < 2**31


def test_one_data_set_gives_the_same_epoch_twice(data):
    epoch = train_batches(data[0]["dev"], plain, BATCH, None)(EpochOrder(0, 0))
    assert texts(epoch) == texts(epoch)


def test_training_and_evaluation_batches_have_the_same_examples(data, preprocess):
    """Compares all inputs of each example, without padding."""
    paths, _ = data

    def examples(batches) -> Counter:
        contents = []
        for inputs, label, weight in batches:
            arrays = {name: value.numpy() for name, value in inputs.items()}
            for i in range(len(label)):
                ids, words = arrays["input_word_ids"][i], arrays["word_ids"][i]
                faces = arrays["faces"][i][arrays["face_mask"][i]].tobytes()
                text = ids[arrays["input_mask"][i] > 0].tobytes()
                contents.append((text, words[words > 0].tobytes(), faces, int(label[i]), float(weight[i])))
        return Counter(contents)

    shuffled = examples(train_batches(paths["test"], preprocess, BATCH, augment=None)(EpochOrder(0, 0)))
    assert shuffled == examples(eval_batches(paths["test"], preprocess, 2 * BATCH))


def test_evaluation_keeps_the_order_of_the_records(data):
    paths, _ = data
    rows = list(pipeline.read_rows(paths["test"]))
    batches = list(eval_batches(paths["test"], plain, BATCH))
    assert flat(batches) == [row["utterance"].encode() for row in rows]
    assert np.concatenate([label for _, label, _ in batches]).tolist() == [row["label"] for row in rows]
    assert set(rows[0]) == {*pipeline.IDS, "faces", "context", "future"} and isinstance(rows[0]["speaker"], str)


def test_tokens_are_padded_to_the_longest_of_the_batch_alone(data, preprocess):
    widths = set()
    for inputs, _, _ in train_batches(data[0]["train"], preprocess, BATCH, None)(EpochOrder(0, 0)):
        mask, words = inputs["input_mask"].numpy(), inputs["word_ids"].numpy()
        assert mask.sum(axis=1).max() == mask.shape[1] == inputs["input_word_ids"].shape[1]
        assert (words > 0).sum(axis=1).max() == words.shape[1]
        widths.add(mask.shape[1])
    assert len(widths) > 2


def test_batches_of_similar_length_have_less_padding(data, epoch_batches):
    def padding_share(batches) -> float:
        lengths = [inputs["length"].numpy() for inputs, _, _ in batches]
        return 1 - sum(n.sum() for n in lengths) / sum(n.max() * len(n) for n in lengths)

    by_length = padding_share(epoch_batches(EpochOrder(0, 0)))
    assert by_length < 0.5 * padding_share(eval_batches(data[0]["train"], plain, BATCH))


def test_batches_of_evaluation_by_length_have_every_record_once_and_less_padding(data, preprocess):
    batches = list(sorted_batches(data[0]["test"], preprocess, BATCH))
    position = np.concatenate([position for *_, position in batches])
    label = np.concatenate([label for _, label, *_ in batches])
    expected = [row["label"] for row in pipeline.read_rows(data[0]["test"])]
    assert sorted(position) == list(range(len(expected))) and label.tolist() == [expected[i] for i in position]
    in_order = list(eval_batches(data[0]["test"], preprocess, BATCH))
    padding = [sum(int((b[0]["input_mask"].numpy() == 0).sum()) for b in of) for of in (batches, in_order)]
    assert padding[0] < 0.5 * padding[1]


def test_batches_are_not_sorted_by_length(epoch_batches):
    """Inside a pool the batches come in random order, not from short to long."""
    lengths = [int(inputs["length"].numpy().max()) for inputs, _, _ in epoch_batches(EpochOrder(0, 0))]
    assert lengths != sorted(lengths)


def test_augmentation_changes_faces_alone_and_follows_the_order(data, preprocess):
    def first(batches):
        inputs, _, _ = next(iter(batches))
        return {name: value.numpy() for name, value in inputs.items()}

    whole, augmented = (
        train_batches(data[0]["dev"], preprocess, BATCH, a)(EpochOrder(0, 0)) for a in (None, augment_faces)
    )
    spec, label, weight = augmented.dataset.element_spec
    assert spec["faces"].shape[2:] == (32, 32, 3) and spec["faces"].dtype == tf.uint8
    assert spec["face_mask"].dtype == tf.bool and spec["input_word_ids"].dtype == tf.int32
    assert label.dtype == tf.int64 and weight.dtype == tf.float32
    plain_faces, once, again = first(whole), first(augmented), first(augmented)
    for name in plain_faces:
        np.testing.assert_array_equal(once[name], again[name])
        assert (plain_faces[name] == once[name]).all() == (name != "faces")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Utterances without any face, one of them without a word."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [{"utterance_id": str(i), "utterance": "ha " * i + "!", "emotion": "fear"} for i in range(5)]
    read = manifest.read_manifest(write_table(folder / "m.csv", rows), MELD_EMOTIONS)
    pieces = WordPieceTokenizer(learn_vocabulary(["ha ha !"], 20), True)
    return records.write_dataset(read, folder / "out", records.PrepareOptions(MELD_EMOTIONS, 16, 0, "x"), pieces)


def test_a_batch_without_a_face_has_one_absent_frame(odd):
    preprocess = Preprocessor(FACE_NAMES, 16, TextConfig())
    paths = odd.rows("train")
    for batches in (
        eval_batches(paths, preprocess, 2),
        train_batches(paths, preprocess, 2, augment_faces)(EpochOrder(0, 0)),
    ):
        shapes = []
        for inputs, label, _ in batches:
            shapes.append(tuple(inputs["faces"].shape))
            assert inputs["face_mask"].shape == (len(label), 1) and not inputs["face_mask"].numpy().any()
        assert sorted(shapes) == [(1, 1, 16, 16, 3), (2, 1, 16, 16, 3), (2, 1, 16, 16, 3)]


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_a_split_smaller_than_a_batch(odd, batch):
    batches = list(train_batches(odd.rows("train"), plain, batch, None)(EpochOrder(0, 0)))
    assert len(batches) == -(-5 // batch) and len(set(flat(batches))) == 5


def test_an_unknown_split_is_an_error(odd):
    with pytest.raises(UserError, match=r"No split 'dev' in .*Expected one of: train"):
        odd.rows("dev")


def test_recorded_and_raw_text_give_the_same_inputs_with_the_speaker(data, dataset):
    from emotion_tf.data.tokenizer import read_vocabulary

    paths, _ = data
    pieces, words = WordPieceTokenizer(read_vocabulary(dataset / "vocab.txt"), True), WordVocabulary(["you", ":"])
    with_speaker = Preprocessor((*TEXT_NAMES, *WORD_NAMES), 32, TextConfig(speaker=True), pieces, words)
    inputs, _, _ = next(iter(eval_batches(paths["dev"], with_speaker, 16)))
    rows = list(pipeline.read_rows(paths["dev"]))[:16]
    raw = with_speaker({"utterance": tf.constant([f"{row['speaker']}: {row['utterance']}" for row in rows])})
    plain = with_speaker({"utterance": tf.constant([row["utterance"] for row in rows])})
    for name in (*TEXT_NAMES, *WORD_NAMES):
        np.testing.assert_array_equal(inputs[name], raw[name])
    assert inputs["input_mask"].shape[1] > plain["input_mask"].shape[1]
