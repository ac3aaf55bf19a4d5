"""A custom layer's own code, run once on symbolic tensors: what it does, as a graph.

The layer is built from its config, as Keras builds it when it loads the file, and its `call` is
given symbolic tensors in place of its inputs and of its weights. Layers of Keras's own inside
it become layers of the graph; the code of others is followed like that of the layer itself. This
runs code that the file names, so it needs the user's trust.

Weights hold random numbers meanwhile, others each time: what the code computes from their values
comes out different each time, and so is found out when two traces are compared.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kprune.atomic import TemporaryFolder
from kprune.custom_code.keras_patches import (
    OnConstants,
    followed,
    invented_tensors,
    is_foreign,
    open_counts,
    symbolic_weights,
)
from kprune.errors import KpruneError
from kprune.graph.dialects import is_keras_2
from kprune.graph.model import Shape, leaves, map_leaves
from kprune.labels.labels import merged
from kprune.runtime.custom_classes import foreign_classes, import_classes
from kprune.runtime.keras_import import import_keras, quiet
from kprune.runtime.lambda_code import (
    LAMBDA,
    require_registered,
    trace_by_tensorflow,
    usual_names,
)
from kprune.runtime.numbering import numbered
from kprune.text import clean
from kprune.tracing.code_graph import Held, Part, Tensor, TracedCode, Untraceable, canonical

REBUILT_FROM = ("module", "class_name", "config", "registered_name", "build_config")
LONGEST = 160


class KerasCodeTracer:
    """Traces layers with Keras 3. A layer that was traced in this process is not traced again.

    Args:
        metadata: the file's; what Keras 2 saved is not traced.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._old = is_keras_2(metadata)
        self._traced: dict[str, tuple[TracedCode, ...] | Untraceable] = {}

    def trace(self, spec: dict[str, Any], arguments: Any) -> Sequence[TracedCode]:
        """See `kprune.tracing.code_graph.CodeTracer`.

        Raises: Untraceable; CannotPruneError if the layer's class cannot be imported.
        """
        old = self._old
        if old and spec["class_name"] != LAMBDA:
            raise Untraceable(
                "which Keras 2 saved: kprune traces the code of Keras 3's layers only"
            )
        spec = {key: spec[key] for key in REBUILT_FROM if key in spec}
        key = json.dumps([spec, map_leaves(repr, arguments)], sort_keys=True, default=repr)
        if key not in self._traced:
            import_keras()
            with quiet():
                classes = import_classes(foreign_classes(spec))
                try:
                    self._traced[key] = (
                        _trace_lambda(spec, arguments, classes, old=old)
                        if spec["class_name"] == LAMBDA
                        else _trace(spec, arguments, classes)
                    )
                except Untraceable as reason:
                    self._traced[key] = reason
                except KpruneError:
                    raise
                except Exception as error:  # whatever the user's code raises
                    said = _said(error)
                    self._traced[key] = Untraceable(f"whose code cannot be traced ({said})", said)
        found = self._traced[key]
        if isinstance(found, Untraceable):
            raise Untraceable(str(found), found.error)
        return found


def _said(error: Exception) -> str:
    """What an error says, without what Keras puts around it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).rpartition("Error encountered:\n")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered"):
        lines = lines[1:]
    first = lines[0] if lines else ""
    first = first.partition(". ")[0].partition(" for '{{node")[0]
    return clean(f"{type(error).__name__}: {first}", LONGEST)


def _trace_lambda(
    spec: dict[str, Any], arguments: Any, classes: Mapping[str, Any], *, old: bool
) -> tuple[TracedCode, ...]:
    """Trace a Lambda's function: by Keras 3; by Keras 2 if that wrote it, or if it calls TensorFlow."""

    def by_tensorflow() -> tuple[TracedCode, ...]:
        return (trace_by_tensorflow(spec, arguments, old=old),)

    if old:
        return _twice(by_tensorflow)
    try:
        return _trace(spec, arguments, classes)
    except Untraceable:
        raise
    except Exception:  # whatever the function raises
        try:
            return _twice(by_tensorflow)
        except Exception:  # what Keras 3 says of it is more to the point
            pass
        raise


def _trace(
    spec: dict[str, Any], arguments: Any, classes: Mapping[str, Any]
) -> tuple[TracedCode, ...]:
    """Trace a layer. Raises: Untraceable."""
    return _twice(lambda: _Sketch(_rebuilt(spec, classes), arguments).traces())


