"""What the words do: completeness of the gradients, occlusion by hand, attention, and words that must rank first."""

import dataclasses

import numpy as np
import pytest

from emotion_tf.config import TextConfig, TrainConfig
from emotion_tf.interpret import text
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.interpret.integrated_gradients import MAX_STEPS

LINE = "Adro said the party was lovely, and I am happy."
WORDS = ("adro", "said", "the", "party", "was", "lovely", "and", "i", "am", "happy", "no", "yes")
SAID = [
    Utterance(LINE, (), ("Ben: Yes!", "Ada: No, the party was lovely.")),
    Utterance("Yes!"),
    Utterance("", (), ("Ada: I am happy.",)),
    Utterance(),
]


@pytest.fixture(scope="module")
def scorer(initialised, small_config):
    """Branches -> a run of the text tower alone with them."""
    made = {}

    def make(*branches, encoder=None, **options):
        key = (branches, tuple(options.items()))
        if key not in made:
            sizes = {"word_dim": 8, "gru_units": 8, "lstm_units": 8, "cnn_filters": 8, "context": 2}
            config = dataclasses.replace(small_config, towers=("text",), text=TextConfig(branches, **sizes, **options))
            made[key] = Scorer(initialised(config, words=WORDS, encoder=encoder))
        return made[key]

    return make


def wake(model):
    """Embeddings as large as trained ones: of tiny ones every path is almost a straight line."""
    layer = model.towers["text"].find_layer("word_embedding")
    layer.embeddings.assign(np.random.default_rng(1).normal(size=layer.embeddings.shape))


@pytest.mark.parametrize("branches", [("gru",), ("lstm", "cnn")])
def test_the_words_sum_to_what_the_text_changes(scorer, branches):
    found = scorer(*branches)
    wake(found.model)
    batch = Batch(found, SAID)
    strips = text.strips(batch)
    assert [len(one) for one in strips] == [1, 1, 1, 0]
    tower = found.model.towers["text"]
    score = np.asarray(scores(batch.logits, batch.target))
    embedding = tower.find_layer("word_embedding")
    embedding.embeddings.assign(np.zeros(embedding.embeddings.shape))  # the baseline, by another way
    zero = np.asarray(scores(found.model(batch.inputs, training=False)["logits"], batch.target))
    wake(found.model)
    for n, (strip,) in enumerate(strips[:3]):
        told = strip.completeness
        assert strip.key == "gradients" and told.holds and told.steps <= MAX_STEPS
        assert told.delta == pytest.approx(score[n] - zero[n], abs=1e-4)
        assert strip.values.sum() + strip.rest == pytest.approx(told.delta, abs=max(0.01 * abs(told.delta), 1e-3))
        assert abs(strip.rest) < 1e-5 and strip.read.all()
    assert [span.line for span in strips[2][0].spans] == [1] * 6


@pytest.fixture(scope="module")
def bert(scorer, tiny_bert):
    """BERT with attention pooling, and a GRU."""
    return scorer("bert", "gru", encoder=tiny_bert, pooling="attention", max_tokens=32, context_tokens=24)


def test_where_bert_hides_its_embeddings_the_headline_is_occlusion(bert):
    batch = Batch(bert, SAID)
    strips = text.strips(batch)
    assert [strip.key for strip in strips[0]] == ["occlusion", "gradients", "contextual", "pooling", "attention"]
    head, _, contextual, *shares = strips[0]
    removed = [
        Utterance("Adro said the party was lovely, and I am .", (), SAID[0].context),
        Utterance(LINE, (), (SAID[0].context[0], "Ada: No, the was lovely.")),
    ]
    lost = scores(batch.logits[[0, 0]], batch.target[[0, 0]]) - scores(bert.logits(removed), batch.target[[0, 0]])
    at = {(span.line, head.word(i)): head.values[i] for i, span in enumerate(head.spans)}
    assert [at[0, "happy"], at[1, "party"]] == pytest.approx(np.asarray(lost).tolist(), abs=1e-5)
    assert contextual.completeness.holds and "contextual" in contextual.title
    assert contextual.values.sum() + contextual.rest == pytest.approx(contextual.completeness.total, abs=1e-4)
    for strip in shares:
        assert (strip.values >= 0).all() and strip.values.sum() + strip.rest == pytest.approx(1, abs=1e-4)
    own = [i for i, span in enumerate(shares[0].spans) if span.line > 0]
    assert (shares[0].values[own] == 0).all()  # the pooling looks at the utterance, not at its context
    assert (shares[1].values[own] > 0).tolist() == shares[1].read[own].tolist()


