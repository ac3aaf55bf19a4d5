"""Reads a model config into the graph. Configs are data: nothing in them is imported or run."""

from __future__ import annotations

from collections import deque
from types import NoneType
from typing import Any

from kprune.errors import CannotPruneError, DamagedFileError, KpruneError
from kprune.graph.dialects import arguments, is_keras3_node
from kprune.graph.model import Call, Layer, Model, TensorRef, as_shape, leaves, map_leaves
from kprune.graph.order import layer_order, storage_names
from kprune.text import clean

INPUT = "InputLayer"
_LISTING = ("Functional", "Model", "Sequential")  # another class may have `layers` of its own sense
_NO_MODEL = "the model's config does not describe a model"
MAX_NESTING = 64
WRAPPERS = ("TimeDistributed", "SpectralNormalization")
"""Keras's layers that hold one other layer, as `layer` in their config and in the weights file alike."""
_NO_OBJECTS = frozenset(
    "data_format dilation_rate filters kernel_size padding pool_size strides units".split()
)
_NUMBERS = frozenset({"epsilon", "momentum", "rate"})


_FAULTS = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What reading a config that is not one may raise."""


def parse_model(config: dict[str, Any]) -> Model:
    """The graph of a whole config.json.

    Args:
        config: {"class_name": "Functional" | "Sequential" | …, "config": {…}, …}.
    Raises:
        DamagedFileError: the config contradicts itself.
        CannotPruneError: a subclassed model, whose config holds no graph.
    """
    try:
        return _parse(config, path="", store="", trainable=True, seen={}, nesting=0)
    except RecursionError as error:
        raise DamagedFileError(_NO_MODEL, why="a part of it is nested too deeply") from error
    except _FAULTS as error:
        why = f"{type(error).__name__}: {clean(str(error))}"
        raise DamagedFileError(_NO_MODEL, why=why) from error


def holds_graph(spec: dict[str, Any]) -> bool:
    """Whether a layer's dict is that of a model that lists its layers."""
    config = spec.get("config")
    return isinstance(config, dict) and isinstance(config.get("layers"), list)


def no_graph(spec: dict[str, Any], *, traceable: bool = True) -> KpruneError:
    """The refusal of a model that lists no layers: a subclassed one, or one that is damaged.

    Args:
        spec: its dict.
        traceable: whether its file says where its code is, for a Keras that kprune traces.
    """
    config, kind = spec.get("config"), str(spec.get("class_name"))
    lists = kind in _LISTING and isinstance(config, dict) and "layers" in config
    if lists or not isinstance(config, dict | None):
        return DamagedFileError(_NO_MODEL, why="its config does not list layers")
    export = "write a SavedModel in Keras, model.export('folder'), and give that to kprune"
    traced = (
        "have its own code traced, which runs it (--trust), or written as a plain graph (kprune "
        f"flatten MODEL --trust); where that fails, {export}"
    )
    return CannotPruneError(
        f"the model is a {clean(kind)}, whose config holds no graph",
        why="only Sequential and Functional models list their layers and how they are connected",
        do=traced if traceable else export,
    )


def _parse(
    spec: dict[str, Any],
    path: str,
    store: str,
    trainable: bool,
    seen: dict[int, Layer],
    nesting: int,
) -> Model:
    if nesting > MAX_NESTING:
        raise ValueError(f"models are nested deeper than {MAX_NESTING}")
    kind = spec.get("class_name")
    if not isinstance(kind, str):
        raise TypeError(f"the class of a model is {kind!r}")
    if not holds_graph(spec):
        raise no_graph(spec)
    config = spec["config"]
    trainable = trainable and config.get("trainable", True) is not False
    entries: dict[str, dict[str, Any]] = {}
    for entry in config["layers"]:
        name = entry.get("name") or entry["config"]["name"]
        if name in entries:
            raise ValueError(f"two layers are named {name!r}")
        entries[name] = entry
    sequential = "input_layers" not in config
    calls, inputs, outputs = _chain(config, entries) if sequential else _network(config, entries)
    calls = _sorted(calls)  # before anything walks along them: it refuses a circle
    if sequential:
        order = list(entries)
    else:
        order = layer_order(
            {(call.layer.name, call.node): call for call in calls},
            list(_refs(outputs)),
            [ref.layer for ref in _refs(inputs)],
        )
    layers = _name_layers(order, entries, path, store, trainable, seen, nesting, sequential)
    for call in calls:
        call.layer = layers.get(call.layer.name, call.layer)
    calls = [call for call in calls if call.layer.name in layers]
    return Model(str(config.get("name", "")), path, kind, spec, layers, calls, inputs, outputs)