def _twice(trace: Callable[[], tuple[TracedCode, ...]]) -> tuple[TracedCode, ...]:
    """Trace twice: what comes out differently is in no file. Raises: Untraceable."""
    found, again = trace(), trace()
    for one, other in zip(found, again, strict=True):
        if canonical(one.config) != canonical(other.config):
            raise Untraceable(
                "whose code computes with random numbers or with the values of its weights"
            )
    return found


def _rebuilt(spec: dict[str, Any], classes: Mapping[str, Any]) -> Any:
    keras = import_keras()
    if spec["class_name"] == LAMBDA:
        require_registered(spec["config"], keras)
        spec = {"module": "keras.layers", **spec}  # a legacy file names no module
    with usual_names(keras):
        return keras.saving.deserialize_keras_object(
            json.loads(json.dumps(spec)), custom_objects=dict(classes), safe_mode=False
        )


@dataclass
class _Sketch:
    """One layer, about to be traced.

    Attributes:
        layer: the Keras layer, built.
        arguments: (args, kwargs) of its call.
    """

    layer: Any
    arguments: Any
    _taken_apart: set[int] = field(default_factory=set)  # Keras's layers whose code is followed
    _said: list[Shape] = field(default_factory=list)  # what Keras takes its outputs to be
    _paths: dict[int, str] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keras = import_keras()
        inputs = self._inputs()
        args, kwargs = _filled(self.arguments, inputs)
        # Keras builds what is not built yet, here and inside, by calling it.
        outputs = self.layer(*args, **kwargs)
        self._said = [tuple(output.shape) for output in keras.tree.flatten(outputs)]
        if not self.layer.weights:
            return
        model = keras.Model(inputs, keras.tree.flatten(outputs))
        self._paths = _stored_at(model, self.layer.weights)
        missing = [w.name for w in self.layer.weights if id(w) not in self._paths]
        if missing:
            raise Untraceable(f"which stores its weight {clean(missing[0])} in a way of its own")
        rng = np.random.default_rng()
        for weight in self.layer.weights:
            if "float" in str(weight.dtype):
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))

    def _inputs(self) -> list[Any]:
        keras = import_keras()
        return [
            keras.Input(
                batch_shape=leaf.shape, dtype=leaf.dtype or "float32", name=f"input.{number}"
            )
            for number, leaf in enumerate(_tensors(self.arguments))
        ]

    @property
    def takes_mask(self) -> bool:
        """Whether Keras hands the layer the mask of its time steps, where there is one."""
        named = inspect.signature(self.layer.call).parameters
        if "mask" not in named or "mask" in self.arguments[1]:
            return False
        if not getattr(
            self.layer, "_fn_expects_mask_arg", True
        ):  # a Lambda whose function takes none
            return False
        tensors = _tensors(self.arguments)
        if len(tensors) != 1:
            raise Untraceable("which takes a mask of time steps, and several tensors")
        return len(tensors[0].shape) > 2

    def traces(self) -> tuple[TracedCode, ...]:
        """What the layer does, in each way in which Keras may call it."""
        while True:
            try:
                if not self.takes_mask:
                    return (self.trace(),)
                return self.trace(), self.trace(masked=True)
            except OnConstants as found:
                self._taken_apart.add(id(found.layer))

    def trace(self, *, masked: bool = False) -> TracedCode:
        """Trace `call`, in inference."""
        keras = import_keras()
        inputs = self._inputs()
        args, kwargs = _filled(self.arguments, inputs)
        named = inspect.signature(self.layer.call).parameters
        if "training" in named and "training" not in kwargs:
            kwargs["training"] = False
        if masked:
            (x,) = inputs
            mask = keras.Input(batch_shape=x.shape[:2], dtype="bool", name="input.mask")
            kwargs["mask"] = mask
        self._names = {}
        whole = self._part(self.layer, "", set())
        stand_ins = {id(weight): weight for weight in self.layer.weights}
        held = [item for item in whole.all_weights() if item.input]
        by_path = {self._paths[key]: weight for key, weight in stand_ins.items()}
        symbols = {
            id(by_path[item.path]): keras.Input(
                batch_shape=item.shape, dtype=str(by_path[item.path].dtype), name=item.input
            )
            for item in held
        }
        apart = self._taken_apart
        with (
            symbolic_weights(self.layer, symbols, apart),
            followed(masked, apart, {id(inner) for inner in self.layer._flatten_layers()}),
            invented_tensors() as invented,
            open_counts(),
        ):
            outputs = self.layer.call(*args, **kwargs)
        for output in keras.tree.flatten(outputs):
            if not isinstance(output, keras.KerasTensor):
                raise Untraceable("whose code gives something other than tensors of its inputs")
        for said, output in zip(self._said, keras.tree.flatten(outputs), strict=True):
            if merged(said, tuple(output.shape)) is None:
                raise Untraceable(
                    f"whose code gives {tuple(output.shape)} where Keras is told {said}"
                )
        everything = [*inputs, *symbols.values(), *invented, *([mask] if masked else [])]
        graph = keras.Model(everything, outputs)
        _refuse_weights(graph)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(graph)))
        made = tuple(
            Held(name, name, tuple(tensor.shape), False, name)
            for tensor in invented
            if (name := tensor.name)
        )
        return TracedCode(numbered(config), whole, masked, invented=made)

    def _part(self, layer: Any, name: str, seen: set[int]) -> Part:
        """The layer as Keras keeps it: its own weights, then the layers inside it."""
        own = name != "" and not is_foreign(layer) and id(layer) not in self._taken_apart
        inside = [] if own else layer._flatten_layers(include_self=False, recursive=False)
        elsewhere = {id(weight) for inner in inside for weight in inner.weights}
        weights = []
        for weight in layer.weights:
            if id(weight) in elsewhere or id(weight) in seen:
                continue
            seen.add(id(weight))
            number = len(seen)
            weights.append(
                Held(
                    weight.name,
                    self._paths[id(weight)],
                    tuple(weight.shape),
                    bool(weight.trainable),
                    None if own else f"weight.{number}",
                )
            )
        parts = []
        for inner in inside:
            if id(inner) not in self._names:
                self._names[id(inner)] = self._free_name(_called(layer, inner))
                inner.name = self._names[id(inner)]
                parts.append(self._part(inner, inner.name, seen))
        return Part(name, type(layer).__name__, own, tuple(weights), tuple(parts))

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 0
        while name in self._names.values():
            number += 1
            name = f"{wanted}_{number}"
        return name


