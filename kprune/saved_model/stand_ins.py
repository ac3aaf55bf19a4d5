"""Layers in the place of those whose code is not to run: with their variables, and without their code.

A SavedModel records which variables a layer has, and the shapes that its functions take and give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kprune.errors import CannotPruneError
from kprune.faults import shown
from kprune.runtime.tensorflow_runtime import tensorflow, tf_keras
from kprune.saved_model.files.contents import Contents, saved_keys
from kprune.saved_model.files.rewrite import specs
from kprune.saved_model.tracing.graph import shape_of
from kprune.text import clean

_CALL = "__call__"
_Shape = tuple[int | None, ...]


class StandIns:
    """Classes for the layers of one file.

    Args:
        nodes: what the file says of each layer, by node of the object graph.
        names: the classes to be stood in for.

    Attributes:
        classes: by the name that a config calls them.
        keys: by variable (its `id`) of the layers that were built, the key of its value.
    """

    def __init__(
        self, contents: Contents, nodes: Mapping[int, Mapping[str, Any]], names: Sequence[str]
    ) -> None:
        self.contents, self.nodes = contents, nodes
        self.keys: dict[int, str] = {}
        self.classes: dict[str, type] = {name: self._class(name) for name in names}

    def _class(self, name: str) -> type:
        stand_ins = self

        class StandIn(tf_keras().layers.Layer):  # type: ignore[misc]
            """A layer that has variables and gives nothing but a shape."""

            def __init__(self, config: Mapping[str, Any]) -> None:
                own = {key: config[key] for key in ("trainable", "dtype") if key in config}
                super().__init__(name=config["name"], **own)
                self._said = dict(config)
                self._node = stand_ins.node(name, config["name"])

            @classmethod
            def from_config(cls, config: Mapping[str, Any]) -> StandIn:
                return cls(config)

            def get_config(self) -> dict[str, Any]:
                return self._said

            def build(self, shape: Any) -> None:
                stand_ins.add_variables(self, self._node)
                super().build(shape)

            def call(self, inputs: Any, **_: Any) -> Any:
                tf = tensorflow()
                given = [tuple(tensor.shape) for tensor in tf.nest.flatten(inputs)]
                shape, kind = stand_ins.output(self._node, given)
                return tf.compat.v1.placeholder(kind, shape)

        StandIn.__name__ = StandIn.__qualname__ = name
        return StandIn

    def node(self, kind: str, name: str) -> int:
        """The node of the one layer of a class and a name."""
        found = [
            number
            for number, said in self.nodes.items()
            if (said.get("class_name"), said.get("name")) == (kind, name)
        ]
        if len(found) != 1 or found[0] >= len(self._objects.nodes):
            raise self._refused(kind, f"the file describes {len(found)} such layers of one name")
        return found[0]

    @property
    def _objects(self) -> Any:
        return self.contents.meta.object_graph_def

    def _child(self, number: int, name: str) -> int | None:
        children = self._objects.nodes[number].children
        return next((child.node_id for child in children if child.local_name == name), None)

    def add_variables(self, layer: Any, number: int) -> None:
        """Give a layer the variables that it was saved with, in their order."""
        stored = self.contents.object_graph()
        keys = saved_keys(self.contents.meta, stored) if stored is not None else {}
        listed = self._child(number, "variables")
        if listed is None and any(
            self._objects.nodes[child.node_id].WhichOneof("kind") == "variable"
            for child in self._objects.nodes[number].children
        ):
            kind = str(self.nodes[number].get("class_name"))
            raise self._refused(kind, "the file does not say in which order its variables are")
        children = self._objects.nodes[listed].children if listed is not None else ()
        for child in sorted(children, key=lambda child: int(child.local_name)):
            proto = self._objects.nodes[child.node_id].variable
            variable = layer.add_weight(
                name=proto.name.rpartition("/")[2],
                shape=shape_of(proto.shape),
                dtype=tensorflow().as_dtype(proto.dtype),
                trainable=proto.trainable,
                initializer="zeros",
            )
            self.keys[id(variable)] = keys.get(child.node_id, "")

    def output(self, number: int, given: Sequence[_Shape]) -> tuple[_Shape | None, Any]:
        """The shape and type of what a layer gives for inputs of some shapes."""
        kind = str(self.nodes[number].get("class_name"))
        functions = self._objects.concrete_functions
        called = self._child(number, _CALL)
        names = (
            self._objects.nodes[called].function.concrete_functions if called is not None else ()
        )
        found = {
            self._single(kind, functions[name])
            for name in names
            if name in functions and _takes(functions[name], given)
        }
        if len(found) != 1:
            raise self._refused(kind, "the file does not say which shape it gives")
        return found.pop()

    def _single(self, kind: str, function: Any) -> tuple[_Shape | None, Any]:
        outputs = list(specs(function.output_signature))
        if len(outputs) != 1:
            raise self._refused(kind, f"it gives {len(outputs)} tensors")
        return shape_of(outputs[0].shape), tensorflow().as_dtype(outputs[0].dtype)

    def _refused(self, kind: str, why: str) -> CannotPruneError:
        return CannotPruneError(
            f"cannot read {shown(self.contents.folder)} without the class '{clean(kind)}'",
            why=f"{why}; building such a layer would run code that is not Keras's own",
            do="pass --trust if you trust this file; or give --rules a file that registers the class",
        )


def _takes(function: Any, given: Sequence[_Shape]) -> bool:
    """Whether a function was traced for tensors of some shapes."""
    said = [shape_of(spec.shape) for spec in specs(function.canonicalized_input_signature)]
    return len(said) >= len(given) and all(
        one is None
        or (
            len(one) == len(other)
            and all(None in (a, b) or a == b for a, b in zip(one, other, strict=True))
        )
        for one, other in zip(said, given, strict=False)
    )