def _name_layers(
    order: list[str],
    entries: dict[str, dict[str, Any]],
    path: str,
    store: str,
    trainable: bool,
    seen: dict[int, Layer],
    nesting: int,
    sequential: bool,
) -> dict[str, Layer]:
    layers: dict[str, Layer] = {}
    for name in order:
        layers[name] = make_layer(name, entries[name], path)
    # A Sequential's own input layer is not among its `layers` and is not counted.
    stored = [
        layer
        for layer in layers.values()
        if not layer.is_operation and not (sequential and layer.kind == INPUT)
    ]
    for layer, group in zip(stored, storage_names(layer.kind for layer in stored), strict=True):
        layer.store = f"{store}layers/{group}"
        layer.trainable = trainable and layer.config.get("trainable", True) is not False
        shared = layer.spec.get("shared_object_id")
        if shared is not None:
            # One layer object in two models: Keras saved it where it met it first, and only there.
            first = seen.setdefault(shared, layer)
            layer.store = first.store
            layer.twin = first if first is not layer else None
        if holds_graph(layer.spec):
            layer.model = _parse(
                layer.spec, layer.path + "/", layer.store + "/", layer.trainable, seen, nesting + 1
            )
        elif layer.kind in WRAPPERS and layer.is_builtin and holds_layer(layer.config):
            layer.wrapped = layer_inside(layer, layer.config["layer"], "layer", nesting)
    return layers


def holds_layer(config: dict[str, Any]) -> bool:
    """Whether the config of a wrapper names the layer that it wraps."""
    spec = config.get("layer")
    return isinstance(spec, dict) and isinstance(spec.get("config"), dict)


def layer_inside(outer: Layer, spec: dict[str, Any], at: str, nesting: int = 0) -> Layer:
    """A layer that another one holds, with all that is inside it.

    Args:
        outer: whose place in the weights file is known.
        spec: the inner layer's dict in the config.
        at: the attribute that holds it, which names the group of its weights.
    Raises: DamagedFileError if the dict is not that of a layer.
    """
    try:
        return _layer_inside(outer, spec, at, nesting)
    except _FAULTS as error:
        raise DamagedFileError(
            f"what the config of '{clean(outer.path)}' has as '{clean(at)}' is no layer",
            why=f"{type(error).__name__}: {clean(str(error))}",
        ) from error


def _layer_inside(outer: Layer, spec: dict[str, Any], at: str, nesting: int) -> Layer:
    name = spec.get("name") or spec["config"].get("name", at)
    layer = make_layer(str(name), spec, outer.path + "/")
    layer.store = f"{outer.store}/{at}"
    layer.trainable = outer.trainable and layer.config.get("trainable", True) is not False
    if holds_graph(spec):
        layer.model = _parse(
            spec, layer.path + "/", layer.store + "/", layer.trainable, {}, nesting + 1
        )
    elif layer.kind in WRAPPERS and holds_layer(layer.config):
        if nesting > MAX_NESTING:
            raise ValueError(f"layers are wrapped more than {MAX_NESTING} times")
        layer.wrapped = layer_inside(layer, layer.config["layer"], "layer", nesting + 1)
    return layer


def make_layer(name: str, spec: dict[str, Any], prefix: str) -> Layer:
    """The layer of one config entry, with no place in the weights file yet."""
    if not isinstance(spec.get("config"), dict):
        raise TypeError(f"layer {name!r} has no config")
    _check_entries(name, spec)
    registered = spec.get("registered_name")
    layer = Layer(
        name=name,
        path=prefix + name,
        kind=str(spec["class_name"]),
        module=str(spec.get("module") or ""),
        registered=registered if isinstance(registered, str) else None,
        spec=spec,
    )
    if layer.kind == INPUT:
        declared_shape(layer)  # a wrong one is refused here
    return layer


def _check_entries(name: str, spec: dict[str, Any]) -> None:
    """Raises: TypeError for an entry that is of the wrong type in any layer of Keras."""
    if str(spec.get("module") or "keras").partition(".")[0] not in ("keras", "tf_keras"):
        return
    for key, value in spec["config"].items():
        if isinstance(value, dict):
            wrong = key in _NO_OBJECTS or not isinstance(value.get("class_name", ""), str)
        else:
            wrong = key in _NUMBERS and not isinstance(value, (int, float, NoneType))
        if wrong:
            raise TypeError(f"the {key} of layer {name!r} is {value!r}")


def inner_graph(spec: dict[str, Any], layer: Layer) -> Model:
    """A graph that stands for what a layer does, its layers below the layer's own path and store."""
    return _parse(spec, layer.path + "/", layer.store + "/", layer.trainable, {}, 1)


# -- Sequential ---------------------------------------------------------------------------------


def _chain(
    config: dict[str, Any], entries: dict[str, dict[str, Any]]
) -> tuple[list[Call], TensorRef | None, TensorRef | None]:
    """A Sequential: each layer is called once, on what the layer before it gave."""
    calls = []
    previous: TensorRef | None = None
    first: TensorRef | None = None
    if not entries:
        raise ValueError("a Sequential model without layers")
    names = list(entries)
    if entries[names[0]]["class_name"] != INPUT:
        shape = (
            config.get("build_input_shape")
            or entries[names[0]]["config"].get("batch_input_shape")
            or dict(entries[names[0]].get("build_config") or {}).get("input_shape")
        )
        first = previous = TensorRef("", 0, 0, as_shape(shape))
    for name in names:
        layer = make_layer(name, entries[name], "")
        args = [previous] if previous is not None and layer.kind != INPUT else []
        calls.append(Call(layer, 0, args, {}))
        previous = TensorRef(name, 0, 0)
        first = first or previous
    return calls, first, previous


