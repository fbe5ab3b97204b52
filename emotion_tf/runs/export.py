"""The folder of an export: facts of the model, checksums, and the graph."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 registers the text ops, which a server links in

from emotion_tf import files, trust
from emotion_tf.errors import UserError
from emotion_tf.models.graph_loader import load_session
from emotion_tf.models.graph_safety import check_folder
from emotion_tf.runs.export_files import CHECKSUMS, check_files
from emotion_tf.runs.facts import ExportFacts, check_model, read_exported


@dataclass(frozen=True)
class Export:
    """The export in `saved_models/RUN/serving/VERSION`.

    Attributes:
        path: the folder.
        facts: facts of the model.
    """

    path: Path
    facts: ExportFacts

    @classmethod
    def open(cls, path: Path) -> Export:
        """Reads the facts, verifies the files and judges the graph, which is not loaded.

        Raises:
            UserError: there is no export at `path`, its files have changed, or its graph may do harm.
        """
        facts = read_exported(path)
        check_files(path)
        check_folder(path)
        check_model(path, facts)
        return cls(path, facts)

    @property
    def is_trusted(self) -> bool:
        """Whether this user made the export or trusts it. Its list of checksums stands for all of its files."""
        return trust.is_trusted(files.sha256(self.path / CHECKSUMS))

    def check_trusted(self) -> None:
        """Raises UserError unless `is_trusted`."""
        trust.check(files.sha256(self.path / CHECKSUMS), "graph", self.path)

    def remember(self) -> None:
        """Trusts the export from now on: this user has made it."""
        trust.remember(files.sha256(self.path / CHECKSUMS), f"export of {self.facts.name}")


class SavedModel:
    """The signatures of a SavedModel, run by a session as in TF Serving.

    `tf.saved_model.load` would also accept models that a C++ loader cannot run, such as a plain `tf.saved_model.save`
    of Keras 3. The class is thread-safe.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        graph, config = tf.Graph(), tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = not optimizes()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph, config=config)
            try:
                loaded = load_session(self._session, path)
            except (tf.errors.OpError, OSError, ValueError, KeyError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(f"A server could not load {path}: {reason}. Export the run again.") from None
        self.signatures = {name: s for name, s in loaded.signature_def.items() if not name.startswith("__")}

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name.

        Raises:
            UserError: there is no such signature or input.
            tf.errors.OpError: the inputs are incompatible.
        """
        definition = find_signature(self, signature, inputs)
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: tensor.name for name, tensor in definition.outputs.items()}
        return self._session.run(fetches, feeds)

    @property
    def weights_size(self) -> int:
        """Bytes of the variables."""
        return weights_size(self.path)

    def close(self) -> None:
        """Frees the memory of the model."""
        self._session.close()


def optimizes() -> bool:
    """Returns whether TensorFlow optimises graphs before it runs them."""
    return not tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)


@contextlib.contextmanager
def unoptimized() -> Iterator[None]:
    """Runs functions as they were traced: to optimise a graph that answers twice takes longer than the answers."""
    before = not optimizes()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def find_signature(model: Any, name: str, inputs: Iterable[str]) -> Any:
    """Returns a signature of a SavedModel. Raises UserError if it, or one of its inputs, does not exist.

    Args:
        model: has `path` and `signatures`.
        name: name of the signature.
        inputs: names of inputs that it must have.
    """
    if name not in model.signatures:
        raise UserError(f"{model.path}: No signature {name[:80]!r}. Export the run again.")
    unknown = sorted(set(inputs) - set(model.signatures[name].inputs))
    if unknown:
        raise UserError(f"{model.path}: The signature {name[:80]!r} has no input {unknown[0][:80]!r}.")
    return model.signatures[name]


def versions(serving: Path) -> list[int]:
    """Returns the version numbers of a run's exports, unordered.

    Raises:
        UserError: a visible entry is no version number. TensorFlow Serving reads names leniently, such as "01" or "9 ",
            so it would load another version than the one that was judged.
    """
    names = [path.name for path in serving.glob("*") if not path.name.startswith(".")]
    for name in sorted(names):
        if not is_version(name):
            raise UserError(
                f"{serving}: {name!r} is no version number. Expected only folders of exports, such as 1 or 23. Move it "
                "elsewhere."
            )
    return [int(name) for name in names]


def is_version(name: str) -> bool:
    """Returns whether the name of a folder is a version number that every reader takes for the same number."""
    return bool(re.fullmatch(r"0|[1-9]\d{0,17}", name, re.ASCII))


def weights_size(folder: Path) -> int:
    """Returns the bytes of the variables that a SavedModel stores. Raises UserError if they cannot be read."""
    try:
        stored = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(f"Cannot read {folder / 'variables'}: {' '.join(str(error).split())[:200]}.") from None
    shapes, types = stored.get_variable_to_shape_map(), stored.get_variable_to_dtype_map()
    return sum(math.prod(shape) * types[name].size for name, shape in shapes.items() if "VARIABLE_VALUE" in name)
