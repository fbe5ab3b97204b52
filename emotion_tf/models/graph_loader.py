"""Loads SavedModels. No other module does: each graph is judged here before TensorFlow reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from emotion_tf.models.graph_safety import check_folder


def load_module(folder: Path | str, with_variables: bool = True, source: str = "") -> Any:
    """Loads a SavedModel as a Python object.

    Args:
        folder: the SavedModel.
        with_variables: whether to restore the values of its variables.
        source: where it comes from, for error messages. Default: the folder.

    Raises:
        UserError: see `graph_safety.check_folder`.
    """
    check_folder(Path(folder), source)
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=not with_variables)
    return tf.saved_model.load(str(folder), options=options)


def load_session(session: tf.compat.v1.Session, folder: Path) -> MetaGraphDef:
    """Loads a SavedModel into a session as a server does, and returns its signatures and nodes.

    Raises:
        UserError: see `graph_safety.check_folder`.
    """
    check_folder(folder)
    return tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