def declared_shape(layer: Layer | None) -> tuple[int | None, ...] | None:
    """The shape that an input layer says it takes; None if it says nothing.

    Raises: DamagedFileError if what it says is no shape.
    """
    config = layer.config if layer is not None else {}
    written = config.get("batch_shape") or config.get("batch_input_shape")
    if not written or layer is None:
        return None
    shape = as_shape(written)
    if shape is None:
        raise DamagedFileError(
            f"the input '{clean(layer.path)}' has a shape that no tensor has",
            why=f"it is {clean(str(written))}",
        )
    return shape


# -- Functional ---------------------------------------------------------------------------------


def _network(
    config: dict[str, Any], entries: dict[str, dict[str, Any]]
) -> tuple[list[Call], Any, Any]:
    calls = []
    for name, entry in entries.items():
        layer = make_layer(name, entry, "")
        nodes = entry.get("inbound_nodes") or []
        if layer.kind == INPUT and not nodes:
            calls.append(Call(layer, 0, [], {}))
        for node, data in enumerate(nodes):
            args, kwargs = arguments(data)
            calls.append(Call(layer, node, args, kwargs, as_written=not is_keras3_node(data)))
    inputs = _interface(config["input_layers"])
    outputs = map_leaves(lambda ref: _output(ref, entries), _interface(config["output_layers"]))
    _count_from_one(calls, outputs)
    known = {(call.layer.name, call.node) for call in calls}
    for ref in [*_refs(inputs), *_refs(outputs), *(ref for call in calls for ref in call.inputs)]:
        if (ref.layer, ref.node) not in known or ref.index < 0:
            raise ValueError(f"a tensor of call {ref.node} of {ref.layer!r}, which is not there")
    computed = {(call.layer.name, call.node) for call in calls if call.inputs}
    for ref in _refs(inputs):
        if (ref.layer, ref.node) in computed:
            raise ValueError(f"the input {ref.layer!r} is computed from others")
    return calls, inputs, outputs


def _output(ref: Any, entries: dict[str, dict[str, Any]]) -> Any:
    """A model's output, its call counted as calls read it.

    Keras 3 counts the calls of a nested Functional model from 1 in this one place, as the model itself
    was its first (get_config and functional_from_config in keras/src/models/functional.py).
    """
    entry = entries.get(ref.layer) or {}
    nodes = entry.get("inbound_nodes")
    if not nodes or not is_keras3_node(nodes[0]):
        return ref
    if "input_layers" not in entry["config"]:
        # A subclass of Functional whose config holds no graph: the number is one too high.
        own = make_layer(ref.layer, entry, "").is_builtin or ref.node < len(nodes)
        return ref if own else TensorRef(ref.layer, ref.node - 1, ref.index)
    # Keras subtracts 1 and indexes its list, so 0 means the last.
    return TensorRef(ref.layer, len(nodes) - 1 if ref.node == 0 else ref.node - 1, ref.index)


def _count_from_one(calls: list[Call], outputs: Any) -> None:
    """Keras 2 counts the calls of a nested model from 1: the model itself was its first.

    Not so for a Sequential that was built without an input, which the config does not say; the
    number that is one too high does.
    """
    count: dict[str, int] = {}
    for call in calls:
        count[call.layer.name] = count.get(call.layer.name, 0) + 1
    read = {
        (ref.layer, ref.node) for ref in [*_refs(outputs), *(r for c in calls for r in c.inputs)]
    }
    for call in calls:
        name, spec = call.layer.name, call.layer.spec
        if (
            (name, count[name]) in read
            and holds_graph(spec)
            and not is_keras3_node(spec["inbound_nodes"][0])
        ):
            call.node += 1


def _interface(structure: Any) -> Any:
    """`["img", 0, 0]`, or lists and dicts of such rows, as a structure of refs."""
    if isinstance(structure, dict):
        return {key: _interface(item) for key, item in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str) and isinstance(structure[1], int):
        return TensorRef(*structure)
    return [_interface(item) for item in structure]


def _refs(structure: Any) -> list[TensorRef]:
    return [leaf for leaf in leaves(structure) if isinstance(leaf, TensorRef)]


def _sorted(calls: list[Call]) -> list[Call]:
    """Calls so that each comes after those that make its inputs.

    Raises: ValueError if they go round in a circle.
    """
    by_key = {(call.layer.name, call.node): call for call in calls}
    waiting: dict[tuple[str, int], int] = {}
    consumers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for key, call in by_key.items():
        sources = {(ref.layer, ref.node) for ref in call.inputs} & by_key.keys()
        waiting[key] = len(sources)
        for source in sources:
            consumers.setdefault(source, []).append(key)
    ready = deque(key for key in by_key if not waiting[key])
    order = []
    while ready:
        key = ready.popleft()
        order.append(by_key[key])
        for consumer in consumers.get(key, ()):
            waiting[consumer] -= 1
            if not waiting[consumer]:
                ready.append(consumer)
    if len(order) != len(by_key):
        raise ValueError("the calls form a circle")
    return order
