"""The text tower: its parts and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules

BRANCHES = {
    "bert": "a TF-Hub BERT",
    "gru": "word embedding and bidirectional GRU (Cho 2014)",
}
POOLINGS = {
    "mean": "mean over the real tokens",
    "cls": "the first token (Devlin 2019)",
}


@dataclass(frozen=True)
class TextConfig:
    """The text tower: branches side by side, concatenated."""

    branches: tuple[str, ...] = ("gru",)
    """Parts of the tower: bert (a TF-Hub BERT), gru (word embedding and bidirectional GRU, from scratch)."""
    encoder: str = "minilm"
    """BERT of the bert branch: a tfhub.dev or Kaggle handle, a local SavedModel, or a name of `weights list`."""
    train_encoder: bool = True
    """Fine-tune the encoder; false keeps its weights bit-identical."""
    pooling: str = "mean"
    """From the token sequence to one vector: mean (over real tokens) or cls (the first token)."""
    max_tokens: int = 64
    """Word pieces of an utterance that BERT reads, [CLS] and [SEP] included; the rest is cut."""
    context: int = 0
    """Past utterances of the dialogue that are read beside the utterance, with their speakers."""
    future: int = 0
    """Later utterances that are read, too; a served model has none, so this is for study alone."""
    context_tokens: int = 64
    """Word pieces (and words, for the branches that read words) of the past, and of the future; the farthest is cut."""
    max_words: int = 48
    """Words of an utterance that the GRU reads; the rest is cut."""
    vocabulary_size: int = 8000
    """Most frequent words of the training split that get an embedding; all others share the unknown word."""
    word_dim: int = 64
    """Width of a word embedding."""
    gru_units: int = 64
    """Units of the GRU in each direction."""
    dropout: float = 0.2
    """Share of the word embedding's and of the branch outputs' units dropped in training."""
    init: str = ""
    """Run whose trained text tower this one starts from, as a pretrained branch; empty: none."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.several_of("text.branches", self.branches, BRANCHES)
        rules.one_of("text.pooling", self.pooling, POOLINGS)
        for name in ("max_words", "vocabulary_size", "word_dim", "gru_units"):
            rules.number(f"text.{name}", getattr(self, name), 1)
        rules.number("text.max_tokens", self.max_tokens, 3)  # [CLS], a word piece, [SEP]
        for name in ("context", "future"):
            rules.number(f"text.{name}", getattr(self, name), 0)
        rules.number("text.context_tokens", self.context_tokens, 2)  # a word piece, [SEP]
        rules.share("text.dropout", self.dropout)
