"""The rows of the modalities, and the patterns of presence that are counted by them."""

from __future__ import annotations

import dataclasses

import numpy as np

from emotion_tf.config import Config
from emotion_tf.evaluation.calibration import PATTERNS
from emotion_tf.modalities import MODALITIES, in_order, presence_bit, presence_patterns
from emotion_tf.models.two_tower import presence_pattern


def test_every_modality_has_a_part_of_the_configuration_of_its_name():
    names = [field.name for field in dataclasses.fields(Config)]
    for name, row in MODALITIES.items():
        assert name == row.name and name in names
        assert {"branches", "init", "train_tower"} <= {f.name for f in dataclasses.fields(getattr(Config(), name))}


def test_patterns_of_presence_are_named_by_what_is_present():
    assert PATTERNS == ("nothing", "text only", "face only", "text and face")
    three = presence_patterns(("text", "face", "audio"))
    assert three[:4] == PATTERNS and three[4:] == (
        "audio only",
        "text and audio",
        "face and audio",
        "text, face and audio",
    )


def test_a_pattern_is_the_index_of_its_name():
    present = {"text/present": np.array([0, 1, 0, 1]), "face/present": np.array([0, 0, 1, 1])}
    assert np.asarray(presence_pattern(present)).tolist() == [0, 1, 2, 3]
    assert np.asarray(presence_pattern({"face/present": np.array([0, 1])})).tolist() == [0, presence_bit("face")]


def test_names_are_put_into_the_order_of_the_rows():
    assert in_order(["face", "text"]) == ("text", "face") and in_order(["face"]) == ("face",)


def test_sentences_agree_in_number():
    text, face = MODALITIES["text"], MODALITIES["face"]
    assert (text.helps, text.does_not_help, text.pronoun) == ("Text helps", "Text does not help", "it")
    assert (face.helps, face.does_not_help, face.pronoun) == ("Faces help", "Faces do not help", "them")
