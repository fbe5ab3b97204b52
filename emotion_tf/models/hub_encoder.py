"""A TF-Hub BERT encoder as a trainable Keras 3 layer that carries its module inside every saved model.

`hub.KerasLayer` belongs to Keras 2: in a Keras 3 model it has no trainable weight (tensorflow/hub#903, #920). Here a
Keras layer adopts the variables of the loaded module as its own weights, so that `fit`, checkpoints, `.keras` files and
exports treat them like those of any layer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from emotion_tf import weights
from emotion_tf.errors import UserError, nearest

INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")
OUTPUT_NAMES = ("pooled_output", "sequence_output")
_GRAPH_FILE = "saved_model.pb"
_REMOTE = ("http", "https", "gs")


def resolve_encoder(handle: str) -> str:
    """The local SavedModel folder that `handle` stands for.

    Args:
        handle: a name of `emotion_tf.weights`, a local SavedModel folder, or a tfhub.dev / Kaggle URL, which is
            downloaded into `$TFHUB_CACHE_DIR` (by default `tfhub` inside the project's cache).

    Raises:
        UserError: the weights are not fetched; the folder holds no SavedModel; the URL cannot be reached; none of the
            three.
    """
    if handle in weights.encoders():
        found = weights.find(handle)
        if found is None:
            raise UserError(f"Encoder {handle!r} is not in the cache. Run: python main.py weights fetch {handle}")
        return str(found)
    if urllib.parse.urlsplit(handle).scheme in _REMOTE:
        return _check_folder(_download(handle), handle)
    if Path(handle).is_dir():
        return _check_folder(handle, handle)
    raise UserError(
        f"Invalid encoder. Expected a name of `weights` ({', '.join(weights.encoders())}), a local SavedModel folder, "
        f"or a tfhub.dev or Kaggle URL. Received: {handle!r}.{nearest(handle, weights.encoders())}"
    )


def _check_folder(folder: str, handle: str) -> str:
    if Path(folder, _GRAPH_FILE).is_file():
        return folder
    what = (
        "a TF1 hub module, which TensorFlow 2 cannot train"
        if Path(folder, "tfhub_module.pb").exists()
        else "no TF2 module"
    )
    raise UserError(f"Encoder {handle!r} holds {what}: there is no {_GRAPH_FILE} in {folder}.")


def _download(url: str) -> str:
    import tensorflow_hub as hub  # slow, and needed by remote handles alone

    try:
        with _tfhub_cache():
            return str(hub.resolve(url))
    except urllib.error.HTTPError as error:
        reason = f"the server answered {error.code} {error.reason}"
    except (OSError, EOFError, tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
    raise UserError(
        f"Cannot get encoder {url!r}: {reason}. Without that server, give the path of a local SavedModel, or run "
        "`python main.py weights fetch minilm` and use 'minilm'."
    )


@contextlib.contextmanager
def _tfhub_cache() -> Iterator[None]:
    """TF-Hub would keep modules in the system's temporary folder; a variable the user has set is left alone."""
    if os.environ.get("TFHUB_CACHE_DIR"):
        yield
        return
    os.environ["TFHUB_CACHE_DIR"] = str(weights.cache_folder() / "tfhub")
    try:
        yield
    finally:
        del os.environ["TFHUB_CACHE_DIR"]


@dataclass(frozen=True)
class Interface:
    """How a module wants to be called.

    Attributes:
        inputs: `dict`, or `list` for [word ids, mask, type ids].
        modes: values of `training` it was traced with; empty when it has no such argument.
        outputs: `dict`, or `tuple` for (pooled, sequence).
        hidden: width H of the outputs.
    """

    inputs: str
    modes: tuple[bool, ...]
    outputs: str
    hidden: int

    @property
    def spec(self) -> Any:
        """What it is called with."""
        return _input_spec(self.inputs)


@dataclass(frozen=True)
class ImageInterface:
    """How a module of pictures wants to be called.

    Attributes:
        height, width: of the pictures in pixels; None: any.
        modes: as above.
        hidden: width D of the output.
    """

    height: int | None
    width: int | None
    modes: tuple[bool, ...]
    hidden: int

    @property
    def spec(self) -> tf.TensorSpec:
        """What it is called with."""
        return tf.TensorSpec((None, self.height, self.width, 3), tf.float32)


def inspect_module(module: Any, handle: str) -> Interface:
    """Finds out how `module` wants to be called, from its traces, without running it.

    Raises:
        UserError: it cannot be called as a BERT encoder; the message has the signatures or outputs that were found.
    """
    if not callable(module):
        raise UserError(f"Encoder {handle!r} is not a BERT encoder: its SavedModel cannot be called (no __call__).")
    call = module.__call__
    for kind in ("dict", "list"):
        inputs = _input_spec(kind)
        traces = {mode: trace for mode in (False, True) if (trace := _trace(call, inputs, training=mode))}
        trace = traces.get(False) or traces.get(True) or _trace(call, inputs)
        if trace:
            outputs, hidden = _inspect_outputs(trace.structured_outputs, handle)
            return Interface(kind, tuple(traces), outputs, hidden)
    found = "; ".join(str(f.structured_input_signature) for f in getattr(call, "concrete_functions", [])[:2])
    raise UserError(
        f"Encoder {handle!r} is not a BERT encoder. Expected int32 inputs {', '.join(INPUT_NAMES)} of shape "
        f"(None, None). Found: {' '.join(found.split())[:600] or 'no signature'}"
    )


def inspect_image_module(module: Any, handle: str) -> ImageInterface:
    """The same for a module of pictures: TF-Hub's common image signature, float32 (N, H, W, 3) -> (N, D).

    Raises:
        UserError: it cannot be called so.
    """
    call = module.__call__ if callable(module) else None
    traces = getattr(call, "concrete_functions", [])
    given = [spec for trace in traces for spec in tf.nest.flatten(trace.structured_input_signature)]
    specs = [spec for spec in given if _is_picture(spec)]
    for height, width in dict.fromkeys(tuple(spec.shape[1:3]) for spec in specs):
        spec = tf.TensorSpec((None, height, width, 3), tf.float32)
        found = {mode: trace for mode in (False, True) if (trace := _trace(call, spec, training=mode))}
        trace = found.get(False) or found.get(True) or _trace(call, spec)
        output = trace.structured_outputs if trace else None
        if isinstance(output, (tf.Tensor, tf.TensorSpec)) and output.shape.rank == 2 and output.shape[1]:
            return ImageInterface(height, width, tuple(found), int(output.shape[1]))
    signatures = "; ".join(f"{t.structured_input_signature} -> {t.structured_outputs}" for t in traces[:2])
    raise UserError(
        f"The face network {handle!r} is no TF-Hub image module. Expected float32 (None, H, W, 3) -> (None, D). Found: "
        f"{' '.join(signatures.split())[:400] or 'no signature that can be called'}. A Keras model is better given as "
        "a .keras file."
    )


def _is_picture(spec: Any) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.dtype == tf.float32 and spec.shape.rank == 4 and spec.shape[3] == 3


def trace_module(module: Any, interface: Interface | ImageInterface) -> None:
    """Fixes the traces for any batch and length, before TensorFlow makes one per shape.

    Those would be optimised for their shape: slower to get, and different in the last bit from one load to the next.
    """
    for keywords in [{"training": mode} for mode in interface.modes] or [{}]:
        module.__call__.get_concrete_function(interface.spec, **keywords)


def _input_spec(kind: str) -> Any:
    spec = {name: tf.TensorSpec((None, None), tf.int32, name=name) for name in INPUT_NAMES}
    return spec if kind == "dict" else list(spec.values())


def _trace(call: Any, inputs: Any, **training: bool) -> Any:
    """The trace for these arguments, or None when the module has none."""
    try:
        return call.get_concrete_function(inputs, **training)
    except (ValueError, TypeError):
        return None


def _inspect_outputs(outputs: Any, handle: str) -> tuple[str, int]:
    if isinstance(outputs, Mapping) and set(OUTPUT_NAMES) <= set(outputs):
        kind, pair = "dict", [outputs[name] for name in OUTPUT_NAMES]
    else:
        kind, pair = "tuple", outputs
    if (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(isinstance(x, (tf.Tensor, tf.TensorSpec)) for x in pair)
    ):
        pooled, sequence = pair
        if (pooled.shape.rank, sequence.shape.rank) == (2, 3) and pooled.shape[-1] == sequence.shape[-1] is not None:
            return kind, int(pooled.shape[-1])
    found = tf.nest.map_structure(lambda x: getattr(x, "shape", x), outputs)
    raise UserError(
        f"Encoder {handle!r} is not a BERT encoder. Expected outputs pooled_output (B, H) and sequence_output "
        f"(B, L, H). Found: {' '.join(str(found).split())[:400]}"
    )


class _Holder:
    """Keeps the module out of Keras' and TensorFlow's object tracking: its variables are saved once, as the layer's."""

    def __init__(self, module: Any, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.module, self.folder = module, folder


@keras.saving.register_keras_serializable(package="emotion_tf")
class HubEncoder(keras.layers.Layer):
    """A TF-Hub BERT encoder with trainable variables.

    Input: dict of `input_word_ids`, `input_mask`, `input_type_ids`, int32 (B, L).
    Output: dict of `pooled_output` float32 (B, H) and `sequence_output` float32 (B, L, H).

    It computes in float32 whatever the global policy: a policy does not reach inside a SavedModel. While `trainable` is
    False the module runs as in inference (no dropout), like `hub.KerasLayer`. Changing `layer.trainable` takes effect
    at the next `compile`, and never makes trainable what the module itself says is not.

    A `.keras` file holds the module's graph and assets, and its weights once: the handle may be gone. Loading runs that
    graph, so load only models you trust. Load with `compile=False`: the optimizer of a compiled file would look for
    variables from before the module was there.

    Args:
        handle: a local SavedModel folder (see `resolve_encoder`).
        trainable: whether the module's trainable variables are trained.
        frozen: parts of the module that stay as they are all the same: `embeddings`, `pooler` (see `part_of`).
        module: what `get_config` keeps of a module: interface, variables and the sha256 of its graph. Not for callers.

    Raises:
        UserError: `handle` is not a BERT encoder, or `trainable` is asked of a module without trainable variables.
    """

    OUTPUTS: tuple[str, ...] = OUTPUT_NAMES
    INTERFACE: type = Interface

    def _inspect(self, module: Any, handle: str) -> Any:
        return inspect_module(module, handle)

    def __init__(
        self,
        handle: str,
        trainable: bool = True,
        frozen: Sequence[str] = (),
        module: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(trainable=trainable, **kwargs)
        self.handle, self.frozen = str(handle), tuple(frozen)
        self._holder: _Holder | None = None
        self._files: dict[str, bytes] = {}
        if module is None:
            self._open(self.handle)
        else:
            self._prepare(module)

    def _open(self, handle: str) -> None:
        """Loads the module of `handle` and describes it for `get_config`."""
        self._files = read_module_files(_check_folder(handle, handle))
        holder = load_graph(self._files)
        interface = self._inspect(holder.module, handle)
        variables = module_variables(holder.module)
        trained = trainable_ids(holder.module, variables)
        if self.trainable and not trained:
            raise UserError(f"Encoder {handle!r} has no trainable variables. Freeze it: --text.train-encoder false")
        if "embeddings" in self.frozen and "embeddings" not in map(part_of, variables):
            raise UserError(
                f"--text.freeze-embeddings: no variable of the encoder {handle!r} bears the name of an embedding. "
                f"Received: {', '.join(list(variables)[:3])} ..."
            )
        prefix = str(Path(handle, "variables", "variables"))
        tf.train.Checkpoint(root=holder.module).read(prefix).assert_existing_objects_matched()
        config: dict[str, Any] = {
            "sha256": hashlib.sha256(self._files[_GRAPH_FILE]).hexdigest(),
            "interface": asdict(interface),
            "variables": [
                {
                    "name": name,
                    "shape": list(v.shape),
                    "dtype": v.dtype.name,
                    "trainable": id(v) in trained and part_of(name) not in self.frozen,
                }
                for name, v in variables.items()
            ],
        }
        self._module_config = config
        self._interface = interface
        self._create_weights()
        self._adopt(holder, keep_values=False)

    def _prepare(self, module: dict[str, Any]) -> None:
        """From a configuration: weights now; the module from an unchanged handle, else in `load_assets`."""
        self._module_config = module
        self._interface = self.INTERFACE(**{**module["interface"], "modes": tuple(module["interface"]["modes"])})
        self._create_weights()
        graph = Path(self.handle, _GRAPH_FILE)
        if graph.is_file() and hashlib.sha256(graph.read_bytes()).hexdigest() == module["sha256"]:
            self._files = read_module_files(self.handle)
            self._adopt(load_graph(self._files), keep_values=True)

    def _create_weights(self) -> None:
        self._adopted = [
            self.add_weight(initializer="zeros", **{**entry, "shape": tuple(entry["shape"])})
            for entry in self._module_config["variables"]
        ]

    def _adopt(self, holder: _Holder, keep_values: bool) -> None:
        """Points every weight of the layer at the module's variable; `keep_values` first copies the weight's value."""
        variables = module_variables(holder.module)
        expected = {entry["name"]: tuple(entry["shape"]) for entry in self._module_config["variables"]}
        if {name: tuple(v.shape) for name, v in variables.items()} != expected:
            raise ValueError(f"The module of encoder {self.handle!r} and the saved weights do not belong together.")
        for weight, variable in zip(self._adopted, variables.values(), strict=True):
            if keep_values:
                variable.assign(weight.numpy())
            # Private, and the only way: Keras 3 copies any variable it is given through a public door.
            weight._value = variable
        trace_module(holder.module, self._interface)
        self._holder = holder

    def _run(self, arguments: Any, training: bool | None) -> Any:
        if self._holder is None:
            raise ValueError(
                f"Layer {self.name!r} has no module: {self.handle!r} is gone, and no .keras file was loaded."
            )
        modes = self._interface.modes
        wanted = bool(training) and self.trainable
        keywords = {"training": wanted if wanted in modes else modes[0]} if modes else {}
        return self._holder.module(arguments, **keywords)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Runs the module; see the class for shapes. `training` is a Python bool."""
        arguments: Any = {name: tf.cast(inputs[name], tf.int32) for name in INPUT_NAMES}
        if self._interface.inputs == "list":
            arguments = list(arguments.values())
        outputs = self._run(arguments, training)
        if self._interface.outputs == "tuple":
            return dict(zip(OUTPUT_NAMES, outputs, strict=True))
        return {name: outputs[name] for name in OUTPUT_NAMES}

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Output shapes without running the module."""
        batch, length = inputs[INPUT_NAMES[0]].shape
        hidden = self._interface.hidden
        return {
            "pooled_output": keras.KerasTensor((batch, hidden), "float32"),
            "sequence_output": keras.KerasTensor((batch, length, hidden), "float32"),
        }

    @property
    def parts(self) -> list[tuple[keras.Variable, str]]:
        """Each weight that is trained, and the part of BERT that its name puts it in (see `part_of`)."""
        names = {id(w): e["name"] for w, e in zip(self._adopted, self._module_config["variables"], strict=True)}
        return [(weight, part_of(names[id(weight)])) for weight in self.trainable_weights]

    @property
    def positions(self) -> int | None:
        """Most word pieces that the position embedding knows; None when no variable tells."""
        shapes = [e["shape"] for e in self._module_config["variables"] if "position" in e["name"].lower()]
        return min((shape[0] for shape in shapes if len(shape) == 2), default=None)

    def reseed(self, seed: int) -> bool:
        """Sets the dropout seed of a module that has one (ours); False for a module whose dropout cannot be steered."""
        found = [
            w
            for w, e in zip(self._adopted, self._module_config["variables"], strict=True)
            if e["name"] == "dropout_seed"
        ]
        for weight in found:
            weight.assign(seed)
        return bool(found)

    def get_config(self) -> dict[str, Any]:
        """The handle, and what is needed to make the weights without it."""
        return {
            **super().get_config(),
            "handle": self.handle,
            "trainable": self.trainable,
            "frozen": self.frozen,
            "module": self._module_config,
        }

    def save_assets(self, inner_path: str) -> None:
        """Keras writes the weights; this adds the module's graph and assets."""
        write_module_files(self._files, Path(inner_path))

    def load_assets(self, inner_path: str) -> None:
        """Called by Keras after the weights are loaded: the module comes in and takes over their values."""
        if self._holder is None:
            self._files = read_module_files(inner_path)
            self._adopt(load_graph(self._files), keep_values=True)


@keras.saving.register_keras_serializable("emotion_tf")
class HubImage(HubEncoder):
    """A TF-Hub image module with trainable variables: float32 (N, H, W, 3) -> (N, D); all else as `HubEncoder`.

    Raises:
        UserError: `handle` is no image module.
    """

    OUTPUTS = ()
    INTERFACE = ImageInterface

    def _inspect(self, module: Any, handle: str) -> ImageInterface:
        return inspect_image_module(module, handle)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that the module wants; None: any."""
        height, width = self._interface.height, self._interface.width
        return (height, width) if height and width else None

    def call(self, pictures: Any, training: bool | None = None) -> Any:
        """Runs the module; `training` is a Python bool."""
        return self._run(tf.cast(pictures, tf.float32), training)

    def compute_output_spec(self, pictures: Any, training: bool | None = None) -> Any:
        """Output shape without running the module."""
        return keras.KerasTensor((pictures.shape[0], self._interface.hidden), "float32")


def part_of(name: str) -> str:
    """`embeddings`, `0`, `1` ... for the layers from below, `pooler`, or nothing when a variable's name does not tell.

    It knows the names of our own modules (`layer_3.attention...`) and of TF-Hub's BERT (`transformer/layer_3/...`,
    `word_embeddings/...`, `pooler_transform/...`; `bert/encoder/layer_3/...`).
    """
    layer = re.search(r"(?:^|[./])layers?[_./](\d+)(?=[./_]|$)", name)
    if layer:
        return layer.group(1)
    return next((part for part in ("embedding", "pooler") if part in name), "").replace("embedding", "embeddings")


def read_module_files(folder: str) -> dict[str, bytes]:
    """Relative path -> content of a SavedModel's graph and assets, without its variables."""
    root = Path(folder)
    paths = [root / _GRAPH_FILE, *(p for p in sorted((root / "assets").rglob("*")) if p.is_file())]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def write_module_files(files: Mapping[str, bytes], folder: Path) -> None:
    """The opposite of `read_module_files`."""
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def load_graph(files: Mapping[str, bytes]) -> _Holder:
    """The module without its variables' values, from a folder of its own that lives as long as the module."""
    folder = tempfile.TemporaryDirectory(prefix="emotion_tf_module_")
    write_module_files(files, Path(folder.name))
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
    return _Holder(tf.saved_model.load(folder.name, options=options), folder)


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


def load_vocabulary(path: str) -> tuple[list[str], bool]:
    """The word pieces of an encoder, and whether its text is lower-cased.

    The module's own `vocab_file` and `do_lower_case` are used, as TF-Hub's BERT encoders carry them; without the first,
    `assets/vocab.txt`; without the second the vocabulary itself tells: one that holds a capital letter outside of
    `[...]` is cased, one that holds none can be met by lower-cased text alone.

    Args:
        path: a SavedModel folder.

    Raises:
        UserError: there is no SavedModel, or it carries no vocabulary.
    """
    module = load_graph(read_module_files(_check_folder(path, path))).module
    asset = getattr(module, "vocab_file", None)
    inside = "vocab.txt" if asset is None else Path(asset.asset_path.numpy().decode()).name
    file = Path(path, "assets", inside)
    if not file.is_file():
        raise UserError(f"Encoder {path!r} carries no vocabulary: neither `vocab_file` nor assets/vocab.txt.")
    pieces = file.read_text(encoding="utf-8").split("\n")
    pieces = [piece.rstrip("\r") for piece in (pieces[:-1] if pieces[-1] == "" else pieces)]
    lower = _saved_flag(path, "do_lower_case") if hasattr(module, "do_lower_case") else None
    if lower is None:
        lower = not any(p != p.lower() for p in pieces if not p.startswith("["))
    return pieces, lower


def _saved_flag(path: str, name: str) -> bool | None:
    """The value of a variable of the module's root, or None when the module has no such variable."""
    reader = tf.train.load_checkpoint(str(Path(path, "variables", "variables")))
    key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
    return bool(reader.get_tensor(key)) if reader.has_tensor(key) else None
