"""Label sets, in the order of the logits. No other module knows the number of emotions."""

from __future__ import annotations

from emotion_tf.errors import UserError, nearest

MELD_EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
EMORYNLP_EMOTIONS = ("neutral", "joyful", "peaceful", "powerful", "scared", "mad", "sad")
SENTIMENTS = ("neutral", "positive", "negative")

# other names of an emotion in folders of labelled faces
ALIASES = {
    "joy": ("happy", "happiness", "joyful"),
    "anger": ("angry",),
    "sadness": ("sad",),
    "surprise": ("surprised",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "neutral": ("neutrality",),
}

LABEL_SETS = {"meld": MELD_EMOTIONS, "emorynlp": EMORYNLP_EMOTIONS, "sentiment": SENTIMENTS}


MAX_LABEL = 100


def is_label(name: str) -> bool:
    """Whether a name can be a label: of 1 to `MAX_LABEL` printable characters, without spaces around it."""
    return 0 < len(name) <= MAX_LABEL and name.strip() == name and name.isprintable()


def label_set(names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the labels of `--labels`: a named label set, or the labels themselves.

    Raises:
        UserError: fewer than two labels, one named twice, or one that `is_label` does not accept.
    """
    labels = LABEL_SETS.get(names[0], tuple(names)) if len(names) == 1 else tuple(names)
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(map(is_label, labels)):
        raise UserError(
            f"Invalid `--labels`. Expected one of {', '.join(LABEL_SETS)}, or two or more different names of at "
            f"most {MAX_LABEL} printable characters. "
            f"Received: {' '.join(names)!r}.{nearest(names[0], LABEL_SETS) if len(names) == 1 else ''}"
        )
    return labels