def test_the_only_word_of_an_utterance_is_worth_the_whole_text(bert):
    batch = Batch(bert, [Utterance("Yes")])
    absent = bert.logits([Utterance()])
    (value,) = text.strips(batch)[0][0].values
    expected = np.asarray(scores(batch.logits, batch.target) - scores(absent, batch.target))
    assert value == pytest.approx(float(expected[0]), abs=1e-5)


def test_words_that_were_cut_off_are_told(scorer):
    batch = Batch(scorer("cnn", max_words=3), [Utterance(LINE)])
    (strip,) = text.strips(batch)[0]
    assert strip.read.tolist() == [True] * 3 + [False] * 9 and (strip.values[3:] == 0).all()


def test_rollout_of_attention_by_hand():
    first, second = np.array([[[0.5, 0.5], [0.0, 1.0]]]), np.array([[[1.0, 0.0], [0.5, 0.5]]])
    expected = (0.5 * second[0] + 0.5 * np.eye(2)) @ (0.5 * first[0] + 0.5 * np.eye(2))
    np.testing.assert_allclose(text.rollout(np.stack([first, second]))[0], expected)
    assert text.rollout(np.stack([first, second])).sum(axis=-1) == pytest.approx(1)


def test_a_module_that_gives_no_attention(bert, monkeypatch):
    batch = Batch(bert, SAID[:1])
    monkeypatch.setattr(type(batch.layers["bert"]), "attention", lambda self, inputs: None)
    assert "attention" not in [strip.key for strip in text.strips(batch)[0]]


def test_the_one_word_that_a_hand_made_network_knows_ranks_first(scorer):
    """Its filters see one feature, which the embedding of `lovely` alone has, and it speaks for joy."""
    found = scorer("cnn")
    tower = found.model.towers["text"]
    table = np.zeros(tower.find_layer("word_embedding").embeddings.shape, np.float32)
    table[2 + WORDS.index("lovely"), 0] = 1
    tower.find_layer("word_embedding").embeddings.assign(table)
    for weight in [*tower.find_layer("word_cnn").weights, *found.model.fusion.get_layer("fusion_dense_0").weights]:
        weight.assign(np.full(weight.shape, 0.1 if len(weight.shape) > 1 else 0.0))
    kernel = np.zeros(found.model.fusion.get_layer("logits").kernel.shape)
    kernel[:, found.run.labels.index("joy")] = 1
    found.model.fusion.get_layer("logits").kernel.assign(kernel)
    batch = Batch(found, [Utterance(LINE)])
    (strip,) = text.strips(batch)[0]
    assert found.run.labels[batch.target[0]] == "joy"
    assert strip.word(int(strip.values.argmax())) == "lovely"
    assert strip.values.sum() == pytest.approx(strip.values.max()) and strip.values.max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["gru", "lstm", "cnn", "bert"])
def test_the_telling_word_of_a_demo_utterance_ranks_first(branch, telling_data, trained):
    """The demo's grammar says which word of a sentence tells the emotion."""
    tower = TextConfig((branch,), word_dim=32, gru_units=32, lstm_units=32, cnn_filters=32)
    train = TrainConfig(epochs=12, patience=12, learning_rate=3e-3, pretrained_rate=1.0)
    scorer = Scorer(trained(telling_data, 32 if branch == "bert" else 0, towers=("text",), text=tower, train=train))
    known = [("joy", "I am so {} about the trip.", ("happy", "delighted", "thrilled")),
             ("anger", "The photo makes me very {}.", ("furious", "angry", "outraged")),
             ("sadness", "I am quite {} about the game.", ("sad", "lonely", "miserable"))]  # fmt: skip
    firsts = []
    for emotion, template, telling in known:
        for word in telling:
            batch = Batch(scorer, [Utterance(template.format(word))])
            strip = text.strips(batch)[0][0]
            assert scorer.run.labels[batch.target[0]] == emotion
            firsts.append(strip.word(int(strip.values.argmax())) == word)
    assert all(firsts), firsts


def test_a_run_that_reads_no_text_has_no_strips(initialised, small_config):
    found = Scorer(initialised(dataclasses.replace(small_config, towers=("face",))))
    kept = found.keep(Utterance(LINE, [np.zeros((32, 32, 3), np.uint8)], SAID[0].context))
    assert (kept.text, kept.context) == ("", ())
    assert text.strips(Batch(found, [kept])) == [[]]
