"""Pushes labels through a graph: each call's rule says what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kprune.errors import KpruneError, UsageError
from kprune.graph.dialects import is_keras3_node
from kprune.graph.model import (
    MOST_AXES,
    Call,
    Layer,
    Model,
    TensorRef,
    as_shape,
    leaves,
    map_leaves,
)
from kprune.graph.parse import INPUT, declared_shape
from kprune.labels.labels import Axis, Labels, Shape, merged
from kprune.labels.map import LAYER, Freeze, LabelMap, UnitAxis, Visit
from kprune.text import clean
from kprune.tracing.declared_shapes import follow_declared
from kprune.tracing.layer_call import LayerCall, damaged_config
from kprune.tracing.rule_call import CannotTell
from kprune.tracing.unclaimed_arrays import freeze_unclaimed
from kprune.tracing.unknown_shapes import Kernels, known_input, only_last_axis, widths

if TYPE_CHECKING:
    from kprune.tracing.registry import Rule, Rules


TRUST = (
    "choose other units; have the layer's own code traced, which runs it (--trust); give it a rule "
    "(--rules my_layers.py); or use 'kprune mask', which changes no shape"
)

_FAULTS = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
UNFORESEEN = "choose other units; and please report this, with the layer's config"
REQUIRED = frozenset(
    "activation axes cell cells dims equation factor filters function height input_dim kernel_size "
    "key_dim layer n num_heads num_key_value_heads num_query_heads head_dim output_dim output_shape "
    "output_size rate stddev target_shape units width".split()
)
"""Arguments for which no layer of Keras has a default."""

RULE = (
    "choose other units; give the layer a rule (--rules my_layers.py); or use 'kprune mask', which "
    "changes no shape"
)


def trace(model: Model, rules: Rules, kernels: Kernels = lambda layer: None) -> LabelMap:
    """Push labels through a model.

    Args:
        model: the graph.
        rules: which to go by: `kprune.rules.builtin()`, or with more of the user's.
        kernels: what the file says of a layer's input where the config does not.
    """
    tracer = Tracer(LabelMap(model), rules, kernels)
    outputs = tracer.run(model, None)
    for labels in leaves(outputs):
        if isinstance(labels, Labels) and labels.factors:
            tracer.map.freezes.append(
                Freeze("output", _nonzero(labels.all_ids()), "are the model's outputs", "")
            )
    return tracer.map


class Tracer:
    """Runs the rules. `map` grows as it goes."""

    def __init__(
        self, label_map: LabelMap, rules: Rules, kernels: Kernels = lambda layer: None
    ) -> None:
        self.map = label_map
        self.rules = rules
        self.kernels = kernels
        self.times = 1  # how often the layers being traced run per sample (TimeDistributed)

    def inside(self, label_map: LabelMap) -> Tracer:
        """One that goes by the same rules, for the graph of a layer's own code."""
        inner = Tracer(label_map, self.rules, self.kernels)
        inner.times = self.times
        return inner

    def run(self, model: Model, inputs: list[Labels] | None) -> Any:
        """Trace one model.

        Args:
            model: outermost or nested.
            inputs: labels of the tensors it is called on; None for the outermost, which gets its own.
        Returns: labels in the structure of the model's outputs.
        """
        recorded = _recorded_shapes(model)
        tensors: dict[tuple[str, int, int], Labels] = {}
        for index, ref in enumerate(leaves(model.inputs)):
            if ref is None:
                continue
            if inputs is None:
                labels = self._input(model, ref)
            else:
                labels = inputs[index] if index < len(inputs) else Labels(None)
                if labels.shape is None:
                    labels = labels.with_shape(declared_shape(model.layers.get(ref.layer)))
            tensors[ref.key] = labels
            self._keep(model, ref.key, labels)
        for call in model.calls:
            key = (call.layer.name, call.node, 0)
            if call.layer.kind == INPUT and key not in tensors and not call.inputs:
                tensors[key] = self._input(model, TensorRef(*key))
            if key in tensors:
                if call.layer.kind == INPUT:
                    self.map.record(call.layer).answer = "input"
                continue
            args = map_leaves(lambda leaf: _fill_in(leaf, tensors), call.args)
            if key not in recorded and call.layer.kind == "Flatten" and _is_open(args):
                width = widths(model, self.kernels).get(key)
                recorded[key] = None if width is None else (None, width)
            if inputs is None and call.layer.kind == "Dense" and _is_open(args):
                args = [_of_two_axes(model, call, args[0])]
            outputs = self.call(
                call.layer,
                args,
                map_leaves(lambda leaf: _fill_in(leaf, tensors), call.kwargs),
                {i: recorded.get((call.layer.name, call.node, i)) for i in range(4)},
                call,
            )
            for index, labels in enumerate(leaves(outputs)):
                key = (call.layer.name, call.node, index)
                tensors[key] = labels
                self._keep(model, key, labels)
        return map_leaves(lambda ref: _fill_in(ref, tensors), model.outputs)

    def _keep(self, model: Model, key: tuple[str, int, int], labels: Labels) -> None:
        self.map.keep((model.path, *key), labels)

    def _input(self, model: Model, ref: TensorRef) -> Labels:
        layer = model.layers.get(ref.layer)
        if layer is None:
            return Labels(ref.shape)
        config = layer.config
        shape = declared_shape(layer) or ref.shape
        self.map.record(layer).answer = "input"
        labels = Labels(shape)
        if (
            shape
            and len(shape) > 1
            and shape[-1]
            and "float" in str(config.get("dtype", "float32"))
        ):
            axis = UnitAxis(layer, "features", self.map.issue(shape[-1]))
            labels = labels.with_last(axis.ids)
            self.map.freezes.append(
                Freeze("input", axis.ids, "are features of the model's input", layer.path)
            )
            self.map.axes[axis.address] = self.map.record(layer).axes["features"] = axis
        self.map.visits.append(Visit(layer, [], [labels]))
        return labels

    def call(
        self,
        layer: Layer,
        args: list[Any],
        kwargs: dict[str, Any],
        recorded: dict[int, Shape | None],
        graph_call: Call | None = None,
    ) -> Any:
        """Trace one call of one layer, and compare the result of its rule with what the config records."""
        self.map.count_call()
        record = self.map.record(layer)
        layer = record.layer
        if _is_open(args) and not layer.is_operation and layer.is_builtin:
            args = [known_input(layer, args[0], self.kernels)]
        if record.args is None:
            record.args = (args, kwargs)
        rule = self.rules.find(layer)
        call = LayerCall(self, record, args, kwargs, recorded, graph_call)
        known = layer.model is not None or (rule is not None and not layer.calls_function)
        if call.constants and known:
            # A layer knows tensors only: an array that it is called on is one.
            made = [call.as_tensor(array) for array in call.constants]
            args, kwargs = map_leaves(call.made_tensor, args), map_leaves(call.made_tensor, kwargs)
            call = LayerCall(self, record, args, kwargs, recorded, graph_call)
            call.made = made
        ties, frozen = len(self.map.ties), len(self.map.freezes)
        if layer.model is not None and rule is None:
            outputs = self.run(layer.model, call.xs)
            record.answer = "model"
        elif rule is None or (rule.code and self.rules.code_tracer is not None):
            outputs = self._without_rule(call, rule)
        else:
            record.answer, record.values = rule.does, rule.values
            outputs = self._by_rule(call, rule)
        if layer.kind == "Lambda" and layer.is_builtin:
            follow_declared(call, outputs)
        outputs = _checked(call, outputs)
        if layer.model is None or rule is not None:
            _freeze_lost(call, outputs, self.map.freezes[frozen:])
        if (rule is not None or call.made) and not record.opaque:
            flat = [leaf for leaf in leaves(outputs) if isinstance(leaf, Labels)]
            freeze_unclaimed(call, flat, self.map.ties[ties:] if call.made else ())
        if layer.model is None or rule is not None:
            outputs = _apart(outputs, call.xs)
        visit = Visit(
            layer,
            call.xs,
            [item for item in leaves(outputs) if isinstance(item, Labels)],
            of_model=layer.model is not None and rule is None,
        )
        record.visits.append(visit)
        self.map.visits.append(visit)
        return outputs

    def _by_rule(self, call: LayerCall, rule: Rule) -> Any:
        """Run a rule; what it cannot tell is opaque, a config without what Keras requires is damage.

        One of kprune's own rules that fails on anything else was not written for this call: that is
        no reason to refuse the file, which plain Keras may well load.
        """
        if not rule.builtin:
            return _by_own_rule(call, rule)
        try:
            return _few_axes(rule.function(call))
        except CannotTell as reason:
            return call.opaque(f"{call.layer.path!r} {reason}")
        except _FAULTS as error:
            text = f"{type(error).__name__}: {clean(str(error))}"
            if _lacks_required(call, error):
                raise damaged_config(call.layer, text) from error
            return call.opaque(
                f"{call.layer.path!r} is used in a way that kprune's rule for {clean(call.kind)} "
                f"does not know ({text})",
                UNFORESEEN,
            )

    def _without_rule(self, call: LayerCall, rule: Rule | None) -> Any:
        """A layer without a rule is opaque, unless its code may be run to see what it does.

        Args:
            rule: for a layer that is code, what answers if that cannot be traced.
        """
        code_tracer = self.rules.code_tracer
        do = self.rules.what_to_do(call.layer)
        if call.layer.is_operation:
            return call.opaque(self.rules.why_not(call.layer), do)
        if rule is None and call.layer.is_builtin:
            return call.opaque(self.rules.why_not(call.layer), do or RULE)
        if code_tracer is None:
            why = self.rules.why_not(call.layer)
            return call.opaque(why, do or (TRUST if self.rules.traceable else RULE))
        from kprune.tracing.code_graph import Untraceable
        from kprune.tracing.traced_code import TracedLayer

        try:
            call.traced = True
            return TracedLayer(self, call, code_tracer).trace()
        except Untraceable as reason:
            call.traced = False
            if rule is not None:
                call.untraced = str(reason)
                return self._by_rule(call, rule)
            kind = clean(call.layer.registered or call.layer.kind)
            return call.opaque(f"{call.layer.path!r} is a {kind} layer, {reason}")