def _tensors(arguments: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(arguments) if isinstance(leaf, Tensor)]


def _filled(arguments: Any, inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, with symbolic tensors. Dicts are in the order of their keys already."""
    left = iter(inputs)
    args, kwargs = map_leaves(
        lambda leaf: next(left) if isinstance(leaf, Tensor) else leaf, tuple(arguments)
    )
    return list(args), dict(kwargs)


def _stored_at(model: Any, weights: Sequence[Any]) -> dict[int, str]:
    """Where Keras stores each weight, below the layer's group: found out by storing them."""
    import h5py

    for number, weight in enumerate(weights, 1):
        weight.assign(np.full(weight.shape, number, str(weight.dtype)))
    found: dict[float, str] = {}

    def note(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and path.startswith("layers/"):
            found[float(np.ravel(item[...])[0]) if item.size else -1.0] = path.split("/", 2)[2]

    with TemporaryFolder() as folder:
        place = os.path.join(folder, "layer.weights.h5")
        model.save_weights(place)
        with h5py.File(place) as file:
            file.visititems(note)
    values = {id(weight): float(number) for number, weight in enumerate(weights, 1)}
    return {key: found[value] for key, value in values.items() if value in found}


def _called(parent: Any, layer: Any) -> str:
    """The attribute under which a layer keeps another; of one in a list, with its number."""
    for name, value in vars(parent).items():
        if value is layer:
            return name.lstrip("_")
        if isinstance(value, (list, tuple)) and not name.startswith("_"):
            for number, item in enumerate(value):
                if item is layer:
                    return f"{name}_{number}"
    return str(layer.name)


def _refuse_weights(graph: Any) -> None:
    """Raises: Untraceable if a weight is in the graph as a value, of which no label could be cut."""
    keras = import_keras()
    for operation in graph.operations:
        for node in operation._inbound_nodes:
            given = keras.tree.flatten([node.arguments.args, node.arguments.kwargs])
            if any(isinstance(leaf, keras.Variable) for leaf in given):
                raise Untraceable("whose code uses the weights of a layer inside it directly")
