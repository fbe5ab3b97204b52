"""Raw strings and JPEGs to model inputs: the one code that training, evaluation, `predict` and the export run."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data.images import decode_faces
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, pack_tokens

TEXT_NAMES = tuple(f.name for f in schema.TEXT_INPUTS)
WORD_NAMES = tuple(f.name for f in schema.WORD_INPUTS)
FACE_NAMES = ("faces", "face_mask")


class Preprocessor(tf.Module):
    """Makes the inputs that a model asks for.

    Args:
        inputs: names of the model's inputs; what is not asked for is not computed.
        face_size: side of the face crops in pixels.
        pieces: word-piece tokenizer; only needed for BERT's inputs made from raw text.
        words: word vocabulary; only needed for `word_ids`.
        max_tokens: word pieces kept of an utterance.
        max_words: words kept of an utterance.
    """

    def __init__(
        self,
        inputs: Iterable[str],
        face_size: int,
        pieces: WordPieceTokenizer | None = None,
        words: WordVocabulary | None = None,
        max_tokens: int = 64,
        max_words: int = 48,
    ) -> None:
        super().__init__(name="preprocess")
        self.inputs = tuple(inputs)
        self.face_size, self.max_tokens, self.max_words = face_size, max_tokens, max_words
        self.pieces, self.words = pieces, words

    @property
    def wants_tokens(self) -> bool:
        """Whether the model reads word pieces."""
        return any(name in self.inputs for name in TEXT_NAMES)

    @property
    def wants_words(self) -> bool:
        """Whether the model reads word ids."""
        return any(name in self.inputs for name in WORD_NAMES)

    @property
    def wants_faces(self) -> bool:
        """Whether the model reads faces."""
        return any(name in self.inputs for name in FACE_NAMES)

    def __call__(
        self, utterance: tf.Tensor, face_jpeg: tf.Tensor, tokens: tf.RaggedTensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The model's inputs.

        Args:
            utterance: string (B,); empty: no text.
            face_jpeg: string (B, T); empty: no face.
            tokens: word pieces (B, None) where a record has them already.

        Returns:
            The inputs asked for, each (B, ...), as `schema` describes them.
        """
        made: dict[str, tf.Tensor] = {}
        if self.wants_tokens:
            if tokens is None:
                if self.pieces is None:
                    raise ValueError("Preprocessor: raw text needs `pieces`, the word-piece tokenizer.")
                tokens = self.pieces(utterance)
            made |= pack_tokens(tokens, self.max_tokens)
        if self.wants_words:
            if self.words is None:
                raise ValueError("Preprocessor: `word_ids` need `words`, the word vocabulary.")
            made |= self.words(utterance, self.max_words)
        if self.wants_faces:
            made |= decode_faces(face_jpeg, self.face_size)
        return {name: made[name] for name in self.inputs}