def _lacks_required(call: LayerCall, error: Exception) -> bool:
    """Whether a rule failed for want of a config entry without which Keras makes no such layer."""
    (key,) = error.args if isinstance(error, KeyError) and len(error.args) == 1 else (None,)
    return not call.layer.is_operation and key in REQUIRED and key not in call.layer.config


def _by_own_rule(call: LayerCall, rule: Rule) -> Any:
    """Run a rule of the user's, which may raise anything. Raises: UsageError if it does."""
    try:
        return rule.function(call)
    except CannotTell as reason:
        return call.opaque(f"{call.layer.path!r} {reason}")
    except KpruneError:
        raise
    except Exception as error:
        raise UsageError(
            f"the rule for '{clean(rule.name)}' fails",
            where=f"layer '{clean(call.layer.path)}'",
            why=f"{type(error).__name__}: {clean(str(error), 300)}",
            do=f"check the rule in {clean(rule.source, 300)}",
        ) from error


def _few_axes(outputs: Any) -> Any:
    """What a rule gives. Raises: CannotTell for a tensor of more axes than there can be."""
    most = max((leaf.rank for leaf in leaves(outputs) if isinstance(leaf, Labels)), default=0)
    if most > MOST_AXES:
        raise CannotTell(f"gives a tensor of {most} axes")
    return outputs


