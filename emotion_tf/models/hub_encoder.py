"""A TF-Hub BERT encoder as a trainable Keras 3 layer that carries its module inside every saved model.

`hub.KerasLayer` belongs to Keras 2: in a Keras 3 model it has no trainable weight (tensorflow/hub#903, #920). Here a
Keras layer adopts the variables of the loaded module as its own weights, so that `fit`, checkpoints, `.keras` files and
exports treat them like those of any layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.models.hub_handles import check_folder
from emotion_tf.models.hub_interface import (
    INPUT_NAMES,
    OUTPUT_NAMES,
    ImageInterface,
    Interface,
    inspect_image_module,
    inspect_module,
    trace_module,
)
from emotion_tf.models.hub_module import (
    GRAPH_FILE,
    Holder,
    load_graph,
    module_variables,
    part_of,
    read_module_files,
    trainable_ids,
    write_module_files,
)


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
    FREEZE = "--text.no-train-encoder"

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
        self._holder: Holder | None = None
        self._files: dict[str, bytes] = {}
        if module is None:
            self._open(self.handle)
        else:
            self._prepare(module)

    def _open(self, handle: str) -> None:
        """Loads the module of `handle` and describes it for `get_config`."""
        self._files = read_module_files(check_folder(handle, handle))
        holder = load_graph(self._files)
        interface = self._inspect(holder.module, handle)
        variables = module_variables(holder.module)
        trained = trainable_ids(holder.module, variables)
        if self.trainable and not trained:
            raise UserError(f"Encoder {handle!r} has no trainable variables. Freeze it: {self.FREEZE}")
        if "embeddings" in self.frozen and "embeddings" not in map(part_of, variables):
            raise UserError(
                f"--text.freeze-embeddings: no variable of the encoder {handle!r} bears the name of an embedding. "
                f"Received: {', '.join(list(variables)[:3])} ..."
            )
        prefix = str(Path(handle, "variables", "variables"))
        tf.train.Checkpoint(root=holder.module).read(prefix).assert_existing_objects_matched()
        config: dict[str, Any] = {
            "sha256": hashlib.sha256(self._files[GRAPH_FILE]).hexdigest(),
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
        graph = Path(self.handle, GRAPH_FILE)
        if graph.is_file() and hashlib.sha256(graph.read_bytes()).hexdigest() == module["sha256"]:
            self._files = read_module_files(self.handle)
            self._adopt(load_graph(self._files), keep_values=True)

    def _create_weights(self) -> None:
        self._adopted = [
            self.add_weight(initializer="zeros", **{**entry, "shape": tuple(entry["shape"])})
            for entry in self._module_config["variables"]
        ]

    def _adopt(self, holder: Holder, keep_values: bool) -> None:
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
        arguments: Any = {name: tf.cast(inputs[name], tf.int32) for name in INPUT_NAMES}
        if self._interface.inputs == "list":
            arguments = list(arguments.values())
        outputs = self._run(arguments, training)
        if self._interface.outputs == "tuple":
            return dict(zip(OUTPUT_NAMES, outputs, strict=True))
        return {name: outputs[name] for name in OUTPUT_NAMES}

    def attention(self, inputs: Mapping[str, Any]) -> Any:
        """Attention of each layer, mean over the heads, float32 (N, B, L, L); None from a module that gives none.

        The modules that this project builds give it as `attention`; TF-Hub's BERT encoders do not.
        """
        if self._holder is None or self._interface.outputs != "dict":
            return None
        arguments: Any = {name: tf.cast(inputs[name], tf.int32) for name in INPUT_NAMES}
        found = self._run(list(arguments.values()) if self._interface.inputs == "list" else arguments, False)
        return found.get("attention")

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
    FREEZE = "--face.no-train-backbone"

    def _inspect(self, module: Any, handle: str) -> ImageInterface:
        return inspect_image_module(module, handle)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that the module wants; None: any."""
        height, width = self._interface.height, self._interface.width
        return (height, width) if height and width else None

    def call(self, pictures: Any, training: bool | None = None) -> Any:
        return self._run(tf.cast(pictures, tf.float32), training)

    def compute_output_spec(self, pictures: Any, training: bool | None = None) -> Any:
        """Output shape without running the module."""
        return keras.KerasTensor((pictures.shape[0], self._interface.hidden), "float32")
