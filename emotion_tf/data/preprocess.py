"""Preprocessing: raw strings and JPEGs to model inputs, for training, evaluation, `predict` and exports alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from emotion_tf import schema
from emotion_tf.config import TextConfig
from emotion_tf.data.context import context_pieces, context_word_ids, nearest_lines
from emotion_tf.data.images import decode_faces
from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary, pack_tokens, pad_words

TEXT_NAMES = tuple(f.name for f in schema.TEXT_INPUTS)
WORD_NAMES = tuple(f.name for f in schema.WORD_INPUTS)
CONTEXT_NAMES = tuple(f.name for f in schema.CONTEXT_INPUTS)
FACE_NAMES = ("faces", "face_mask")


class Preprocessor(tf.Module):
    """Computes a model's inputs.

    Args:
        inputs: names of the model's inputs; others are not computed.
        face_size: side of the face crops in pixels.
        text: lengths of the utterance and of its context.
        pieces: word-piece tokenizer; only needed for BERT's inputs from raw text or with context.
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

    def for_inputs(self, inputs: Iterable[str]) -> Preprocessor:
        """Returns the same preprocessor for other inputs."""
        return Preprocessor(inputs, self.face_size, self.text, self.pieces, self.words)

    @property
    def cache_key(self) -> dict[str, Any]:
        """Everything that the output depends on, for JSON."""
        key: dict[str, Any] = {"inputs": self.inputs}
        if self.reads_faces:
            key["face_size"] = self.face_size
        if self.reads_tokens or self.reads_words:
            names = ("context", "future", "speaker", "context_tokens")
            key |= {name: getattr(self.text, name) for name in names}
        if self.reads_tokens:
            key |= {"max_tokens": self.text.max_tokens, "pieces": self.pieces.sha256 if self.pieces else ""}
        if self.reads_words:
            key |= {"max_words": self.text.max_words, "words": list(self.words.words) if self.words else []}
        return key

    @property
    def reads_tokens(self) -> bool:
        """Whether the model reads word pieces."""
        return any(name in self.inputs for name in TEXT_NAMES)

    @property
    def reads_words(self) -> bool:
        """Whether the model reads word ids."""
        return any(name in self.inputs for name in (*WORD_NAMES, *CONTEXT_NAMES))

    @property
    def reads_faces(self) -> bool:
        """Whether the model reads faces."""
        return any(name in self.inputs for name in FACE_NAMES)

    @property
    def context_fields(self) -> tuple[str, ...]:
        """Those of a record's features `context` and `future` that the model reads."""
        reads_text = self.reads_tokens or self.reads_words
        return tuple(name for name in ("context", "future") if reads_text and getattr(self.text, name))

    def __call__(self, raw: Mapping[str, tf.Tensor | tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        """Returns the model's inputs, each (B, ...), as `schema` describes them.

        Args:
            raw: features of B utterances. All but `utterance` may be missing.
                `utterance`, string (B,); empty: no text.
                `tokens`, word pieces (B, None), if the record has them already.
                `context`, lines before the utterance, `Speaker: utterance`, string (B, N), oldest first.
                `future`, lines after the utterance, string (B, N), in order of speaking.
                `face_jpeg`, string (B, T); empty: no face. Or decoded faces, as `decode_faces` returns them.
        """
        utterance = raw["utterance"]
        values: dict[str, tf.Tensor] = {}
        lines = [
            nearest_lines(_ragged(raw[name]), getattr(self.text, name), past=name == "context")
            for name in self.context_fields
            if name in raw
        ]
        if self.reads_tokens:
            values |= self._tokens(utterance, raw.get("tokens"), lines)
        if self.reads_words:
            values |= self._words(utterance, lines)
        if self.reads_faces:
            values |= self._faces(raw)
        return {name: values[name] for name in self.inputs}

    def _tokens(
        self, utterance: tf.Tensor, tokens: tf.RaggedTensor | None, lines: list[tf.RaggedTensor]
    ) -> dict[str, tf.Tensor]:
        pieces = self.pieces
        if pieces is None:
            if tokens is None or lines:
                raise ValueError("Preprocessor: raw text needs `pieces`, the word-piece tokenizer.")
            return pack_tokens(tokens, self.text.max_tokens)
        second = [context_pieces(side, pieces, self.text.context_tokens) for side in lines]
        tokens = pieces(utterance) if tokens is None else tokens
        return pack_tokens(tokens, self.text.max_tokens, tf.concat(second, axis=1) if second else None)

    def _words(self, utterance: tf.Tensor, lines: list[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        if self.words is None:
            raise ValueError("Preprocessor: word ids need `words`, the word vocabulary.")
        values = self.words(utterance, self.text.max_words)
        ids = [context_word_ids(side, self.words, self.text.context_tokens) for side in lines]
        empty = tf.zeros_like(values["word_ids"][:, :1])
        return values | {"context_word_ids": pad_words(tf.concat(ids, axis=1)) if ids else empty}

    def _faces(self, raw: Mapping[str, tf.Tensor | tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        if "faces" in raw:
            return {name: raw[name] for name in FACE_NAMES}
        jpegs = raw.get("face_jpeg", tf.zeros_like(raw["utterance"])[:, tf.newaxis])
        if isinstance(jpegs, tf.RaggedTensor):
            jpegs = jpegs.to_tensor("")
        # a batch without faces has one padding frame, so that no network gets an empty axis
        missing = tf.maximum(0, 1 - tf.shape(jpegs)[1])
        return decode_faces(tf.pad(jpegs, [[0, 0], [0, missing]], constant_values=""), self.face_size)


def _ragged(strings: tf.Tensor | tf.RaggedTensor) -> tf.RaggedTensor:
    return strings if isinstance(strings, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(strings)
