"""A consistency check of a SavedModel before it is put in place: TensorFlow's own shape inference looks
at the main graph and at every function, called or not.

Nothing of what made the cut is asked, and nothing of the file is run. Each function is put into a
graph with the shapes that it says it takes, and its resources with the shapes of their variables;
what TensorFlow infers is then held against what its callers hand it and expect of it, and against
what the object graph says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from kprune.active_content.operations import CALLERS, CHECKPOINTS, is_inert
from kprune.errors import DamagedFileError, KpruneError, UnsoundOutputError
from kprune.faults import damaged
from kprune.runtime.tensorflow_runtime import tensorflow
from kprune.saved_model.files.contents import Contents, saved_keys
from kprune.saved_model.files.rewrite import specs
from kprune.saved_model.tracing.graph import output_types, shape_of
from kprune.text import clean
from kprune.version import __version__

MANY = 3
"""Complaints that a message quotes."""

_ALL = "saved_model.pb"  # the place of a complaint after which nothing more can be told

_CALLS = {"PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",), "RemoteCall": ("f",)}
_LOOPS = {"While": ("cond", "body"), "StatelessWhile": ("cond", "body")}
_BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}

# Operations that call functions, and those that do the same and are never run for a shape's sake.
_WITH_STATE = {
    "PartitionedCall": "StatefulPartitionedCall",
    "StatelessIf": "If",
    "StatelessCase": "Case",
    "StatelessWhile": "While",
}
_OPAQUE = "OutfeedDequeueTuple"  # gives anything, has a state, and runs nowhere but on a TPU


class Complaint(NamedTuple):
    """One contradiction, and where it stands."""

    place: str
    text: str


def require_sound(read: Callable[[], Contents], before: Callable[[], Contents]) -> None:
    """Check a folder for consistency before it is put in place.

    Args:
        read: reads it.
        before: gives what it was made from. What was wrong there in the same place is no fault of
            the change; it is called only in need.
    Raises: UnsoundOutputError if it contradicts itself; DamagedFileError if what it was made from
        does so already, in another place or so that no more can be told.
    """
    found = _told_of(read)
    if not found:
        return
    known = _told_of(before)
    places = {complaint.place for complaint in known} - {_ALL}
    found = [complaint for complaint in found if complaint.place not in places]
    if found and known:
        raise damaged(before().folder, _quoted(known), where=_places(known))
    if found:
        raise UnsoundOutputError(
            "the result contradicts itself, which is a bug in kprune",
            where=_places(found),
            why=_quoted(found),
            do=f"nothing was written; please report this message (kprune {__version__}) with the "
            "command that gave it",
        )


def _told_of(read: Callable[[], Contents]) -> list[Complaint]:
    try:
        return complaints(read())
    except DamagedFileError as error:
        return [Complaint(error.where, f"{error.what}: {error.why}")]
    except KpruneError:
        raise
    except Exception as error:  # whatever graphs that hang together in no way lead to
        return [Complaint(_ALL, _told(error))]


def _places(found: Sequence[Complaint]) -> str:
    return ", ".join(dict.fromkeys(clean(one.place) for one in found[:MANY]))


def _quoted(found: Sequence[Complaint]) -> str:
    more = f"; and {len(found) - MANY} more" if len(found) > MANY else ""
    return "; ".join(clean(one.text, 300) for one in found[:MANY]) + more


def complaints(contents: Contents) -> list[Complaint]:
    """Where a SavedModel contradicts itself."""
    return [*_variables(contents), *_Graphs(contents.meta).complaints()]


def _variables(contents: Contents) -> Iterator[Complaint]:
    """Variables that the checkpoint holds in another shape."""
    stored = contents.object_graph()
    nodes = contents.meta.object_graph_def.nodes
    for node, key in sorted(saved_keys(contents.meta, stored).items()) if stored else ():
        shape = shape_of(nodes[node].variable.shape)
        if key in contents.shapes and not _agree(shape, contents.shapes[key]):
            text = f"the checkpoint holds {contents.shapes[key]}, where the variable is {shape}"
            yield Complaint(key, text)


def _agree(one: Sequence[int | None] | None, other: Sequence[int | None] | None) -> bool:
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(one, other, strict=True)
    )


class _Body(NamedTuple):
    """A function in the graph: what it takes, and what it gives."""

    inputs: list[Any]
    outputs: list[Any]


class _Graphs:
    """All graphs of a MetaGraphDef, put into one that TensorFlow infers shapes in."""

    def __init__(self, meta: Any) -> None:
        self.meta = meta
        self.functions = {f.signature.name: f for f in meta.graph_def.library.function}
        self.graph = tensorflow().Graph()
        self.bodies: dict[str, _Body] = {}

    def complaints(self) -> Iterator[Complaint]:
        """What TensorFlow refuses, and where what it infers is not what others say."""
        with self.graph.as_default():
            try:
                self._put(self._bare(self.meta.graph_def), {}, "main")
            except Exception as error:  # whatever TensorFlow raises
                yield Complaint("the main graph", _told(error))
                return
            for number, (name, function) in enumerate(self.functions.items()):
                try:
                    self.bodies[name] = self._body(function, f"function_{number}")
                except Exception as error:
                    yield Complaint(name, _told(error))
        for operation in self.graph.get_operations():
            yield from self._calls(operation)
        yield from self._concrete_functions()
        yield from self._signatures()

    def _put(self, graph_def: Any, inputs: dict[str, Any], name: str) -> None:
        from tensorflow.python.framework import importer

        importer.import_graph_def(graph_def, inputs, name=name)

    def _bare(self, graph_def: Any) -> Any:
        """A graph whose shapes can be inferred, and nothing else.

        Without wishes where nodes should run: these name nodes of other graphs. And without what could
        run: to know a shape, TensorFlow runs the operations without a state that it follows from,
        `ReadFile` for one, in a graph and in the functions that it calls.
        """
        copied = type(graph_def)()
        copied.CopyFrom(graph_def)
        for function in copied.library.function:
            _empty(function)
        for node in copied.node:
            node.attr.pop("_class", None)
            node.device = ""
            node.op = _WITH_STATE.get(node.op, node.op)
            if not self._stays(node):
                _make_opaque(node, output_types(node, self.functions))
        return copied

    def _stays(self, node: Any) -> bool:
        if node.op in self.functions or node.op in CHECKPOINTS:
            return True
        return node.op in _WITH_STATE.values() or (is_inert(node) and node.op not in CALLERS)

    def _body(self, function: Any, scope: str) -> _Body:
        from tensorflow.python.framework import function_def_to_graph as conversion

        graph_def, names = conversion.function_def_to_graph_def(function)
        arguments = [arg.name for arg in function.signature.input_arg]
        inputs = {
            node.name: self._argument(node, arg, scope)
            for node, arg in zip(graph_def.node, function.signature.input_arg, strict=False)
        }
        del graph_def.node[: len(arguments)]
        graph_def = self._bare(graph_def)
        read = {text.partition(":")[0] for node in graph_def.node for text in node.input}
        # A node may wait for an argument, as it may for a node: an import maps the two apart.
        named = inputs | {f"^{name}": tensor for name, tensor in inputs.items()}
        used = {name: tensor for name, tensor in named.items() if name in read}
        self._put(graph_def, used, scope)

        def tensor(text: str) -> Any:
            flat = names.get(text, text)
            node, _, index = flat.partition(":")
            if node in inputs:
                return inputs[node]
            return self.graph.get_tensor_by_name(f"{scope}/{node}:{index or 0}")

        results = [tensor(function.ret[arg.name]) for arg in function.signature.output_arg]
        return _Body([inputs[name] for name in arguments], results)

    def _argument(self, node: Any, arg: Any, scope: str) -> Any:
        """A placeholder with the shape that a function takes; of a variable, with that of its value."""
        from tensorflow.python.framework import dtypes
        from tensorflow.python.ops import handle_data_util

        tf = tensorflow()
        kind = dtypes.as_dtype(arg.type)
        shape: Any = () if kind == tf.resource else None
        if kind != tf.resource and "shape" in node.attr:  # to ask for it would put it in
            shape = node.attr["shape"].shape
        name = f"{scope}_takes/{node.name}"
        tensor = tf.compat.v1.placeholder(kind, shape, name=name)
        if kind == tf.resource and arg.handle_data:
            held = arg.handle_data[0]
            data = handle_data_util.create_handle_data(
                tf.TensorShape(held.shape), dtypes.as_dtype(held.dtype)
            )
            handle_data_util.set_handle_data(tensor, data)
        return tensor

    # -- what others say -------------------------------------------------------------------------

    def _calls(self, operation: Any) -> Iterator[Complaint]:
        """Calls that hand a function something else than it takes, or expect something else."""
        fields = (_CALLS | _LOOPS | _BRANCHES).get(operation.type, ())
        given = list(operation.inputs)[1 if operation.type in _BRANCHES else 0 :]
        called = [(operation.get_attr(field).name, field) for field in fields]
        if operation.type in self.functions:
            called = [(operation.type, "")]
        for name, field in called:
            body = self.bodies.get(name)
            if body is None:
                continue
            pairs = list(zip(given, body.inputs, strict=False))
            if field != "cond":
                pairs += zip(operation.outputs, body.outputs, strict=False)
            for one, other in pairs:
                if _shape(one) is not None and not _agree(_shape(one), _shape(other)):
                    text = f"{operation.name} meets {_shape(one)} with {_shape(other)}"
                    yield Complaint(name, text)

    def _concrete_functions(self) -> Iterator[Complaint]:
        """Functions of the object graph: what they capture, take and give."""
        objects = self.meta.object_graph_def
        for name, concrete in sorted(objects.concrete_functions.items()):
            body = self.bodies.get(name)
            if body is None:
                continue
            captured = concrete.bound_inputs
            own = len(body.inputs) - len(captured)
            said = [shape_of(spec.shape) for spec in specs(concrete.canonicalized_input_signature)]
            pairs = list(zip(said, map(_shape, body.inputs[:own]), strict=False))
            given = [shape_of(spec.shape) for spec in specs(concrete.output_signature)]
            pairs += zip(given, map(_shape, body.outputs), strict=False)
            for node, tensor in zip(captured, body.inputs[own:], strict=False):
                if objects.nodes[node].WhichOneof("kind") == "variable":
                    pairs.append((shape_of(objects.nodes[node].variable.shape), _shape(tensor)))
            for one, other in pairs:
                if not _agree(one, other):
                    yield Complaint(name, f"is said to have {one}, where it has {other}")

    def _signatures(self) -> Iterator[Complaint]:
        for key, signature in sorted(self.meta.signature_def.items()):
            for info in (*signature.inputs.values(), *signature.outputs.values()):
                if ":" not in info.name:
                    continue
                inferred = _shape(self.graph.get_tensor_by_name(f"main/{info.name}"))
                said = shape_of(info.tensor_shape)
                if not _agree(said, inferred):
                    text = f"is said to have {said}, where it has {inferred}"
                    yield Complaint(f"signature {key}", text)


def _shape(tensor: Any) -> tuple[int | None, ...] | None:
    """The shape of a tensor; of what it points to, if it is a handle of a variable. None if unknown."""
    from tensorflow.python.ops import handle_data_util

    shape = tensor.shape
    if tensor.dtype == tensorflow().resource:
        data = handle_data_util.get_resource_handle_data(tensor)
        if not data.is_set or len(data.shape_and_type) != 1:
            return None
        shape = tensorflow().TensorShape(data.shape_and_type[0].shape)
    return None if shape.rank is None else tuple(shape.as_list())


def _make_opaque(node: Any, types: Sequence[int]) -> None:
    """Turn a node into one that gives tensors of some types, of which nothing is known."""
    node.op = _OPAQUE
    del node.input[:]
    node.attr.clear()
    node.attr["dtypes"].list.type[:] = types
    for _ in types:
        node.attr["shapes"].list.shape.add(unknown_rank=True)
    if not types:
        node.op = "NoOp"
        node.attr.clear()


def _empty(function: Any) -> None:
    """Leave of a function what it takes, and tensors of the types that it gives."""
    signature = function.signature
    signature.is_stateful = True
    types = [arg.type for arg in signature.output_arg]
    del function.node_def[:]
    function.control_ret.clear()
    del signature.control_output[:]
    if types:
        _make_opaque(function.node_def.add(name="given"), types)
    for index, arg in enumerate(signature.output_arg):
        function.ret[arg.name] = f"given:outputs:{index}"


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
