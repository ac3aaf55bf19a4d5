"""The reference for SavedModels: what they compute once outputs of some layers are set to 0.

TensorFlow inlines the functions that a signature calls, so that every tensor stands in one graph.
That graph is built again in parts: first what stands before every mask, then what follows the
first ones, and so on. Between the parts the masks are plain arithmetic on tensors, and the readers of
a layer get the masked tensor instead. Weights stay where they are, in variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kprune.errors import CannotPruneError
from kprune.pruning.pruned_units import Mask
from kprune.runtime.tensorflow_runtime import tensorflow
from kprune.saved_model.analysis import GraphAnalysis
from kprune.saved_model.masks import Place, places, positions_of
from kprune.saved_model.tracing.graph import MAIN, Ref
from kprune.saved_model.tracing.trace import GraphTracer
from kprune.text import clean

Signature = Callable[..., Mapping[str, Any]]
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_DO = "run both on data of your own; or take the masks out of a copy ('kprune unmask') and verify that"


def masked_signatures(
    loaded: Any, analysis: GraphAnalysis, masks: Sequence[Mask]
) -> dict[str, Signature]:
    """The signatures of a loaded SavedModel, with outputs of some layers set to 0.

    Args:
        loaded: what `tf.saved_model.load` gave; it may hold other weights than the file did.
        analysis: of the file.
        masks: layers, which of their units, and `below` which magnitude alone.
    Returns: by name, functions of the inputs by name that give the outputs by name.
    Raises: CannotPruneError if a layer's output cannot be reached from outside.
    """
    standing = []
    for mask in masks:
        axis = analysis.map.axes[mask.path]
        found = list(places(analysis, axis))
        if not found:
            raise _unchecked(mask.path, "none of its operations gives its units along one axis")
        standing += [
            (mask, place, positions_of(analysis, place, axis, mask.channels)) for place in found
        ]
    return {
        name: _Inlined(analysis.tracer, name, signature).masked(standing)
        for name, signature in loaded.signatures.items()
    }


def _unchecked(path: str, why: str) -> CannotPruneError:
    return CannotPruneError(
        f"cannot check the mask behind '{clean(path)}'",
        why=f"the original would have to run with what the layer gives set to 0, and {why}",
        do=_DO,
    )


@dataclass(eq=False)
class _Cut:
    """A tensor whose readers get another in its place.

    Attributes:
        name: stands for that other one among the inputs of nodes.
        ref: the tensor.
        spared: nodes that go on reading it as it is: the layer's own.
        off: what is set to 0, as bool arrays that broadcast against it, each with the magnitude
            that a value has to be under.
    """

    name: str
    path: str
    ref: Ref
    spared: set[str]
    off: list[tuple[np.ndarray, float | None]]

    def masked(self, value: Any) -> Any:
        tf = tensorflow()
        for off, below in self.off:
            small = True if below is None else tf.abs(value) < tf.cast(below, value.dtype)
            value = tf.where(tf.logical_and(off, small), tf.zeros((), value.dtype), value)
        return value


@dataclass(eq=False)
class _Inlined:
    """One signature, as a graph without calls of functions.

    Attributes:
        called: by function, the prefixes under which its nodes stand in the graph.
        hidden: functions that loops and branches run, whose nodes do not stand in it.
    """

    tracer: GraphTracer
    name: str
    signature: Any
    called: dict[str, list[str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._walk(self._entry(), "")
        try:
            self.graph_def = _inlined(self.signature)
        except (ValueError, tensorflow().errors.OpError) as error:
            raise CannotPruneError(
                "cannot check the masks",
                where=f"signature '{clean(self.name)}'",
                why=f"TensorFlow does not inline its functions: {clean(error, 200)}",
                do=_DO,
            ) from error
        self.nodes = {node.name: node for node in self.graph_def.node}

    def _entry(self) -> str:
        """The function whose nodes are the signature's own; in TensorFlow 1, the main graph."""
        meta = self.tracer.meta
        if not meta.HasField("object_graph_def"):
            return MAIN
        info = next(iter(meta.signature_def[self.name].outputs.values()))
        caller = self.tracer.graph(MAIN).nodes[info.name.partition(":")[0]]
        return next(name for name, _ in self._run_by(caller))

    def _run_by(self, node: Any) -> Iterator[tuple[str, bool]]:
        """The functions that a node runs, and whether it does nothing but call them."""
        if node.op in self.tracer.library:
            yield node.op, True
        for held in node.attr.values():
            for one in (held.func, *held.list.func):
                if one.name in self.tracer.library:
                    yield one.name, node.op in _CALLS

    def _walk(self, graph: str, prefix: str | None) -> None:
        """Note where the nodes of a function stand, and those of all that it calls.

        Args:
            prefix: None inside of what is hidden.
        """
        if prefix is not None:
            self.called.setdefault(graph, []).append(prefix)
        elif graph not in self.hidden:
            self.hidden.add(graph)
        else:
            return
        for node in self.tracer.graph(graph).nodes.values():
            for name, calls in self._run_by(node):
                inlined = calls and prefix is not None
                self._walk(name, f"{prefix}{node.name}/" if inlined else None)

    def masked(self, standing: Sequence[tuple[Mask, Place, np.ndarray]]) -> Signature:
        cuts: dict[Ref, _Cut] = {}
        for mask, place, off in standing:
            if place.graph in self.hidden:
                raise _unchecked(mask.path, "that stands inside of a loop or a branch")
            reading = self.tracer.graph(place.graph).inputs
            ref = place.node, place.output
            own = {name for name, refs in reading.items() if ref in refs} - set(place.readers)
            shape = [1] * place.rank
            shape[place.axis] = len(off)
            for prefix in self.called.get(place.graph, ()):
                found = self._standing(prefix + place.node, place.output, mask.path)
                if found is None:
                    continue
                if found not in cuts:
                    spared = {prefix + name for name in own}
                    name = f"kprune_masked_{len(cuts)}"
                    cuts[found] = _Cut(name, mask.path, found, spared, [])
                cuts[found].off.append((off.reshape(shape), mask.below))
        return _Parts(self.signature, self.graph_def, list(cuts.values())).run

    def _standing(self, node: str, output: int, path: str) -> Ref | None:
        """A tensor in the graph; None if the signature does not compute it."""
        if node in self.nodes and self.nodes[node].op not in _CALLS:
            return node, output
        # Where a call was, what it gave passes through an operation for each output.
        given = [name for name in self.nodes if name.startswith(f"Func/{node}/output/_")]
        if output < len(given):
            return sorted(given, key=lambda name: int(name.rpartition("_")[2]))[output], 0
        whole = [one.name for one in self.nodes.values() if one.op in _CALLS]
        if any(f"{node}/".startswith(f"{name}/") for name in whole):
            raise _unchecked(path, "that stands in a function which TensorFlow does not inline")
        return None