def _of_two_axes(model: Model, call: Call, x: Labels) -> Labels:
    """What a Dense is called on, with two axes where their number is unknown and does not matter."""
    open_ended = x.shape is None and call.layer.is_builtin
    return (
        x.with_shape((None, None)) if open_ended and only_last_axis(model, call.layer.name) else x
    )


def _is_open(args: list[Any]) -> bool:
    """Whether a call is one on a single tensor, of whose shape more than the batch is unknown."""
    if len(args) != 1 or not isinstance(args[0], Labels):
        return False
    return args[0].shape is None or None in args[0].shape[1:]


def _fill_in(leaf: Any, tensors: dict[tuple[str, int, int], Labels]) -> Any:
    if isinstance(leaf, TensorRef):
        return tensors.get(leaf.key, Labels(leaf.shape))
    return leaf


def _checked(call: LayerCall, outputs: Any) -> Any:
    """Compare inferred shapes with recorded ones. Where they differ, all units involved are frozen."""
    flat = [leaf for leaf in leaves(outputs) if isinstance(leaf, Labels)]
    replaced: dict[int, Labels] = {}
    for index, labels in enumerate(flat):
        recorded = call.recorded.get(index)
        if recorded is None or labels.shape == recorded:
            continue
        shape = merged(labels.shape, recorded)
        if shape is None:
            why = f"{call.layer.path!r} gives {recorded} in the config, where kprune expects {labels.shape}"
            for met in (*call.xs, *flat):
                call.freeze(met, why, subject=LAYER)
            replaced[id(labels)] = Labels(recorded)
        elif shape != labels.shape:
            replaced[id(labels)] = labels.with_shape(shape)
    return map_leaves(lambda leaf: replaced.get(id(leaf), leaf), outputs) if replaced else outputs


