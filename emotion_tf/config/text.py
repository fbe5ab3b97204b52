"""Configuration of the text tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from emotion_tf.config import rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError

BRANCHES = {
    "bert": "BERT from TF-Hub (Devlin 2019)",
    "gru": "word embedding and bidirectional GRU (Cho 2014)",
    "lstm": "word embedding and bidirectional LSTM (Hochreiter and Schmidhuber 1997)",
    "cnn": "word embedding, convolutions of several widths and max pooling over time (Kim 2014)",
}
POOLINGS = {
    "mean": "mean over the tokens, without padding",
    "cls": "the first token (Devlin 2019)",
    "max": "maximum over the tokens, without padding",
    "attention": "attention-weighted mean (Yang 2016); explanations show the weights",
    "gru": "final states of a bidirectional GRU over the tokens (Cho 2014)",
}

MAX_WORD_DIM = 4096


@dataclass(frozen=True)
class TextConfig:
    """The text tower: parallel branches whose outputs are concatenated."""

    branches: Annotated[tuple[str, ...], rules.names(BRANCHES, several=True)] = ("gru",)
    """Branches of the tower. `bert` reads word pieces; the others read words and share one embedding."""
    encoder: Annotated[str, rules.value("NAME|DIR|URL")] = "minilm"
    """BERT of the bert branch: a tfhub.dev or Kaggle handle, a local SavedModel, or a name of `weights list`."""
    train_encoder: bool = True
    """Fine-tune the encoder. Otherwise it is frozen."""
    freeze_embeddings: bool = False
    """Freeze the encoder's embeddings and train its other layers."""
    layer_decay: Annotated[float, rules.SHARE] = 1.0
    """Learning rate of each encoder layer, as a multiple of the rate of the layer above (Howard 2018, Clark 2020)."""
    pooling: Annotated[str, rules.names(POOLINGS)] = "mean"
    """Pooling of BERT's token sequence. With context, only the tokens of the utterance itself are pooled."""
    max_tokens: Annotated[int, Range(3, 4096)] = 64  # [CLS], a word piece, [SEP]
    """Maximum number of word pieces of an utterance, [CLS] and [SEP] included. Longer utterances are truncated."""
    context: Annotated[int, Range(0, 1000)] = 0
    """Number of previous utterances of the dialogue to read as context, with their speakers."""
    speaker: bool = False
    """Read the utterance with its speaker as well. A served model then expects `Speaker: utterance`."""
    future: Annotated[int, Range(0, 1000)] = 0
    """Number of later utterances to read as context. For study only: a served model has none."""
    context_tokens: Annotated[int, Range(2, 4096)] = 64  # a word piece, [SEP]
    """Maximum number of word pieces, or words, of the previous and of the later context. The farthest are cut."""
    max_words: Annotated[int, Range(1, 4096)] = 48
    """Maximum number of words of an utterance (gru, lstm, cnn). Longer utterances are truncated."""
    vocabulary_size: Annotated[int, Range(1, 1_000_000)] = 8000
    """Number of words with an embedding: the most frequent. The rest share the unknown word, which rare ones train."""
    word_dim: Annotated[int, Range(1, MAX_WORD_DIM)] = 64
    """Dimension of the word embeddings. Embeddings from a file have their own."""
    embeddings: Annotated[str, rules.value("FILE")] = ""
    """File of pretrained word embeddings: GloVe (.txt) or word2vec (.bin, .txt). Empty: random initialisation."""
    train_embeddings: bool = True
    """Train the word embeddings, or freeze the file's: words without one are random, and unknown words its mean."""
    gru_units: Annotated[int, Range(1, 4096)] = 64
    """Units of the GRU in each direction."""
    lstm_units: Annotated[int, Range(1, 4096)] = 64
    """Units of the LSTM in each direction."""
    cnn_filters: Annotated[int, Range(1, 4096)] = 64
    """Number of filters of each width in the cnn branch."""
    cnn_widths: Annotated[tuple[int, ...], Range(1, 64)] = (2, 3, 4)
    """Widths of the filters in the cnn branch, in words."""
    dropout: Annotated[float, rules.RATE] = 0.2
    """Dropout rate of the word embeddings and of the branches' outputs."""
    init: Annotated[str, rules.value("RUN")] = ""
    """Run whose trained text tower initialises this one. It trains at --train.pretrained-rate. Empty: none."""
    train_tower: bool = True
    """Train the tower that --text.init initialises. Otherwise it is frozen."""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        rules.several_of("text.branches", self.branches, BRANCHES)
        rules.one_of("text.pooling", self.pooling, POOLINGS)
        rules.check_fields(self, "text")
        if not self.cnn_widths or len(set(self.cnn_widths)) < len(self.cnn_widths):
            raise UserError(
                f"Invalid `text.cnn_widths`. Expected one or more different numbers. Received: {list(self.cnn_widths)}."
            )
        self._check_effects()

    def _check_effects(self) -> None:
        """Raises UserError for an option that has no effect beside the others."""
        has_bert = "bert" in self.branches
        trains_bert = has_bert and self.train_encoder and self.train_tower
        reads_words = bool(set(self.branches) - {"bert"})
        rules.effects(
            "text",
            self,
            ("train_encoder", not self.train_encoder, has_bert, "with a bert branch"),
            ("pooling", self.pooling != "mean", has_bert, "with a bert branch, whose tokens are pooled"),
            ("layer_decay", self.layer_decay != 1, trains_bert, "with a bert branch that is trained"),
            ("freeze_embeddings", self.freeze_embeddings, trains_bert, "with a bert branch that is trained"),
            ("embeddings", self.embeddings, reads_words, "with a branch gru, lstm or cnn"),
            ("train_embeddings", not self.train_embeddings, self.embeddings, "with --text.embeddings"),
            ("embeddings", self.embeddings, not self.init, "without --text.init, whose run has its own embeddings"),
            ("train_tower", not self.train_tower, self.init, "with --text.init, whose tower it freezes"),
        )
