"""A TF-Hub BERT encoder as a trainable Keras 3 layer, saved with its module.

`hub.KerasLayer` is a Keras 2 layer; in a Keras 3 model it has no trainable weights (tensorflow/hub#903, #920). This
layer adopts the variables of the loaded module as its own weights, so `fit`, checkpoints, `.keras` files and exports
treat them like those of any layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import keras
import tensorflow as tf

from emotion_tf import trust
from emotion_tf.errors import UserError
from emotion_tf.models.face_layers import FaceCount
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
    Holder,
    graph_sha256,
    load_graph,
    module_variables,
    part_of,
    read_module_files,
    read_variables,
    trainable_ids,
    write_module_files,
)

_LOADED: WeakValueDictionary[str, Holder] = WeakValueDictionary()
"""Modules that layers of this process hold, by the SHA-256 of their graphs: a clone of such a layer needs no file."""


@keras.saving.register_keras_serializable(package="emotion_tf")
class HubEncoder(keras.layers.Layer):
    """A TF-Hub BERT encoder with trainable variables.

    Input: dict of `input_word_ids`, `input_mask`, `input_type_ids`, int32 (B, L).
    Output: dict of `pooled_output` float32 (B, H) and `sequence_output` float32 (B, L, H).

    The layer computes in float32: a dtype policy does not affect a SavedModel. While `trainable` is False the module
    runs in inference mode (no dropout), like `hub.KerasLayer`. A variable that the module declares as not trainable
    never trains.

    A `.keras` file contains the module's graph, assets and weights, so the handle need not exist any more, and is not
    opened if it does: another person's file may name it. A graph runs only if `graph_safety` accepts it and this user
    has saved it before, or trusts it (see `emotion_tf.trust`). Load with `compile=False`; the optimizer of a compiled
    file refers to variables that the module replaces.

    Args:
        handle: a local SavedModel folder (see `resolve_encoder`).
        trainable: whether the module's trainable variables are trained.
        frozen: parts of the module that do not train: `embeddings`, `pooler` (see `part_of`).
        module: description of the module in `get_config`: interface, variables and SHA-256 of the graph. Internal.

    Raises:
        UserError: `handle` is not a BERT encoder, or `trainable` is True and the module has no trainable variables.
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
        holder = load_graph(self._files, self.handle)
        interface = self._inspect(holder.module, handle)
        variables = module_variables(holder.module)
        trained = trainable_ids(holder.module, variables)
        if self.trainable and not trained:
            raise UserError(f"Encoder {handle!r} has no trainable variables. Freeze it: {self.FREEZE}")
        if "embeddings" in self.frozen and "embeddings" not in map(part_of, variables):
            raise UserError(
                f"--text.freeze-embeddings: no variable of the encoder {handle!r} is named after an embedding. "
                f"Received: {', '.join(list(variables)[:3])} ..."
            )
        read_variables(holder.module, handle)
        config: dict[str, Any] = {
            "sha256": graph_sha256(self._files),
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
        """Creates the weights of a saved or cloned layer; a clone shares the graph that this process has loaded."""
        self._module_config = module
        self._interface = self.INTERFACE(**{**module["interface"], "modes": tuple(module["interface"]["modes"])})
        self._create_weights()
        loaded = _LOADED.get(module["sha256"])
        if loaded is not None:
            self._files = dict(loaded.files)
            self._adopt(load_graph(self._files, self.handle), keep_values=True)

    def _create_weights(self) -> None:
        self._adopted = [
            self.add_weight(initializer="zeros", **{**entry, "shape": tuple(entry["shape"])})
            for entry in self._module_config["variables"]
        ]

    def _adopt(self, holder: Holder, keep_values: bool) -> None:
        """Makes the module's variables the layer's weights; `keep_values` first copies the weights into them."""
        variables = module_variables(holder.module)
        expected = {entry["name"]: tuple(entry["shape"]) for entry in self._module_config["variables"]}
        if {name: tuple(v.shape) for name, v in variables.items()} != expected:
            raise ValueError(f"The module of encoder {self.handle!r} does not match the saved weights.")
        for weight, variable in zip(self._adopted, variables.values(), strict=True):
            if keep_values:
                variable.assign(weight.numpy())
            # private: the public API of Keras 3 copies every variable
            weight._value = variable
        trace_module(holder.module, self._interface)
        self._holder = holder
        _LOADED[self._module_config["sha256"]] = holder

    def _run(self, arguments: Any, training: bool | None) -> Any:
        if self._holder is None:
            raise ValueError(
                f"Layer {self.name!r} has no module: no .keras file was loaded, and no layer of this process holds it."
            )
        modes = self._interface.modes
        training = bool(training) and self.trainable
        keywords = {"training": training if training in modes else modes[0]} if modes else {}
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
        """Returns the attention of each layer, averaged over the heads, float32 (N, B, L, L); None if not available.

        Modules that this project builds have the output `attention`; TF-Hub's BERT encoders do not.
        """
        if self._holder is None or self._interface.outputs != "dict":
            return None
        arguments: Any = {name: tf.cast(inputs[name], tf.int32) for name in INPUT_NAMES}
        outputs = self._run(list(arguments.values()) if self._interface.inputs == "list" else arguments, False)
        return outputs.get("attention")

    def compute_output_spec(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Returns the output specs without running the module."""
        batch, length = inputs[INPUT_NAMES[0]].shape
        hidden = self._interface.hidden
        return {
            "pooled_output": keras.KerasTensor((batch, hidden), "float32"),
            "sequence_output": keras.KerasTensor((batch, length, hidden), "float32"),
        }

    @property
    def parts(self) -> list[tuple[keras.Variable, str]]:
        """The trainable weights, each with the part of BERT that its name denotes (see `part_of`)."""
        names = {id(w): e["name"] for w, e in zip(self._adopted, self._module_config["variables"], strict=True)}
        return [(weight, part_of(names[id(weight)])) for weight in self.trainable_weights]

    @property
    def positions(self) -> int | None:
        """Number of positions of the position embedding; None if no variable is named so."""
        shapes = [e["shape"] for e in self._module_config["variables"] if "position" in e["name"].lower()]
        return min((shape[0] for shape in shapes if len(shape) == 2), default=None)

    def reseed(self, seed: int, first_replica: int = 0) -> bool:
        """Sets the dropout seed of a module that has one (ours); returns False for other modules.

        Under a strategy each replica has its own seed.

        Args:
            seed: seed of replica 0.
            first_replica: number of the first replica of this host.
        """
        names = [entry["name"] for entry in self._module_config["variables"]]
        seeds = [weight for weight, name in zip(self._adopted, names, strict=True) if name == "dropout_seed"]
        for weight in seeds:
            of_replicas = tf.distribute.get_strategy().experimental_local_results(weight.value)
            for replica, variable in enumerate(of_replicas, first_replica):
                variable.assign(seed + replica)
        return bool(seeds)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HubEncoder:
        """Creates a saved or cloned layer. Raises UserError if the config would make it open its handle."""
        if not isinstance(config.get("module"), dict):
            raise UserError(
                f"Encoder {str(config.get('handle'))[:80]!r}: Its configuration has no description of the module. Do "
                "not use this model, or get it from its author again."
            )
        return super().from_config(config)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "handle": self.handle,
            "trainable": self.trainable,
            "frozen": self.frozen,
            "module": self._module_config,
        }

    def save_assets(self, inner_path: str) -> None:
        """Writes the module's graph and assets beside the weights, which Keras writes. The graph is trusted then."""
        write_module_files(self._files, Path(inner_path))
        trust.remember(graph_sha256(self._files), f"graph of the encoder {self.handle}")

    def load_assets(self, inner_path: str) -> None:
        """Loads the module and copies the weights into it. Keras calls this after loading the weights.

        Raises:
            UserError: the graph is not the saved one, is not trusted, or `graph_safety` does not accept it.
        """
        files = read_module_files(inner_path)
        digest = graph_sha256(files)
        if digest != self._module_config["sha256"]:
            raise UserError(
                f"The graph of the encoder {self.handle!r} has changed since it was saved. Expected SHA-256 "
                f"{self._module_config['sha256'][:12]}... Received: {digest[:12]}... Copy the model again."
            )
        trust.check(digest, "graph", f"encoder {self.handle!r}")
        if self._holder is None:
            self._files = files
            self._adopt(load_graph(files, self.handle), keep_values=True)


@keras.saving.register_keras_serializable("emotion_tf")
class HubImage(HubEncoder):
    """A TF-Hub image module with trainable variables: float32 (N, H, W, 3) -> (N, D). Otherwise like `HubEncoder`.

    Raises:
        UserError: `handle` is not an image module.
    """

    OUTPUTS = ()
    INTERFACE = ImageInterface
    FREEZE = "--face.no-train-backbone"
    faces: FaceCount | None = None

    def _inspect(self, module: Any, handle: str) -> ImageInterface:
        return inspect_image_module(module, handle)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the module's input; None: any."""
        height, width = self._interface.height, self._interface.width
        return (height, width) if height and width else None

    def call(self, images: Any, training: bool | None = None) -> Any:
        images = tf.cast(images, tf.float32)
        if not training or self.faces is None:
            return self._run(images, training)
        # a batch without a face must not change the module's statistics
        has_face = self.faces.value > 0
        return tf.cond(has_face, lambda: self._run(images, True), lambda: self._run(images, False))

    def compute_output_spec(self, images: Any, training: bool | None = None) -> Any:
        """Returns the output spec without running the module."""
        return keras.KerasTensor((images.shape[0], self._interface.hidden), "float32")
