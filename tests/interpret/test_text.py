"""Attributions of words: completeness of the gradients, occlusion by hand, attention, known important words."""

import dataclasses

import numpy as np
import pytest

from emotion_tf.config import TextConfig, TrainConfig
from emotion_tf.interpret import text
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.interpret.integrated_gradients import MAX_STEPS

LINE = "Adro said the party was lovely, and I am happy."
WORDS = ("adro", "said", "the", "party", "was", "lovely", "and", "i", "am", "happy", "no", "yes")
UTTERANCES = [
    Utterance(LINE, (), ("Ben: Yes!", "Ada: No, the party was lovely.")),
    Utterance("Yes!"),
    Utterance("", (), ("Ada: I am happy.",)),
    Utterance(),
]


@pytest.fixture(scope="module")
def scorer(initialised, small_config):
    """Makes a run of the text tower with some branches."""
    scorers = {}

    def make(*branches, encoder=None, **options):
        key = (branches, tuple(options.items()))
        if key not in scorers:
            sizes = {"word_dim": 8, "gru_units": 8, "lstm_units": 8, "cnn_filters": 8, "context": 2}
            config = dataclasses.replace(small_config, towers=("text",), text=TextConfig(branches, **sizes, **options))
            scorers[key] = Scorer(initialised(config, words=WORDS, encoder=encoder))
        return scorers[key]

    return make


def enlarge_embeddings(model):
    """Sets embeddings as large as trained ones; with tiny ones the score is almost linear along the path."""
    layer = model.towers["text"].find_layer("word_embedding")
    layer.embeddings.assign(np.random.default_rng(1).normal(size=layer.embeddings.shape))


@pytest.mark.parametrize("branches", [("gru",), ("lstm", "cnn")])
def test_the_words_sum_to_the_effect_of_the_text(scorer, branches):
    scored = scorer(*branches)
    enlarge_embeddings(scored.model)
    batch = Batch(scored, UTTERANCES)
    attributions = text.word_attributions(batch)
    assert [len(of_row) for of_row in attributions] == [1, 1, 1, 0]
    tower = scored.model.towers["text"]
    score = np.asarray(scores(batch.logits, batch.target))
    embedding = tower.find_layer("word_embedding")
    embedding.embeddings.assign(np.zeros(embedding.embeddings.shape))  # the baseline
    zero = np.asarray(scores(scored.model(batch.inputs, training=False)["logits"], batch.target))
    enlarge_embeddings(scored.model)
    for n, (words,) in enumerate(attributions[:3]):
        completeness = words.completeness
        assert words.key == "gradients" and completeness.holds and completeness.steps <= MAX_STEPS
        assert completeness.delta == pytest.approx(score[n] - zero[n], abs=1e-4)
        assert words.values.sum() + words.rest == pytest.approx(
            completeness.delta, abs=max(0.01 * abs(completeness.delta), 1e-3)
        )
        assert abs(words.rest) < 1e-5 and words.read.all()
    assert [span.line for span in attributions[2][0].spans] == [1] * 6


@pytest.fixture(scope="module")
def bert(scorer, tiny_bert):
    """BERT with attention pooling, and a GRU."""
    return scorer("bert", "gru", encoder=tiny_bert, pooling="attention", max_tokens=32, context_tokens=24)


def test_with_bert_the_headline_is_occlusion(bert):
    batch = Batch(bert, UTTERANCES)
    attributions = text.word_attributions(batch)
    assert [words.key for words in attributions[0]] == ["occlusion", "gradients", "contextual", "pooling", "attention"]
    headline, _, contextual, *shares = attributions[0]
    removed = [
        Utterance("Adro said the party was lovely, and I am .", (), UTTERANCES[0].context),
        Utterance(LINE, (), (UTTERANCES[0].context[0], "Ada: No, the was lovely.")),
    ]
    loss = scores(batch.logits[[0, 0]], batch.target[[0, 0]]) - scores(bert.logits(removed), batch.target[[0, 0]])
    at = {(span.line, headline.word(i)): headline.values[i] for i, span in enumerate(headline.spans)}
    assert [at[0, "happy"], at[1, "party"]] == pytest.approx(np.asarray(loss).tolist(), abs=1e-5)
    assert contextual.completeness.holds and "contextual" in contextual.title
    assert contextual.values.sum() + contextual.rest == pytest.approx(contextual.completeness.total, abs=1e-4)
    for words in shares:
        assert (words.values >= 0).all() and words.values.sum() + words.rest == pytest.approx(1, abs=1e-4)
    context = [i for i, span in enumerate(shares[0].spans) if span.line > 0]
    assert (shares[0].values[context] == 0).all()  # the pooling reads the utterance, not its context
    assert (shares[1].values[context] > 0).tolist() == shares[1].read[context].tolist()


