"""A Keras model as the calls that it makes, one after the other, those of models inside it among them.

Keras's own `Function` keeps every tensor until it has run to its end. Here the caller holds the
tensors, and may look at what goes into a call, and change the layer, before the call is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, field

from kprune.errors import CannotPruneError
from kprune.text import clean

Key = tuple[str, int]
"""The path of a layer (`outer/inner`), and which of its calls."""

Place = tuple[int, int]
"""One tensor: the number of a call of a graph, and the identity of the graph's symbolic tensor."""

Call = Callable[[Sequence[Any]], list[Any]]


class Step(Struct, frozen=True, eq=False):
    """One call.

    Attributes:
        key: the same in a model and in what is left of it.
        operation: the Keras layer or operation; None where only an axis is folded.
        reads, writes: the tensors that go in and come out.
        call: gives the values of `writes` for those of `reads`.
        size: numbers in the largest of `writes`, for one sample, as far as the model says.
    """

    key: Key
    operation: Any
    reads: tuple[Place, ...]
    writes: tuple[Place, ...]
    call: Call
    size: int = 1


def layers_in(step: Step) -> list[Any]:
    """The Keras layer of a call, and all that are inside it; none for an operation."""
    flatten = getattr(step.operation, "_flatten_layers", None)
    return [] if flatten is None else list(flatten())


class Program(Struct):
    """All calls of a model, in an order in which each finds what it reads.

    Attributes:
        graph: Keras's, of the model.
        inputs, outputs: flattened as Keras flattens structures.
        sizes: numbers in each input, for one sample, as far as the model says.
    """

    graph: Any
    steps: list[Step] = field(default_factory=list)
    inputs: list[Place] = field(default_factory=list)
    outputs: list[Place] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, model: Any) -> Program:
        """The calls of a Functional or Sequential model of Keras 3.

        Raises: CannotPruneError for another kind of model.
        """
        graph = graph_of(model)
        if graph is None:
            raise CannotPruneError(
                f"the model '{clean(model.name)}' cannot be run layer by layer",
                why="it is not a Functional or Sequential model of Keras 3",
                do="build and save it as a Functional model with Keras 3, or leave out --repair",
            )
        program = cls(graph)
        unrolling = _Unrolling(program)
        unrolling.run(graph, "")
        program.inputs = [(0, id(tensor)) for tensor in graph.inputs]
        program.outputs = [unrolling.place(0, tensor) for tensor in graph.outputs]
        program.sizes = [_size(tensor) for tensor in graph.inputs]
        return program

    def taken(self, arrays: Sequence[Any]) -> list[Any]:
        """Some samples of each input, as the model takes them: in its types, with its number of axes."""
        tensors = self.graph._convert_inputs_to_tensors(list(arrays))
        return list(self.graph._adjust_input_rank(tensors))

    def readers(self) -> dict[Place, list[Step]]:
        """Which steps read each tensor, each step once."""
        found: dict[Place, list[Step]] = {}
        for step in self.steps:
            for place in dict.fromkeys(step.reads):
                found.setdefault(place, []).append(step)
        return found


def graph_of(model: Any) -> Any:
    """The graph of a Functional or Sequential model of Keras 3; None for anything else."""
    import keras
    from keras.src.models.functional import Functional

    if isinstance(model, keras.Sequential):
        return getattr(model, "_functional", None)
    # A subclass with a call of its own may do more than its graph says.
    return model if isinstance(model, Functional) and type(model).call is Functional.call else None


