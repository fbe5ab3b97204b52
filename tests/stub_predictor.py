"""A predictor without a model."""

import types

import numpy as np

from emotion_tf.serving.predictor import Predictor


class Certain(Predictor):
    """A model that is certain of everything."""

    facts = types.SimpleNamespace(labels=("joy", "fear"), face_size=32, context=0, crops={})
    source = "certain"

    def _predict_batch(self, utterances, contexts, crops):
        n = len(utterances)
        present = np.ones(n, bool)
        return {
            "logits": np.tile(np.float32([9, 0]), (n, 1)), "probabilities": np.tile(np.float32([1, 0]), (n, 1)),
            "text_present": present, "face_present": present,
        }  # fmt: skip
