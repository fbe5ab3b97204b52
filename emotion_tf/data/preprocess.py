"""Raw strings and JPEGs to model inputs: the one code that training, evaluation, `predict` and the export run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from emotion_tf import schema
from emotion_tf.config import TextConfig
from emotion_tf.data.context import nearest, segment, word_ids
from emotion_tf.data.images import decode_faces
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, pack_tokens, pad_words

TEXT_NAMES = tuple(f.name for f in schema.TEXT_INPUTS)
WORD_NAMES = tuple(f.name for f in schema.WORD_INPUTS)
CONTEXT_NAMES = tuple(f.name for f in schema.CONTEXT_INPUTS)
FACE_NAMES = ("faces", "face_mask")


class Preprocessor(tf.Module):
    """Makes the inputs that a model asks for.

    Args:
        inputs: names of the model's inputs; what is not asked for is not computed.
        face_size: side of the face crops in pixels.
        text: how much of the utterance, and of which others, the model reads.
        pieces: word-piece tokenizer; only needed for BERT's inputs made from raw text or with context.
        words: word vocabulary; only needed for word ids.
    """

    def __init__(
        self,
        inputs: Iterable[str],
        face_size: int,
        text: TextConfig,
        pieces: WordPieceTokenizer | None = None,
        words: WordVocabulary | None = None,
    ) -> None:
        super().__init__(name="preprocess")
        self.inputs, self.face_size, self.text = tuple(inputs), face_size, text
        self.pieces, self.words = pieces, words

    def reading(self, inputs: Iterable[str]) -> Preprocessor:
        """The same for a model of other inputs."""
        return Preprocessor(inputs, self.face_size, self.text, self.pieces, self.words)

    @property
    def identity(self) -> dict[str, Any]:
        """All that what it makes of a record depends on, as JSON."""
        found: dict[str, Any] = {"inputs": self.inputs}
        if self.wants_faces:
            found["face_size"] = self.face_size
        if self.wants_tokens or self.wants_words:
            names = ("context", "future", "speaker", "context_tokens")
            found |= {name: getattr(self.text, name) for name in names}
        if self.wants_tokens:
            found |= {"max_tokens": self.text.max_tokens, "pieces": self.pieces.sha256 if self.pieces else ""}
        if self.wants_words:
            found |= {"max_words": self.text.max_words, "words": list(self.words.words) if self.words else []}
        return found

    @property
    def wants_tokens(self) -> bool:
        """Whether the model reads word pieces."""
        return any(name in self.inputs for name in TEXT_NAMES)

    @property
    def wants_words(self) -> bool:
        """Whether the model reads word ids."""
        return any(name in self.inputs for name in (*WORD_NAMES, *CONTEXT_NAMES))

    @property
    def wants_faces(self) -> bool:
        """Whether the model reads faces."""
        return any(name in self.inputs for name in FACE_NAMES)

    @property
    def around(self) -> tuple[str, ...]:
        """Which of a record's `context` and `future` the model reads."""
        wants_text = self.wants_tokens or self.wants_words
        return tuple(name for name in ("context", "future") if wants_text and getattr(self.text, name))

    def __call__(
        self,
        utterance: tf.Tensor,
        face_jpeg: tf.Tensor | dict[str, tf.Tensor],
        tokens: tf.RaggedTensor | None = None,
        context: tf.Tensor | tf.RaggedTensor | None = None,
        future: tf.Tensor | tf.RaggedTensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The model's inputs.

        Args:
            utterance: string (B,); empty: no text.
            face_jpeg: string (B, T); empty: no face. Or faces that are decoded already, as `decode_faces` gives them.
            tokens: word pieces (B, None) where a record has them already.
            context: lines said before, `Speaker: utterance`, string (B, N), oldest first; an empty one is absent.
            future: lines said after, string (B, N), in order of speaking.

        Returns:
            The inputs asked for, each (B, ...), as `schema` describes them.
        """
        made: dict[str, tf.Tensor] = {}
        around = [
            nearest(_ragged(given), getattr(self.text, name), past=name == "context")
            for name, given in (("context", context), ("future", future))
            if name in self.around and given is not None
        ]
        if self.wants_tokens:
            made |= self._tokens(utterance, tokens, around)
        if self.wants_words:
            made |= self._words(utterance, around)
        if self.wants_faces:
            made |= face_jpeg if isinstance(face_jpeg, dict) else decode_faces(face_jpeg, self.face_size)
        return {name: made[name] for name in self.inputs}

    def _tokens(
        self, utterance: tf.Tensor, tokens: tf.RaggedTensor | None, around: list[tf.RaggedTensor]
    ) -> dict[str, tf.Tensor]:
        pieces = self.pieces
        if pieces is None:
            if tokens is None or around:
                raise ValueError("Preprocessor: raw text needs `pieces`, the word-piece tokenizer.")
            return pack_tokens(tokens, self.text.max_tokens)
        second = [segment(said, pieces, self.text.context_tokens) for said in around]
        tokens = pieces(utterance) if tokens is None else tokens
        return pack_tokens(tokens, self.text.max_tokens, tf.concat(second, axis=1) if second else None)

    def _words(self, utterance: tf.Tensor, around: list[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        if self.words is None:
            raise ValueError("Preprocessor: word ids need `words`, the word vocabulary.")
        made = self.words(utterance, self.text.max_words)
        said = [word_ids(each, self.words, self.text.context_tokens) for each in around]
        empty = tf.zeros_like(made["word_ids"][:, :1])
        return made | {"context_word_ids": pad_words(tf.concat(said, axis=1)) if said else empty}


def _ragged(strings: tf.Tensor | tf.RaggedTensor) -> tf.RaggedTensor:
    return strings if isinstance(strings, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(strings)
