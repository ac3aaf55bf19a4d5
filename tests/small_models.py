"""Small models as configs and arrays, with no Keras: what `model.save` would have written.

    net = Network()
    x = net.input("in", 8)
    a = net("Dense", "a", x, units=6)
    b = net("Dense", "b", x, units=6)
    config = net.functional(net("Dense", "c", net("Add", "sum", [a, b]), units=2))
    model = analysed(config)

Configs hold the keys that Keras 3 writes, shapes and histories included. Arrays are random.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.graph import parse_model
from kprune.rules import builtin
from kprune.tracing.trace import trace
from tests.formats.making import write_keras

Shape = tuple[int | None, ...]

_CONV = {
    "strides": [1, 1], "padding": "same", "data_format": "channels_last", "dilation_rate": [1, 1],
    "groups": 1, "activation": "linear", "use_bias": True,
}  # fmt: skip
_RECURRENT = {
    "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True,
    "return_sequences": False, "return_state": False,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "Dense": {"activation": "linear", "use_bias": True},
    "Conv2D": {"kernel_size": [3, 3], **_CONV},
    "DepthwiseConv2D": {"kernel_size": [3, 3], "depth_multiplier": 1, **_CONV},
    "LSTM": _RECURRENT,
    "GRU": {**_RECURRENT, "reset_after": True},
    "BatchNormalization": {"axis": -1, "epsilon": 1e-3, "center": True, "scale": True},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-3, "center": True, "scale": True},
    "Flatten": {"data_format": "channels_last"},
    "Concatenate": {"axis": -1},
    "GlobalAveragePooling2D": {"data_format": "channels_last", "keepdims": False},
}


@dataclass(frozen=True)
class Tensor:
    """What a call of a layer gives: Keras's history and the shape."""

    layer: str
    node: int
    shape: Shape | None

    def recorded(self) -> dict[str, Any]:
        """As an argument in `inbound_nodes`."""
        shape = None if self.shape is None else list(self.shape)
        return {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": shape,
                "dtype": "float32",
                "keras_history": [self.layer, self.node, 0],
            },
        }

    @property
    def history(self) -> list[Any]:
        return [self.layer, self.node, 0]


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    """A layer as a config lists it."""
    own = {"name": name, "trainable": True, "dtype": "float32", **DEFAULTS.get(kind, {}), **config}
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": copy.deepcopy(own),
        "registered_name": None,
    }


def sequential(*layers: dict[str, Any], shape: Iterable[int | None], name: str = "model") -> Any:
    """The config of a Sequential model; `shape` is the input's, without the batch."""
    batch_shape = [None, *shape]
    entry = layer("InputLayer", "input", batch_shape=batch_shape)
    listed = [entry, *copy.deepcopy(list(layers))]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": name,
            "trainable": True,
            "layers": listed,
            "build_input_shape": batch_shape,
        },
        "registered_name": None,
        "build_config": {"input_shape": list(batch_shape)},
    }