def test_the_only_word_has_the_effect_of_the_whole_text(bert):
    batch = Batch(bert, [Utterance("Yes")])
    absent = bert.logits([Utterance()])
    (value,) = text.word_attributions(batch)[0][0].values
    expected = np.asarray(scores(batch.logits, batch.target) - scores(absent, batch.target))
    assert value == pytest.approx(float(expected[0]), abs=1e-5)


def test_words_beyond_the_maximum_length_are_marked(scorer):
    batch = Batch(scorer("cnn", max_words=3), [Utterance(LINE)])
    (words,) = text.word_attributions(batch)[0]
    assert words.read.tolist() == [True] * 3 + [False] * 9 and (words.values[3:] == 0).all()


def test_rollout_of_attention_by_hand():
    first, second = np.array([[[0.5, 0.5], [0.0, 1.0]]]), np.array([[[1.0, 0.0], [0.5, 0.5]]])
    expected = (0.5 * second[0] + 0.5 * np.eye(2)) @ (0.5 * first[0] + 0.5 * np.eye(2))
    np.testing.assert_allclose(text.rollout(np.stack([first, second]))[0], expected)
    assert text.rollout(np.stack([first, second])).sum(axis=-1) == pytest.approx(1)


def test_a_module_that_returns_no_attention(bert, monkeypatch):
    batch = Batch(bert, UTTERANCES[:1])
    monkeypatch.setattr(type(batch.layers["bert"]), "attention", lambda self, inputs: None)
    assert "attention" not in [words.key for words in text.word_attributions(batch)[0]]


def test_the_only_word_that_a_network_detects_ranks_first(scorer):
    """The filters detect a feature that only the embedding of `lovely` has, and that supports joy."""
    scored = scorer("cnn")
    tower = scored.model.towers["text"]
    table = np.zeros(tower.find_layer("word_embedding").embeddings.shape, np.float32)
    table[2 + WORDS.index("lovely"), 0] = 1
    tower.find_layer("word_embedding").embeddings.assign(table)
    for weight in [*tower.find_layer("word_cnn").weights, *scored.model.fusion.get_layer("fusion_dense_0").weights]:
        weight.assign(np.full(weight.shape, 0.1 if len(weight.shape) > 1 else 0.0))
    kernel = np.zeros(scored.model.fusion.get_layer("logits").kernel.shape)
    kernel[:, scored.run.labels.index("joy")] = 1
    scored.model.fusion.get_layer("logits").kernel.assign(kernel)
    batch = Batch(scored, [Utterance(LINE)])
    (words,) = text.word_attributions(batch)[0]
    assert scored.run.labels[batch.target[0]] == "joy"
    assert words.word(int(words.values.argmax())) == "lovely"
    assert words.values.sum() == pytest.approx(words.values.max()) and words.values.max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["gru", "lstm", "cnn", "bert"])
def test_the_emotion_word_of_a_demo_utterance_ranks_first(branch, learnable_data, trained):
    """The grammar of the demo data determines the word that carries the emotion."""
    tower = TextConfig((branch,), word_dim=32, gru_units=32, lstm_units=32, cnn_filters=32)
    # from random weights, a BERT of 32 units learns the last words late, if at all: rounding decides which (three
    # of six trainings learned all nine, the others seven or eight)
    epochs, rate = (16, 1.5e-3) if branch == "bert" else (12, 3e-3)
    train = TrainConfig(epochs=epochs, patience=epochs, learning_rate=rate, pretrained_rate=1.0)
    scorer = Scorer(trained(learnable_data, 32 if branch == "bert" else 0, towers=("text",), text=tower, train=train))
    cases = [("joy", "I am so {} about the trip.", ("happy", "delighted", "thrilled")),
             ("anger", "The photo makes me very {}.", ("furious", "angry", "outraged")),
             ("sadness", "I am quite {} about the game.", ("sad", "lonely", "miserable"))]  # fmt: skip
    told = [(emotion, template, word) for emotion, template, telling in cases for word in telling]
    batch = Batch(scorer, [Utterance(template.format(word)) for _, template, word in told])
    firsts = []
    for (emotion, _, word), target, (words, *_) in zip(told, batch.target, text.word_attributions(batch), strict=True):
        is_first = words.word(int(words.values.argmax())) == word
        firsts.append(is_first and scorer.run.labels[target] == emotion)
    assert sum(firsts) >= (7 if branch == "bert" else 9), firsts


def test_a_run_without_a_text_tower_has_no_word_attributions(initialised, small_config):
    scored = Scorer(initialised(dataclasses.replace(small_config, towers=("face",))))
    utterance = scored.normalize(Utterance(LINE, [np.zeros((32, 32, 3), np.uint8)], UTTERANCES[0].context))
    assert (utterance.text, utterance.context) == ("", ())
    assert text.word_attributions(Batch(scored, [utterance])) == [[]]
