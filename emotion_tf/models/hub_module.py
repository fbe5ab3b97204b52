"""A SavedModel's module: its files, its graph, its variables and what their names tell."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

GRAPH_FILE = "saved_model.pb"


class Holder:
    """Keeps the module out of Keras' and TensorFlow's object tracking: its variables are saved once, as the layer's."""

    def __init__(self, module: Any, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.module, self.folder = module, folder


def read_module_files(folder: str) -> dict[str, bytes]:
    """Relative path -> content of a SavedModel's graph and assets, without its variables."""
    root = Path(folder)
    paths = [root / GRAPH_FILE, *(p for p in sorted((root / "assets").rglob("*")) if p.is_file())]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def write_module_files(files: Mapping[str, bytes], folder: Path) -> None:
    """The opposite of `read_module_files`."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def load_graph(files: Mapping[str, bytes]) -> Holder:
    """The module without its variables' values, from a folder of its own that lives as long as the module."""
    folder = tempfile.TemporaryDirectory(prefix="emotion_tf_module_")
    write_module_files(files, Path(folder.name))
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
    return Holder(tf.saved_model.load(folder.name, options=options), folder)


def module_variables(module: Any) -> dict[str, tf.Variable]:
    """Unique name -> variable, every one that the module holds, in the order in which its objects were saved."""
    found: dict[str, tf.Variable] = {}
    for variable in tf.train.TrackableView(module).descendants():
        if isinstance(variable, tf.Variable):
            name = base = variable.name.split(":")[0].replace("/", ".") or "variable"
            number = 1
            while name in found:
                name, number = f"{base}_{number}", number + 1
            found[name] = variable
    return found


def trainable_ids(module: Any, variables: Mapping[str, tf.Variable]) -> set[int]:
    """Ids of the variables declared trainable: by the module's (maybe nested) list, else by each variable's flag."""
    declared = getattr(module, "trainable_variables", None)
    if declared is None:
        return {id(v) for v in variables.values() if v.trainable}
    return {id(v) for v in tf.nest.flatten(declared)}


def part_of(name: str) -> str:
    """`embeddings`, `0`, `1` ... for the layers from below, `pooler`, or nothing when a variable's name does not tell.

    It knows the names of our own modules (`layer_3.attention...`) and of TF-Hub's BERT (`transformer/layer_3/...`,
    `word_embeddings/...`, `pooler_transform/...`; `bert/encoder/layer_3/...`).
    """
    layer = re.search(r"(?:^|[./])layers?[_./](\d+)(?=[./_]|$)", name)
    if layer:
        return layer.group(1)
    return next((part for part in ("embedding", "pooler") if part in name), "").replace("embedding", "embeddings")
