"""Nodes are taken for a layer's by the scope that bears its name, or by what they read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kprune.graph.model import Layer
from kprune.labels.labels import Labels
from kprune.saved_model.tracing.graph import MAIN, Graph
from kprune.saved_model.tracing.node_layers import NodeLayers
from kprune.saved_model.tracing.parameters import Owners, Parameter
from kprune.saved_model.tracing.values import Value


def layer(path: str) -> Layer:
    return Layer(path, path, "", "", None, {"class_name": "", "config": {}})


class Walk:
    """A graph whose nodes come one after the other, over the kernels of two layers."""

    def __init__(self) -> None:
        numbers = iter(range(1, 100))
        self.kernels: dict[str, Parameter] = {}
        for name in ("dense", "block/conv"):
            kernel = Parameter(f"{name}/kernel", (4, 3), np.dtype("float32"), layer=layer(name))
            kernel.label(lambda size: np.array([next(numbers) for _ in range(size)]))
            self.kernels[name] = kernel
        layers = {kernel.layer.path: kernel.layer for kernel in self.kernels.values()}
        self.found = NodeLayers(Owners(self.kernels.values()), layers, {"a_function"})
        self.graph = Graph(MAIN, None, {}, [])

    def node(self, name: str, op: str, *reads: str, kernel: str = "", by: str = "handle") -> str:
        """The path of the layer that a node is taken for; its own is its name."""
        self.graph.inputs[name] = [(read, 0) for read in reads]
        ins = [Value(Labels((None, 4))) for _ in reads]
        if kernel:
            held = self.kernels[kernel]
            handle = Value(Labels(()), parameter=held)
            ins.append(handle if by == "handle" else Value(held.labels))
        node: Any = SimpleNamespace(name=name, op=op, attr={})
        return self.found.find(self.graph, node, layer(name), ins).path


@pytest.fixture
def walk() -> Walk:
    return Walk()


@pytest.mark.parametrize("by", ["handle", "value"])
@pytest.mark.parametrize("scope", ["model/dense", "model/dense_1"])
def test_a_scope_that_bears_the_name_of_a_layer_is_the_layers(
    walk: Walk, scope: str, by: str
) -> None:
    assert walk.node(f"{scope}/MatMul", "MatMul", "x", kernel="dense", by=by) == "dense"
    assert walk.node(f"{scope}/Relu", "Relu", f"{scope}/MatMul") == "dense"
    assert walk.node("model/other/Relu", "Relu", f"{scope}/Relu") == "model/other/Relu"


def test_the_innermost_scope_counts(walk: Walk) -> None:
    walk.node("dense/MatMul", "MatMul", "x", kernel="dense")
    walk.node("dense/conv/Conv2D", "Conv2D", "dense/MatMul", kernel="block/conv")
    assert walk.node("dense/conv/Relu", "Relu", "dense/conv/Conv2D") == "block/conv"
    assert walk.node("dense/Tanh", "Tanh", "dense/conv/Relu") == "dense"


def test_without_scopes_a_layer_is_what_makes_its_units_and_the_activation(walk: Walk) -> None:
    walk.kernels["dense"].made.add(1)
    assert walk.node("MatMul", "MatMul", "x", kernel="dense") == "dense"
    assert walk.node("Relu", "Relu", "MatMul") == "dense"
    assert walk.node("Reshape", "Reshape", "Relu") == "Reshape"
    assert walk.node("Add", "AddV2", "Relu", "x") == "Add"


def test_what_only_reads_a_weight_is_no_part_of_its_layer(walk: Walk) -> None:
    assert walk.node("Square", "Square", kernel="dense") == "Square"
    walk.kernels["dense"].made.add(1)
    assert walk.node("call", "a_function", "x", kernel="dense") == "call"
    assert walk.found.of["", "call"].path == "call"
