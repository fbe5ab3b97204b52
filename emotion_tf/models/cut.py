"""Where a model's fixed part ends: what of it gives the same features in every epoch, and what is still trained.

A layer is fixed when it is frozen or has no weights, and draws no random numbers. What follows from the inputs by fixed
layers alone need not be computed twice: the tensors at which the fixed part ends become inputs of the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from emotion_tf import schema
from emotion_tf.models.layers import FoldFrames, UnfoldFrames

STEPS_OF = {
    **{feature.name: "input_mask" for feature in schema.TEXT_INPUTS},
    **{feature.name: feature.name for feature in (*schema.WORD_INPUTS, *schema.CONTEXT_INPUTS)},
    **{feature.name: "face_mask" for feature in schema.face_inputs(1)},
}
"""Input -> the input whose entries that are not zero are the steps of its second axis."""


@dataclass(frozen=True)
class Fixed:
    """A fixed part.

    Attributes:
        model: inputs to features, a dict of tensors (B, ...) or (B, T, ...).
        steps: feature -> the input by which its steps T are counted (see `STEPS_OF`); empty: one value an utterance.
    """

    model: keras.Model
    steps: dict[str, str]


@dataclass(frozen=True)
class Cut:
    """A model in pieces, which share its layers.

    Attributes:
        parts: the fixed parts, by what they read: word pieces, words, faces.
        rest: their features, and the inputs that it reads itself, to the model's outputs.
        reads: inputs that the rest reads itself.
    """

    parts: tuple[Fixed, ...]
    rest: keras.Model
    reads: tuple[str, ...]


def cut_model(model: keras.Model, changing: Collection[str] = ()) -> Cut | None:
    """Cuts a model where its fixed part ends; the text's part and the faces' part each whole or not at all.

    Args:
        model: functional, from a dict of inputs; its towers are models too.
        changing: inputs that differ from epoch to epoch, such as augmented faces.

    Returns:
        None when no frozen network is in what is fixed: there is nothing worth keeping.
    """
    graph = _Graph(model, changing)
    kept = [end for part in (True, False) for end in graph.worth_keeping(part)]
    return graph.cut(kept) if kept else None


class _Graph:
    """The calls of all layers of a model, its towers opened, and what is known of each tensor."""

    def __init__(self, model: keras.Model, changing: Collection[str]) -> None:
        self.model = model
        self.same: dict[int, Any] = {}  # tensors around a tower and inside it
        self.sources = {id(tensor): {name} for name, tensor in model.input.items()}  # inputs that it follows from
        self.fixed = {id(tensor) for name, tensor in model.input.items() if name not in changing}
        self.heavy: set[int] = set()  # fixed, with a frozen network behind it
        self.crops: set[int] = set()  # the first axis is the crops of all utterances
        self.maker: dict[int, Any] = {}
        self.ends: dict[int, Any] = {}
        for call in self._calls(model):
            self._judge(call)
        self._end([self._real(tensor) for tensor in tree.flatten(model._outputs_struct)])

    def _calls(self, model: keras.Model) -> Iterator[Any]:
        # private, but what Keras itself walks along to run a functional model
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for call in model._nodes_by_depth[depth]:
                tower = call.operation
                if call.is_input:
                    continue
                if not tower.name.endswith("_tower"):
                    yield call
                    continue
                given = call.arguments.args[0]
                self.same |= {id(inner): given[name] for name, inner in tower.input.items()}
                yield from self._calls(tower)
                inside = tree.flatten(tower._outputs_struct)
                self.same |= {id(outer): inner for outer, inner in zip(call.output_tensors, inside, strict=True)}

    def _real(self, tensor: Any) -> Any:
        while id(tensor) in self.same:
            tensor = self.same[id(tensor)]
        return tensor

    def _judge(self, call: Any) -> None:
        layer, inputs = call.operation, [self._real(tensor) for tensor in call.input_tensors]
        ids = {id(tensor) for tensor in inputs}
        weights = getattr(layer, "weights", [])
        fixed = ids <= self.fixed and not (weights and layer.trainable) and not _is_random(layer)
        crops = (ids & self.crops or isinstance(layer, FoldFrames)) and not isinstance(layer, UnfoldFrames)
        if not fixed:
            self._end(inputs)
        for made in map(id, call.output_tensors):
            self.maker[made] = call
            self.sources[made] = set().union(*(self.sources[one] for one in ids))
            self.fixed |= {made} if fixed else set()
            self.heavy |= {made} if fixed and (weights or ids & self.heavy) else set()
            self.crops |= {made} if crops else set()

    def _end(self, tensors: list[Any]) -> None:
        self.ends |= {id(tensor): tensor for tensor in tensors if id(tensor) in self.fixed}

    def worth_keeping(self, face: bool) -> list[Any]:
        """What to keep of the faces' part (or the text's): where its frozen networks end, and the small inputs that
        the rest needs beside them. Nothing when there is no frozen network, or the rest still needs the pictures."""
        ends = {key: end for key, end in self.ends.items() if ("face_mask" in self.sources[key]) == face}
        heavy = [end for key, end in ends.items() if key in self.heavy]
        names = set().union(*(self.sources[key] for key in ends if key not in self.heavy))
        if any(id(end) in self.crops for end in heavy):
            names.add("face_mask")
        if not heavy or "faces" in names:
            return []
        return [*(tensor for name, tensor in self.model.input.items() if name in names), *heavy]

    def cut(self, kept: list[Any]) -> Cut:
        """All parts, cut at the tensors `kept`."""
        named: dict[str, Any] = {}
        for end in kept:
            named[self._name(end, named)] = end
        families: dict[frozenset[str], dict[str, Any]] = {}
        for name, end in named.items():
            families.setdefault(self._family(end), {})[name] = end
        parts = tuple(self._fixed(ends) for ends in families.values())
        features = {name: values for part in parts for name, values in part.model.output.items()}
        rest = self._rest(named, features)
        return Cut(parts, rest, tuple(name for name in rest.input if name not in features))

    def _fixed(self, ends: dict[str, Any]) -> Fixed:
        seen: dict[int, Any] = {}
        features = {name: self._by_utterance(name, end, seen) for name, end in ends.items()}
        inputs = {name: seen[id(tensor)] for name, tensor in self.model.input.items() if id(tensor) in seen}
        steps = {name: self._steps(end, features[name]) for name, end in ends.items()}
        return Fixed(keras.Model(inputs, features, name="fixed"), steps)

    def _rest(self, named: dict[str, Any], features: dict[str, Any]) -> keras.Model:
        read = {
            name: keras.Input(values.shape[1:], name=name, dtype=_kept_dtype(values.dtype))
            for name, values in features.items()
        }
        seen = {
            id(end): FoldFrames(name=f"fold_{name}")([read[name], read["face_mask"]])
            if id(end) in self.crops
            else read[name]
            for name, end in named.items()
        }
        outputs = tree.map_structure(lambda tensor: self._evaluate(tensor, seen), self.model._outputs_struct)
        own = {name: seen[id(tensor)] for name, tensor in self.model.input.items() if id(tensor) in seen}
        return keras.Model(own | read, outputs, name="rest")

    def _evaluate(self, tensor: Any, seen: dict[int, Any]) -> Any:
        """The tensor made anew from those that are `seen`, and from inputs."""
        tensor = self._real(tensor)
        if id(tensor) not in seen and id(tensor) not in self.maker:
            seen[id(tensor)] = keras.Input(tensor.shape[1:], name=tensor.name, dtype=tensor.dtype)
        if id(tensor) not in seen:
            call = self.maker[id(tensor)]
            args, kwargs = call.arguments.fill_in({id(t): self._evaluate(t, seen) for t in call.input_tensors})
            made = tree.flatten(call.operation(*args, **kwargs))
            seen |= {id(old): new for old, new in zip(call.output_tensors, made, strict=True)}
        return seen[id(tensor)]

    def _by_utterance(self, name: str, end: Any, seen: dict[int, Any]) -> Any:
        made = self._evaluate(end, seen)
        if id(end) not in self.crops:
            return made
        mask = self._evaluate(self.model.input["face_mask"], seen)
        return UnfoldFrames(name=f"unfold_{name}")([made, mask])

    def _name(self, end: Any, taken: Collection[str]) -> str:
        call = self.maker.get(id(end))
        if call is None:
            return end.name
        several = len(call.output_tensors) > 1
        which = [id(tensor) for tensor in call.output_tensors].index(id(end))
        stem = f"{call.operation.name}_{which}" if several else call.operation.name
        return next(name for name in (stem, *(f"{stem}_{n}" for n in range(2, 99))) if name not in taken)

    def _steps(self, end: Any, feature: Any) -> str:
        if None not in feature.shape[1:]:
            return ""
        (axis,) = self._family(end)
        return axis

    def _family(self, end: Any) -> frozenset[str]:
        return frozenset(STEPS_OF[name] for name in self.sources[id(end)])


def _is_random(layer: Any) -> bool:
    return any(v.name == "seed_generator_state" for v in getattr(layer, "variables", []))


def _kept_dtype(dtype: str) -> str:
    return "float32" if dtype in ("bfloat16", "float16") else dtype  # files know no bfloat16
