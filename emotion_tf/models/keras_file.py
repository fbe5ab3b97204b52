"""Loads `.keras` files. The archive, the classes of its configuration and its graphs are judged before Keras reads it.

Keras' safe mode refuses Lambda layers and pickles. It still imports what a configuration names in Keras, such as layers
that read files or SavedModels; these are refused here.
"""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import keras

from emotion_tf import trust
from emotion_tf.errors import UserError
from emotion_tf.models.graph_safety import GRAPH_FILE, check_graph

_FILES = ("metadata.json", "config.json", "model.weights.h5")
_MAX_JSON = 1 << 26
_MAX_EXPANSION = 10
"""Largest size of all members together, relative to the file. Keras does not compress."""
_MODULES = {
    "builtins",
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.layers",
    "keras.random",
    "keras.regularizers",
    "keras.src.models.functional",
    "keras.src.models.sequential",
}
"""Modules whose classes and functions may occur, beside the operations of Keras and the registered ones of ours."""
_OPERATIONS = "keras.src.ops."
_CONVNEXT = ("keras.src.applications.convnext", {"LayerScale", "StochasticDepth"})
"""The only layers of Keras that belong to one network; their module also has functions that download files."""
_TOP = {"DTypePolicy", "Functional", "Model", "Sequential"}
"""Names of the module `keras` itself."""
_REFUSED = {
    "FlaxLayer",
    "HashedCrossing",
    "Hashing",
    "IntegerLookup",
    "JaxLayer",
    "Lambda",
    "StringLookup",
    "TFSMLayer",
    "TextVectorization",
    "TorchModuleWrapper",
}
"""Layers that run code of the file, or read files that it names."""
_ENCODERS = {"HubEncoder", "HubImage"}
_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}


def load_keras_file(path: Path | str) -> keras.Model:
    """Loads a model for inference.

    Raises:
        UserError: see `check_keras_file`. Keras raises many kinds of exceptions for a damaged file.
    """
    check_keras_file(Path(path))
    return keras.saving.load_model(path, compile=False)


def check_keras_file(path: Path) -> None:
    """Judges a `.keras` file without loading it.

    Raises:
        UserError: it is no `.keras` file; it has members that Keras does not write, or that expand enormously; its
            configuration names a class that may run code or read files; it has a graph that `graph_safety` refuses, or
            that this user has not saved and does not trust.
    """
    if not path.is_file() or path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise UserError(f"Cannot load {path}: it is no .keras file. Copy it again, or train again.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
            _check_config(path, json.loads(archive.read("config.json")))
            for name in archive.namelist():
                if PurePosixPath(name).name == GRAPH_FILE:
                    content = archive.read(name)
                    check_graph(content, path)
                    trust.check(hashlib.sha256(content).hexdigest(), "encoder graph", path)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, RecursionError, NotImplementedError) as error:
        raise UserError(
            f"Cannot load {path}: it is damaged ({' '.join(str(error).split())[:120]}). Copy it again, or train again."
        ) from None


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    for member in members:
        parts = PurePosixPath(member.filename).parts
        is_asset = parts[:1] == ("assets",) and ".." not in parts and "\\" not in member.filename
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if is_link or names.count(member.filename) > 1 or not (is_asset or member.filename in _FILES):
            raise UserError(
                f"{path}: It contains {member.filename!r}. Expected {', '.join(_FILES)} and files in assets/, once "
                "each. Do not use this file, or get it from its author again."
            )
    size, limit = sum(member.file_size for member in members), _MAX_EXPANSION * path.stat().st_size + _MAX_JSON
    if size > limit or archive.getinfo("config.json").file_size > _MAX_JSON:
        raise UserError(
            f"{path}: Its contents are too large for the file. Expected at most {limit:,} bytes, and {_MAX_JSON:,} of "
            f"config.json. Received: {size:,}. Do not use this file, or get it from its author again."
        )


def _check_config(path: Path, config: Any) -> None:
    if isinstance(config, dict):
        config = {**config, "compile_config": None}  # not read
    for item in _objects(config):
        name, module, registered = (item.get(key) for key in ("class_name", "module", "registered_name"))
        if module is None and name in _VALUES:
            continue
        is_complete = {"class_name", "module", "registered_name"} <= item.keys()  # else Keras reads an older format
        if not is_complete or not _is_allowed(name, module, registered, item.get("config")):
            raise UserError(
                f"{path}: Its configuration has {str(module)[:80]}.{str(name)[:80]}. Expected only layers of Keras "
                "that neither run code of the file nor read other files, and layers of this program. Do not use this "
                "file, or get it from its author again."
            )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields the dicts of a configuration that name a class or a function."""
    rest = [config]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            if "class_name" in item or "registered_name" in item or "spec_name" in item:
                yield item
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)


def _is_allowed(name: Any, module: Any, registered: Any, config: Any) -> bool:
    """Returns whether an object may occur. Keras imports some by `class_name` and others by `registered_name`."""
    function = config if name == "function" else name
    if not (isinstance(module, str) and isinstance(function, str)) or function.startswith("_"):
        return False
    custom = keras.saving.get_registered_object(f"emotion_tf>{function}") if registered else None
    if custom is not None and registered == f"emotion_tf>{function}":
        has_module = isinstance(config, dict) and isinstance(config.get("module"), dict)
        return custom.__module__ == module and (name not in _ENCODERS or has_module)
    if registered not in (None, function, name) or not function.isidentifier():
        return False
    if module == "keras":
        return function in _TOP
    if module == _CONVNEXT[0]:
        return name in _CONVNEXT[1]
    return (module in _MODULES or module.startswith(_OPERATIONS)) and function not in _REFUSED
