"""Resolves encoder handles to local SavedModel folders, and reads their vocabularies."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from emotion_tf import weights
from emotion_tf.errors import UserError, nearest
from emotion_tf.models.graph_safety import GRAPH_FILE
from emotion_tf.models.hub_module import damage_errors, load_graph, read_module_files
from emotion_tf.program import program
from emotion_tf.weights_table import cache_folder

_REMOTE = ("http", "https", "gs")


def resolve_encoder(handle: str) -> str:
    """Returns the local SavedModel folder of an encoder.

    Args:
        handle: a name of `emotion_tf.weights`, a local SavedModel folder, or a tfhub.dev / Kaggle URL, which is
            downloaded into `$TFHUB_CACHE_DIR` (by default `tfhub` inside the project's cache).

    Raises:
        UserError: the weights are not in the cache, the folder holds no SavedModel, the URL cannot be reached, or
            `handle` is none of the three.
    """
    if handle in weights.encoders():
        folder = weights.find(handle)
        if folder is None:
            raise UserError(f"Encoder {handle!r} is not in the cache. Run: {program()} weights fetch {handle}")
        return str(folder)
    if urllib.parse.urlsplit(handle).scheme in _REMOTE:
        return check_folder(_download(handle), handle)
    if Path(handle).is_dir():
        return check_folder(handle, handle)
    raise UserError(
        f"Invalid encoder. Expected a name of `weights` ({', '.join(weights.encoders())}), a local SavedModel folder, "
        f"or a tfhub.dev or Kaggle URL. Received: {handle!r}.{nearest(handle, weights.encoders())}"
    )


def check_folder(folder: str, handle: str) -> str:
    """Returns `folder` if it holds a TensorFlow 2 SavedModel, else raises UserError."""
    if Path(folder, GRAPH_FILE).is_file():
        return folder
    content = (
        "a TF1 hub module, which TensorFlow 2 cannot train"
        if Path(folder, "tfhub_module.pb").exists()
        else "no TF2 module"
    )
    raise UserError(f"Encoder {handle!r} holds {content}: there is no {GRAPH_FILE} in {folder}.")


def _download(url: str) -> str:
    import tensorflow_hub as hub  # slow, and needed only for remote handles

    try:
        with _tfhub_cache():
            return str(hub.resolve(url))
    except urllib.error.HTTPError as error:
        reason = f"the server answered {error.code} {error.reason}"
    except (OSError, EOFError, tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
    raise UserError(
        f"Cannot get encoder {url!r}: {reason}. Without that server, give the path of a local SavedModel; for "
        f"text also 'minilm', after `{program()} weights fetch minilm`."
    )


@contextlib.contextmanager
def _tfhub_cache() -> Iterator[None]:
    """Makes TF-Hub cache modules in the project's cache, not in the temporary folder, unless the user set a folder."""
    if os.environ.get("TFHUB_CACHE_DIR"):
        yield
        return
    os.environ["TFHUB_CACHE_DIR"] = str(cache_folder() / "tfhub")
    try:
        yield
    finally:
        del os.environ["TFHUB_CACHE_DIR"]


def load_vocabulary(path: str) -> tuple[list[str], bool]:
    """Returns the word pieces of an encoder, and whether its text is lower-cased.

    TF-Hub's BERT encoders have the attributes `vocab_file` and `do_lower_case`. Without the first, `assets/vocab.txt`
    is read. Without the second, the encoder is lower-cased if no entry of the vocabulary, other than `[...]`, has a
    capital letter.

    Args:
        path: a SavedModel folder.

    Raises:
        UserError: there is no SavedModel, or it has no vocabulary.
    """
    module = load_graph(read_module_files(check_folder(path, path)), path).module
    asset = getattr(module, "vocab_file", None)
    file_name = "vocab.txt" if asset is None else Path(asset.asset_path.numpy().decode()).name
    file = Path(path, "assets", file_name)
    if not file.is_file():
        raise UserError(f"Encoder {path!r} has no vocabulary: neither `vocab_file` nor assets/vocab.txt.")
    with damage_errors(path):
        pieces = file.read_text(encoding="utf-8").split("\n")
        lower = _saved_flag(path, "do_lower_case") if hasattr(module, "do_lower_case") else None
    pieces = [piece.rstrip("\r") for piece in (pieces[:-1] if pieces[-1] == "" else pieces)]
    if lower is None:
        lower = not any(p != p.lower() for p in pieces if not p.startswith("["))
    return pieces, lower


def _saved_flag(path: str, name: str) -> bool | None:
    """Returns the value of a variable of the module's root, or None if there is no such variable."""
    reader = tf.train.load_checkpoint(str(Path(path, "variables", "variables")))
    key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
    return bool(reader.get_tensor(key)) if reader.has_tensor(key) else None