def _inlined(signature: Any) -> Any:
    """A GraphDef of a concrete function, with the functions that it calls inlined by TensorFlow."""
    tf = tensorflow()
    from tensorflow.python.grappler import tf_optimizer

    graph_def = signature.graph.as_graph_def()
    bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    for node in (node for body in bodies for node in body):
        if "_lower_using_switch_merge" in node.attr:  # loops and branches stay whole
            node.attr["_lower_using_switch_merge"].b = False
    for function in graph_def.library.function:
        function.attr.pop("api_implements", None)  # which bars a function from being inlined
    meta = tf.compat.v1.MetaGraphDef(graph_def=graph_def)
    kept = meta.collection_def["train_op"].node_list.value  # Grappler takes these for fetched
    kept.extend(tensor.name for tensor in (*signature.inputs, *signature.outputs))
    config = tf.compat.v1.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1  # small graphs as well
    options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta)


class _Parts:
    """A graph that is cut at some tensors, and built part by part.

    A part is the nodes that stand behind equally many masks, one after the other.
    """

    def __init__(self, signature: Any, graph_def: Any, cuts: Sequence[_Cut]) -> None:
        tf = tensorflow()
        self._signature, self._graph_def = signature, graph_def
        self._cuts = {cut.name: cut for cut in cuts}
        self._by_ref = {cut.ref: cut for cut in cuts}
        for node in graph_def.node:
            node.input[:] = [self._read(text, _reader(node.name)) for text in node.input]
            node.attr.pop("_class", None)  # names nodes to stand beside, of other parts too
        self._part = self._parts()
        for node in graph_def.node:  # nothing but values goes from part to part
            at = self._part[node.name]
            node.input[:] = [
                text for text in node.input if text[0] != "^" or self._part[text[1:]] == at
            ]
        self.run: Signature = tf.function(self._build)

    def _read(self, text: str, reader: str) -> str:
        cut = self._by_ref.get(_ref(text))
        return text if cut is None or reader in cut.spared else cut.name

    def _parts(self) -> dict[str, int]:
        """Which part each node belongs to, and each cut."""
        part = dict.fromkeys((node.name for node in self._graph_def.node), 0)
        part.update(dict.fromkeys(self._cuts, 0))
        changed = True
        while changed:
            changed = False
            wanted = {name: part[cut.ref[0]] + 1 for name, cut in self._cuts.items()}
            for node in self._graph_def.node:
                read = [part[_ref(text)[0]] for text in node.input if text[0] != "^"]
                wanted[node.name] = max(read, default=0)
                changed = changed or wanted[node.name] > part[node.name]
                part[node.name] = max(wanted[node.name], part[node.name])
            for name, cut in self._cuts.items():
                if wanted[name] > len(self._cuts):
                    raise _unchecked(cut.path, "that stands inside of a loop")
                changed = changed or wanted[name] > part[name]
                part[name] = wanted[name]
        return part

    def _build(self, **inputs: Any) -> dict[str, Any]:
        tf = tensorflow()
        graph = tf.compat.v1.get_default_graph()
        signature = self._signature
        captured = [graph.capture(tensor) for tensor in signature.captured_inputs]
        given = [*(inputs[name] for name in sorted(inputs)), *captured]
        known = {
            _ref(tensor.name): value for tensor, value in zip(signature.inputs, given, strict=True)
        }

        def value(text: str) -> Any:
            """A tensor that was built before."""
            if text in self._cuts:
                cut = self._cuts[text]
                if (text, 0) not in known:
                    known[text, 0] = cut.masked(value("{}:{}".format(*cut.ref)))
                return known[text, 0]
            name, index = _ref(text)
            if (name, index) in known:
                return known[name, index]
            return graph.get_tensor_by_name(f"part_{self._part[name]}/{name}:{index}")

        fed = {tensor.op.name for tensor in signature.inputs}
        for number in range(max(self._part.values()) + 1):
            part = tf.compat.v1.GraphDef(
                versions=self._graph_def.versions, library=self._graph_def.library
            )
            part.node.extend(
                node
                for node in self._graph_def.node
                if self._part[node.name] == number and node.name not in fed
            )
            own = {node.name for node in part.node}
            read = {text for node in part.node for text in node.input if text[0] != "^"}
            outside = sorted(text for text in read if _ref(text)[0] not in own)
            tf.graph_util.import_graph_def(
                part, {text: value(text) for text in outside}, name=f"part_{number}"
            )
        outputs = [value(self._read(tensor.name, "")) for tensor in signature.outputs]
        return dict(zip(sorted(signature.structured_outputs), outputs, strict=True))


def _ref(text: str) -> Ref:
    name, _, index = text.partition(":")
    return name, int(index or 0)


def _reader(name: str) -> str:
    """The node that a node of an inlined graph stands for: the call, for one that hands it an argument."""
    return name[5:].partition("/input/_")[0] if name.startswith("Func/") else name