class _Unrolling:
    """Writes the calls of a model, and of the models that it calls, into a program."""

    def __init__(self, program: Program) -> None:
        self.steps = program.steps
        self.scopes = 0  # calls of graphs so far: a graph that is called twice has other tensors
        self.counts: dict[str, int] = {}
        self.same: dict[Place, Place] = {}

    def run(self, graph: Any, path: str) -> int:
        """Add the calls of a graph. Returns: the number in its places."""
        scope = self.scopes
        self.scopes += 1
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if not node.is_input:
                    self._node(node, scope, path)
        return scope

    def place(self, scope: int, tensor: Any) -> Place:
        place = (scope, id(tensor))
        while place in self.same:
            place = self.same[place]
        return place

    def _node(self, node: Any, scope: int, path: str) -> None:
        layer = node.operation
        name = f"{path}{layer.name}"
        tensors = list({id(tensor): tensor for tensor in node.input_tensors}.values())
        reads = tuple(self.place(scope, tensor) for tensor in tensors)
        writes = tuple((scope, id(tensor)) for tensor in node.outputs)
        inner = graph_of(layer)
        if inner is not None and _takes_only(node, inner):
            self._inside(inner, f"{name}/", reads, writes)
        elif type(layer).__name__ == "TimeDistributed" and len(reads) == len(writes) == 1:
            self._over_time(layer, name, tensors[0], reads, writes)
        else:
            call = _call_of(node, [id(tensor) for tensor in tensors])
            size = max(_size(tensor) for tensor in node.outputs)
            self.steps.append(Step(self._key(name), layer, reads, writes, call, size))

    def _key(self, name: str) -> Key:
        number = self.counts.get(name, 0)
        self.counts[name] = number + 1
        return name, number

    def _inside(
        self, graph: Any, path: str, passed: Sequence[Place], gives: Sequence[Place]
    ) -> None:
        """A call of a model: its inputs are what was passed, and what it gives are its outputs."""
        number = self.scopes
        for tensor, place in zip(graph.inputs, passed, strict=True):
            self.same[number, id(tensor)] = place
        scope = self.run(graph, path)
        for place, tensor in zip(gives, graph.outputs, strict=True):
            self.same[place] = self.place(scope, tensor)

    def _over_time(
        self,
        wrapper: Any,
        name: str,
        tensor: Any,
        reads: tuple[Place, ...],
        writes: tuple[Place, ...],
    ) -> None:
        """A TimeDistributed without a mask: what it wraps is called once, on all steps of all samples."""
        inner, wrapped = wrapper.layer, f"{name}/{wrapper.layer.name}"
        folded = (self._own_place(), self._own_place())
        self.steps.append(Step(self._key(f"{name} (fold)"), None, reads, folded[:1], _fold))
        graph = graph_of(inner)
        if graph is not None and [one.dtype for one in graph.inputs] == [tensor.dtype]:
            self._inside(graph, f"{wrapped}/", folded[:1], folded[1:])
        else:
            self.steps.append(
                Step(self._key(wrapped), inner, folded[:1], folded[1:], _plain_call(inner))
            )
        made = folded[1]
        while made in self.same:
            made = self.same[made]
        self.steps.append(
            Step(self._key(f"{name} (unfold)"), None, (made, *reads), writes, _unfold)
        )

    def _own_place(self) -> Place:
        """A place that is no tensor of any graph."""
        self.scopes += 1
        return self.scopes - 1, 0


def _size(tensor: Any) -> int:
    return math.prod(n or 1 for n in tensor.shape[1:])


def _takes_only(node: Any, inner: Any) -> bool:
    """Whether a call of a model does nothing but pass its inputs, each another tensor, without a mask."""
    from keras import tree

    passed, inputs = node.input_tensors, inner.inputs
    args, kwargs = node.arguments.args, node.arguments.kwargs
    return (
        len(args) == 1
        and all(name == "training" or value is None for name, value in kwargs.items())
        and len(passed) == len({id(tensor) for tensor in passed}) == len(inputs)
        and _paths(tree, args[0]) == _paths(tree, inner._inputs_struct)
        and all(
            (len(one.shape), one.dtype) == (len(other.shape), other.dtype)
            for one, other in zip(passed, inputs, strict=True)
        )
    )


def _paths(tree: Any, structure: Any) -> list[Any]:
    """Where tensors stand in a structure; a single one may as well be the only one of a list."""
    paths = [path for path, _ in tree.flatten_with_path(structure)]
    return [] if len(paths) == 1 else paths


def _call_of(node: Any, known: Sequence[int]) -> Call:
    """The call of a node, for values of the symbolic tensors with these identities."""

    def call(values: Sequence[Any]) -> list[Any]:
        args, kwargs = node.arguments.fill_in(dict(zip(known, values, strict=True)))
        return _flat(node.operation, args, kwargs)

    return call


def _plain_call(layer: Any) -> Call:
    return lambda values: _flat(layer, list(values), {})


def _flat(operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    from keras import tree

    if getattr(operation, "_call_has_training_arg", False):
        # As a model that is called with training=False has it, whatever its graph says.
        kwargs = {**kwargs, "training": False}
    return list(tree.flatten(operation(*args, **kwargs)))


def _fold(values: Sequence[Any]) -> list[Any]:
    """(samples, steps, …) as (samples · steps, …)."""
    from keras import ops

    return [ops.reshape(values[0], (-1, *values[0].shape[2:]))]


def _unfold(values: Sequence[Any]) -> list[Any]:
    """The reverse, as the second value is divided."""
    from keras import ops

    folded, whole = values
    return [ops.reshape(folded, (*whole.shape[:2], *folded.shape[1:]))]