def _freeze_lost(call: LayerCall, outputs: Any, known: Sequence[Freeze]) -> None:
    """Freeze what meets a layer that gives a tensor of unknown shape: no label can stand in that.

    Args:
        known: what the layer's rule froze by itself.
    """
    flat = [leaf for leaf in leaves(outputs) if isinstance(leaf, Labels)]
    if all(leaf.shape is not None or leaf.numbers is not None for leaf in flat):
        return
    why = f"{call.layer.path!r} gives a tensor of unknown shape, in which no unit can be followed"
    held = [freeze.ids for freeze in known]
    met: list[Labels | Axis] = [*call.xs, *flat, *call.own_units()]
    for one in met:
        ids = one.all_ids()
        call.freeze(ids[~np.isin(ids, np.concatenate(held))] if held else ids, why, subject=LAYER)


def _apart(outputs: Any, inputs: list[Labels]) -> Any:
    """Labels that a layer hands on as they are, in arrays of their own: by these a path tells tensors apart."""
    read = {id(factor) for labels in inputs for factor in labels.factors}

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, Labels) or not any(id(factor) in read for factor in leaf.factors):
            return leaf
        return Labels(leaf.shape, tuple(factor[...] for factor in leaf.factors), leaf.keeps_zero)

    return map_leaves(own, outputs)


def _recorded_shapes(model: Model) -> dict[tuple[str, int, int], Shape | None]:
    """Shapes of tensors as the calls that read them recorded them."""
    shapes: dict[tuple[str, int, int], Shape | None] = {}
    for call in model.calls:
        for ref in call.inputs:
            if ref.shape is not None:
                shapes[ref.key] = ref.shape
        if model.is_sequential or _built_once(call.layer):
            config = call.layer.spec.get("build_config")
            built = as_shape(config.get("input_shape")) if isinstance(config, dict) else None
            # A Keras 2 function may be called on an array first, which then is what it was built on.
            if built and call.args and isinstance(call.args[0], TensorRef):
                shapes.setdefault(call.args[0].key, built)
    return shapes


def _built_once(layer: Layer) -> bool:
    """Whether a layer was called once, in Keras 2's dialect, which records no shape of a tensor."""
    nodes = layer.spec.get("inbound_nodes") or []
    return len(nodes) == 1 and not is_keras3_node(nodes[0])


def _nonzero(ids: np.ndarray) -> np.ndarray:
    return ids[ids != 0]
