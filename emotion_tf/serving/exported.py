"""An export, run as TF Serving runs it: the graph and its restore op, by a session, without its Python objects.

`tf.saved_model.load` also takes what a C++ loader cannot run, such as a plain `tf.saved_model.save` of Keras 3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401 registers the text ops, which a server has linked in

from emotion_tf.errors import UserError
from emotion_tf.serving import about, contents
from emotion_tf.serving.predict import Arrays, Asked, full_inputs


class SavedModel:
    """The signatures of a SavedModel. Can be asked by several threads at once.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph)
            try:
                loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
            except (tf.errors.OpError, OSError, ValueError, KeyError, RuntimeError) as error:
                raise UserError(f"A server could not load {path}: {_line(error)}. Export the run again.") from None
        self.signatures = {name: s for name, s in loaded.signature_def.items() if not name.startswith("__")}

    def run(self, signature: str, inputs: Mapping[str, Any]) -> Arrays:
        """Outputs of a signature by name. Raises tf.errors.OpError for inputs that do not fit it."""
        found = self.signatures[signature]
        feeds = {found.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: one.name for name, one in found.outputs.items()}
        return self._session.run(fetches, feeds)

    def close(self) -> None:
        """Gives its memory back."""
        self._session.close()


class ExportPredictor(Asked):
    """An export, ready for raw inputs.

    Raises:
        UserError: it is none, its files are not what `export` wrote, or it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.about, self.where = about.read(path), str(path)
        contents.check(path)
        self._saved = SavedModel(path)

    def _ask(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        return self._saved.run("serve_full", full_inputs(utterances, contexts, crops))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
