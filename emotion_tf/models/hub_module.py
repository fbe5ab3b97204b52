"""The module of a SavedModel: its files, its graph, its variables and their names."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.models.graph_loader import load_module
from emotion_tf.models.graph_safety import GRAPH_FILE


class Holder:
    """Hides the module from the object tracking of Keras and TensorFlow: only the layer saves its variables."""

    def __init__(self, module: Any, files: Mapping[str, bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
        self.module, self.files, self.folder = module, files, folder


@contextlib.contextmanager
def damage_errors(handle: str) -> Iterator[None]:
    """Raises UserError for what TensorFlow raises while it reads a SavedModel that is damaged or may not be read."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:  # memory, which another copy would not add
        raise
    except (PermissionError, tf.errors.PermissionDeniedError) as error:
        raise UserError(f"Cannot read encoder {handle!r}: {_reason(error)}. Change its permissions.") from None
    except (
        tf.errors.OpError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError
    ) as error:  # fmt: skip
        raise UserError(f"Encoder {handle!r} is damaged: {_reason(error)}. Copy or fetch it again.") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def read_module_files(folder: str) -> dict[str, bytes]:
    """Returns the graph and assets of a SavedModel, without its variables: relative path -> content."""
    root = Path(folder)
    with damage_errors(folder):
        paths = [root / GRAPH_FILE, *(p for p in sorted((root / "assets").rglob("*")) if p.is_file())]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def write_module_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files that `read_module_files` returns."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def load_graph(files: Mapping[str, bytes], source: str) -> Holder:
    """Loads a module without the values of its variables, from a temporary folder that lives as long as the module.

    Args:
        files: as `read_module_files` returns them.
        source: where they come from, for error messages.
    """
    folder = tempfile.TemporaryDirectory(prefix="emotion_tf_module_")
    write_module_files(files, Path(folder.name))
    with damage_errors(source):
        module = load_module(folder.name, with_variables=False, source=source)
    return Holder(module, files, folder)


def read_variables(module: Any, folder: str) -> None:
    """Reads the values of a module's variables. Raises UserError if they are missing or damaged."""
    with damage_errors(folder):
        checkpoint = tf.train.Checkpoint(root=module)
        checkpoint.read(str(Path(folder, "variables", "variables"))).assert_existing_objects_matched()


def graph_sha256(files: Mapping[str, bytes]) -> str:
    """Returns the SHA-256 of a module's graph, in hexadecimal."""
    return hashlib.sha256(files[GRAPH_FILE]).hexdigest()


def module_variables(module: Any) -> dict[str, tf.Variable]:
    """Returns all variables of a module by unique names, in the order in which its objects were saved."""
    variables: dict[str, tf.Variable] = {}
    for variable in tf.train.TrackableView(module).descendants():
        if isinstance(variable, tf.Variable):
            name = base = variable.name.split(":")[0].replace("/", ".") or "variable"
            number = 1
            while name in variables:
                name, number = f"{base}_{number}", number + 1
            variables[name] = variable
    return variables


def trainable_ids(module: Any, variables: Mapping[str, tf.Variable]) -> set[int]:
    """Returns `id` of the trainable variables: those in the module's `trainable_variables`, else by their own flags."""
    declared = getattr(module, "trainable_variables", None)
    if declared is None:
        return {id(v) for v in variables.values() if v.trainable}
    return {id(v) for v in tf.nest.flatten(declared)}


def part_of(name: str) -> str:
    """Returns the part of BERT that a variable's name denotes: `embeddings`, `0`, `1` ... (layers), `pooler`, or "".

    It recognises the names of our own modules (`layer_3.attention...`) and of TF-Hub's BERT (`transformer/layer_3/...`,
    `word_embeddings/...`, `pooler_transform/...`; `bert/encoder/layer_3/...`).
    """
    layer = re.search(r"(?:^|[./])layers?[_./](\d+)(?=[./_]|$)", name)
    if layer:
        return layer.group(1)
    return next((part for part in ("embedding", "pooler") if part in name), "").replace("embedding", "embeddings")