class Network:
    """A Functional model in the making. Each call adds a layer, or calls one again."""

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.entries: dict[str, dict[str, Any]] = {}
        self.inputs: list[Tensor] = []

    def input(self, name: str, *shape: int | None, dtype: str = "float32") -> Tensor:
        """An input; `shape` is without the batch."""
        whole = (None, *shape)
        self.entries[name] = layer("InputLayer", name, batch_shape=list(whole), dtype=dtype)
        self.entries[name] |= {"name": name, "inbound_nodes": []}
        self.inputs.append(Tensor(name, 0, whole))
        return self.inputs[-1]

    def __call__(
        self, kind: str, name: str, on: Any, *, shape: Shape | None = None, **config: Any
    ) -> Tensor:
        """Call a new layer.

        Args:
            on: a tensor, or a list of them.
            shape: of what it gives, batch first; by default the input's, with `units` or
                `filters` in place of its last size.
        """
        return self.call(layer(kind, name, **config), on, shape=shape)

    def call(self, spec: dict[str, Any], on: Any, *, shape: Shape | None = None) -> Tensor:
        """Call a layer, a model, or a layer that was called before, given by its dict."""
        name = spec["config"]["name"]
        entry = self.entries.setdefault(name, {**spec, "name": name, "inbound_nodes": []})
        many = isinstance(on, list)
        told = [tensor.recorded() for tensor in (on if many else [on])]
        node = {"args": [told if many else told[0]], "kwargs": {}}
        entry["inbound_nodes"].append(node)
        first = on[0] if many else on
        config = spec["config"]
        width = config.get("units", config.get("filters"))
        if shape is None and first.shape is not None:
            shape = first.shape if width is None else (*first.shape[:-1], width)
        return Tensor(name, len(entry["inbound_nodes"]) - 1, shape)

    def functional(self, *outputs: Tensor) -> dict[str, Any]:
        """The config."""
        ins, outs = [t.history for t in self.inputs], [self._output(t) for t in outputs]
        return {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": {
                "name": self.name,
                "trainable": True,
                "layers": list(self.entries.values()),
                "input_layers": ins[0] if len(ins) == 1 else ins,
                "output_layers": outs[0] if len(outs) == 1 else outs,
            },
            "registered_name": "Functional",
        }

    def _output(self, tensor: Tensor) -> list[Any]:
        # Keras counts the calls of a nested Functional model from 1 here, and only here.
        nested = "input_layers" in self.entries[tensor.layer]["config"]
        return [tensor.layer, tensor.node + nested, 0]


def arrays(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """A random array for every weight that the config asks for, by dataset path."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for weight in trace(parse_model(config), builtin()).weights():
        shape = [size or 1 for size in weight.shape]
        drawn = (
            rng.uniform(0.5, 1.5, shape) if "variance" in weight.name else rng.normal(size=shape)
        )
        found[weight.path] = drawn.astype(np.float32)
    return found


def analysed(config: dict[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> Analysis:
    """The analysis of a model that is in no file."""
    return Analysis.of(config, {}, arrays(config) if tensors is None else tensors)


def write(path: Path, config: dict[str, Any], seed: int = 0, **options: Any) -> Path:
    """The model as a `.keras` file; `options` are those of `write_keras`."""
    return write_keras(path, arrays(config, seed), config=config, **options)


class Arrays:
    """Tensors as a file would give them, which counts how often each is read."""

    def __init__(self, tensors: Mapping[str, np.ndarray], rows: int = 2) -> None:
        self.tensors, self.rows = tensors, rows
        self.reads: dict[str, int] = {}

    def read(self, path: str) -> np.ndarray:
        self.reads[path] = self.reads.get(path, 0) + 1
        return self.tensors[path]

    def blocks(self, path: str, limit: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        whole = self.read(path)
        for start in range(0, len(whole), self.rows):
            yield start, whole[start : start + self.rows]


def residual(blocks: int, width: int = 8, *, shape: Shape = (8, 8)) -> dict[str, Any]:
    """A ResNet of `blocks` identity blocks, each Conv-BN-ReLU-Conv-BN, an Add and a ReLU."""
    net = Network("residual")
    x = net("Conv2D", "stem", net.input("in", *shape, 3), filters=width)
    for number in range(blocks):
        name = f"block{number}"
        y = net("Conv2D", f"{name}_1", x, filters=width)
        y = net("ReLU", f"{name}_relu", net("BatchNormalization", f"{name}_bn1", y))
        y = net("BatchNormalization", f"{name}_bn2", net("Conv2D", f"{name}_2", y, filters=width))
        x = net("ReLU", f"{name}_out", net("Add", f"{name}_add", [x, y]))
    x = net("GlobalAveragePooling2D", "pool", x, shape=(None, width))
    return net.functional(net("Dense", "classes", x, units=10, activation="softmax"))
