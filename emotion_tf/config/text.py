"""The text tower: its parts and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules
from emotion_tf.errors import UserError

BRANCHES = {
    "bert": "a TF-Hub BERT",
    "gru": "word embedding and bidirectional GRU (Cho 2014)",
    "lstm": "word embedding and bidirectional LSTM (Hochreiter and Schmidhuber 1997)",
    "cnn": "word embedding and convolutions of several widths, maximum over time (Kim 2014)",
}
POOLINGS = {
    "mean": "mean over the real tokens",
    "cls": "the first token (Devlin 2019)",
    "max": "maximum over the real tokens",
    "attention": "mean by learned weights, which explanations can show (Yang 2016)",
    "gru": "last states of a bidirectional GRU over the tokens (Cho 2014)",
}


@dataclass(frozen=True)
class TextConfig:
    """The text tower: branches side by side, concatenated."""

    branches: tuple[str, ...] = ("gru",)
    """Parts of the tower: bert reads word pieces; gru, lstm and cnn read words by an embedding that they share."""
    encoder: str = "minilm"
    """BERT of the bert branch: a tfhub.dev or Kaggle handle, a local SavedModel, or a name of `weights list`."""
    train_encoder: bool = True
    """Fine-tune the encoder; false keeps its weights bit-identical."""
    freeze_embeddings: bool = False
    """Keep the encoder's embeddings as they are and train the rest of it."""
    layer_decay: float = 1.0
    """Each layer of the encoder learns at this multiple of the rate of the layer above it (Howard 2018, Clark 2020)."""
    pooling: str = "mean"
    """From BERT's token sequence to one vector; with context, the utterance's own tokens are pooled."""
    max_tokens: int = 64
    """Word pieces of an utterance that BERT reads, [CLS] and [SEP] included; the rest is cut."""
    context: int = 0
    """Past utterances of the dialogue that are read beside the utterance, with their speakers."""
    speaker: bool = False
    """Read the utterance itself with its speaker, too: a served model is then to be given `Speaker: utterance`."""
    future: int = 0
    """Later utterances that are read, too; a served model has none, so this is for study alone."""
    context_tokens: int = 64
    """Word pieces (and words, for the branches that read words) of the past, and of the future; the farthest is cut."""
    max_words: int = 48
    """Words of an utterance that gru, lstm and cnn read; the rest is cut."""
    vocabulary_size: int = 8000
    """Most frequent words of the training split that get an embedding; all others share the unknown word."""
    word_dim: int = 64
    """Width of a word embedding; one that is read from a file has its own."""
    embeddings: str = ""
    """File of word embeddings to start from, GloVe's .txt or word2vec's .bin or .txt; empty: they start at random."""
    train_embeddings: bool = True
    """Train the word embeddings; false keeps those of the file as they are, and words that it lacks at random."""
    gru_units: int = 64
    """Units of the GRU in each direction."""
    lstm_units: int = 64
    """Units of the LSTM in each direction."""
    cnn_filters: int = 64
    """Filters of each width of the cnn."""
    cnn_widths: tuple[int, ...] = (2, 3, 4)
    """Words that the filters of the cnn look at."""
    dropout: float = 0.2
    """Share of the word embedding's and of the branch outputs' units dropped in training."""
    init: str = ""
    """Run whose trained text tower this one starts from, as a pretrained branch; empty: none."""
    train_tower: bool = True
    """Train the tower that --text.init started; false keeps all of it as it is."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.several_of("text.branches", self.branches, BRANCHES)
        rules.one_of("text.pooling", self.pooling, POOLINGS)
        for name in ("max_words", "vocabulary_size", "word_dim", "gru_units", "lstm_units", "cnn_filters"):
            rules.number(f"text.{name}", getattr(self, name), 1)
        rules.number("text.max_tokens", self.max_tokens, 3)  # [CLS], a word piece, [SEP]
        for name in ("context", "future"):
            rules.number(f"text.{name}", getattr(self, name), 0)
        rules.number("text.context_tokens", self.context_tokens, 2)  # a word piece, [SEP]
        rules.share("text.dropout", self.dropout)
        rules.share("text.layer_decay", self.layer_decay, closed=True)
        for width in self.cnn_widths:
            rules.number("text.cnn_widths", width, 1)
        if not self.cnn_widths or len(set(self.cnn_widths)) < len(self.cnn_widths):
            raise UserError(
                f"Invalid `text.cnn_widths`. Expected one or more different numbers. Received: {list(self.cnn_widths)}."
            )
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuses options that another one leaves without an effect."""
        reads_words = bool(set(self.branches) - {"bert"})
        trains_bert = "bert" in self.branches and self.train_encoder and self.train_tower
        for name, told, rule, holds in (
            ("train_encoder", not self.train_encoder, "false with a bert branch", "bert" in self.branches),
            ("pooling", self.pooling != "mean", "with a bert branch, whose tokens are pooled", "bert" in self.branches),
            ("layer_decay", self.layer_decay != 1, "with a bert branch that is trained", trains_bert),
            ("freeze_embeddings", self.freeze_embeddings, "with a bert branch that is trained", trains_bert),
            ("embeddings", self.embeddings, "with a branch gru, lstm or cnn", reads_words),
            ("train_embeddings", not self.train_embeddings, "false with --text.embeddings", self.embeddings),
            ("embeddings", self.embeddings, "without --text.init, whose run has its own", not self.init),
            ("train_tower", not self.train_tower, "false with --text.init, whose tower it keeps", self.init),
        ):
            if told and not holds:
                raise UserError(f"Invalid `text.{name}`. Expected only {rule}. Received: {getattr(self, name)}.")
