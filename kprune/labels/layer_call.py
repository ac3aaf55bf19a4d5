"""One call of one layer, as a rule sees it: what comes in, and how to say what the layer does with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kprune.errors import DamagedFileError
from kprune.graph.model import Call, Constant, Layer, Shape, leaves
from kprune.graph.parse import make_layer, nested_model
from kprune.labels.combine import combine
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import (
    Blocks,
    ConfigArray,
    Follow,
    Freeze,
    LayerRecord,
    Mix,
    Size,
    Tie,
    UnitAxis,
    Weight,
)
from kprune.sets import distinct
from kprune.text import clean

if TYPE_CHECKING:
    from kprune.labels.trace import Tracer

Where = Axis | np.ndarray | int | None


class CannotTell(Exception):
    """Raised by a rule (or on its way) that cannot say what becomes of the labels; the reason is its text."""


class LayerCall:
    """What a rule is given.

    Attributes:
        layer: the layer; `config` is its config.
        args, kwargs: the call's arguments, with `Labels` in the place of tensors.
        kind: class of the layer; that of an operation where a Keras 2 layer is seen as one.
        renamed: see `seen_as`.
        xs: every Labels among them but masks of time steps; `x` is the first.
    """

    def __init__(
        self,
        tracer: Tracer,
        record: LayerRecord,
        args: list[Any],
        kwargs: dict[str, Any],
        recorded: dict[int, Shape | None],
        graph_call: Call | None,
    ) -> None:
        self._tracer, self._map, self._record = tracer, tracer.map, record
        self.layer: Layer = record.layer
        self.kind = record.layer.kind
        self.renamed: dict[str, str] = {}
        self.config: dict[str, Any] = record.layer.config
        self.args, self.kwargs = args, kwargs
        self.recorded = recorded
        self.graph_call = graph_call
        # A mask of time steps rides along as an argument of its own; no unit stands in it.
        given = {name: value for name, value in kwargs.items() if name != "mask"}
        self.xs = [leaf for leaf in leaves([args, given]) if isinstance(leaf, Labels)]
        self._counts: dict[str, int] = {}

    @property
    def x(self) -> Labels:
        if not self.xs:
            raise CannotTell("is called on no tensor")
        return self.xs[0]

    def seen_as(
        self, kind: str, args: list[Any], kwargs: dict[str, Any], renamed: dict[str, str]
    ) -> LayerCall:
        """The same call as the call of a `keras.ops` node, for the rule of that.

        Args:
            kind: class of the node.
            args, kwargs: the arguments that it takes.
            renamed: for the names of its arguments those that the config has.
        """
        view = copy.copy(self)
        view.kind, view.args, view.kwargs, view.renamed = kind, args, kwargs, renamed
        return view

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the call, given by position or by name, or from the config of an operation."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, self.config.get(name, default))

    def shape(self, labels: Labels | None = None) -> Shape:
        """The shape of a tensor (by default the first).

        Raises: CannotTell if it is not known.
        """
        shape = (labels or self.x).shape
        if shape is None:
            raise CannotTell("is called on a tensor of unknown shape")
        return shape

    # -- units ----------------------------------------------------------------------------------

    def units(
        self, field: str | tuple[str | int, ...], axis: str = "units", *, size: int | None = None
    ) -> np.ndarray:
        """Fresh labels for the layer's own units; the config field follows what is left of them.

        Args:
            field: the config entry that holds their number.
            axis: the name under which users address them; `units` needs no name.
            size: their number, if it is not the field's value.
        Returns: int64 (units,), the same ones at every call of a shared layer.
        """
        path = (field,) if isinstance(field, str) else field
        ids = self.issue(size if size is not None else int(_entry(self.config, path)), axis)
        self.size(path, Axis.of(ids))
        return ids

    def issue(self, size: int, axis: str = "units", *, default: bool | None = None) -> np.ndarray:
        """Fresh labels with no config entry of their own."""
        known = self._record.axes.get(axis)
        if known is not None:
            return known.ids
        new = UnitAxis(
            self.layer, axis, self._map.issue(size), axis == "units" if default is None else default
        )
        self._record.axes[axis] = new
        self._map.axes[new.address] = new
        return new.ids

    def adopt(self, axis: str, ids: np.ndarray) -> None:
        """Make units of the layers inside this one its own: users know them by this layer's name."""
        for child in self._record.children.values():
            for held in child.axes.values():
                self._map.axes.pop(held.address, None)
        if axis not in self._record.axes:
            new = UnitAxis(self.layer, axis, ids, axis == "units")
            self._record.axes[axis] = self._map.axes[new.address] = new

    def size(self, field: str | tuple[str | int, ...], axis: Axis | np.ndarray) -> None:
        """Say that a number in the config counts positions along an axis."""
        path = (field,) if isinstance(field, str) else field
        if self._first:
            self._map.sizes.append(Size(self.layer, path, _axis(axis)))

    def size_left(self, axis: Axis | np.ndarray) -> None:
        """Say that something must be left along an axis."""
        if self._first:
            self._map.sizes.append(Size(self.layer, (), _axis(axis)))

    def follow(
        self, field: str | int, value: Callable[..., Any], *axes: Axis, record: Any = None
    ) -> None:
        """Say that a config entry is a function of what is left along some axes.

        Args:
            field: the entry's key in `record` (by default the layer's config).
            value: called with a bool array of survivors for each axis; gives the entry's new value.
        """
        if self._first:
            holder = self.config if record is None else record
            self._map.follows.append(Follow(self.layer, holder, field, axes, value))

    def rebuilt(self, spec: dict[str, Any], *axes: Axis) -> None:
        """Say that an object in the config was built for sizes along some axes.

        Its build_config goes with them: Keras then builds it when the layer is called.
        """
        if "build_config" in spec:
            self.follow("build_config", lambda *_: None, *axes, record=spec)

    def constant(self, constant: Constant | tuple[str, ...] | str, *axes: Where) -> None:
        """Say which labels stand along the axes of an array that is written into the config."""
        if not self._first:
            return
        if isinstance(constant, Constant):
            record, key = constant.record["config"], "value"
        else:
            record, key = self.config, constant if isinstance(constant, str) else constant[0]
            if isinstance(record[key], dict):
                record, key = record[key]["config"], "value"
        self._map.arrays.append(
            ConfigArray(self.layer, record, key, tuple(_axis(axis) for axis in axes))
        )

    @property
    def _first(self) -> bool:
        return not self._record.visits

    # -- weights --------------------------------------------------------------------------------

    def weight(
        self,
        name: str,
        *axes: Where,
        when: bool = True,
        trainable: bool = True,
        uses: float = 0.0,
        flops: float = 2.0,
        out: int | None = None,
        also: tuple[int, ...] = (),
        at: str = "",
        grouped: Any = None,
        scaled: int | None = None,
        duplicate: bool = False,
    ) -> None:
        """Say which labels stand along each axis of one of the layer's weights, in Keras's order of creation.

        Args:
            name: Keras's name.
            axes: an entry per axis: labels (Axis or int64 ids), or a size where no unit stands.
            when: whether the layer has this weight at all.
            trainable: whether training changes it.
            uses: how often each element is used per sample.
            flops: operations per use: 2 for a product that is summed, 1 for a sum.
            out: the axis of the units that it makes, from 0; `also` are further ones.
            at: the sub-object that holds it (`cell`), "" for the layer itself.
            grouped, scaled, duplicate: see `Weight`.
        """
        if not when:
            return
        index = self._counts.get(at, 0)
        self._counts[at] = index + 1
        key = f"{at}/{name}" if at else name
        placed = tuple(_axis(axis) for axis in axes)
        uses *= self._tracer.times
        known = self._record.weights.get(key)
        if known is not None:
            self.tie_weight(known, placed)
            known.uses += uses
            return
        group = "/".join(part for part in (self.layer.store, at) if part)
        self._record.weights[key] = Weight(
            self.layer,
            name,
            f"{group}/vars/{index}",
            placed,
            trainable and self.layer.trainable,
            uses,
            flops,
            out,
            also,
            grouped,
            scaled,
            duplicate,
        )

    def tie_weight(self, known: Weight, axes: tuple[Axis, ...]) -> None:
        """A shared layer's weights are the same at every call, so what stands along them is tied."""
        for one, other in zip(known.axes, axes, strict=True):
            if one.size is None or other.size is None:
                ids = np.concatenate([one.all_ids(), other.all_ids()])
                self.freeze(ids, "is shared between tensors of which one has an unknown size")
            elif one.size != other.size:
                raise CannotTell(f"is called on tensors of {one.size} and of {other.size} channels")
            elif one.plain and other.plain:
                self.tie(one.ids if one.factors else np.zeros(one.size, np.int64), other)
            elif [f.shape for f in one.factors] == [f.shape for f in other.factors]:
                for a, b in zip(one.factors, other.factors, strict=True):
                    self.tie(a.ravel(), b.ravel())
            else:
                self.freeze(
                    np.concatenate([one.all_ids(), other.all_ids()]),
                    "reach a shared layer by different roads",
                )

    # -- what happens to units ------------------------------------------------------------------

    def tie(self, a: Axis | np.ndarray, b: Axis | np.ndarray) -> None:
        """Say that units stay or go as one, pair by pair. One without a partner is frozen."""
        one, other = _ids(a), _ids(b)
        if one is other:
            return
        paired = (one != 0) & (other != 0)
        if paired.any():
            self._map.ties.append(Tie(one[paired], other[paired], self.layer.path))
        lonely = np.concatenate([one[~paired], other[~paired]])
        if lonely.any():
            self.freeze(lonely, f"meet positions in {self.layer.path!r} where no unit stands")

    def freeze(self, what: Labels | Axis | np.ndarray, why: str, do: str = "") -> None:
        """Say that units cannot go. `why` continues a sentence whose subject is this layer or the units."""
        ids = what.all_ids() if isinstance(what, (Labels, Axis)) else what.ravel()
        ids = ids[ids != 0]
        if ids.size:
            self._map.freezes.append(Freeze("rule", distinct(ids), why, self.layer.path, do))

    def hold_axes(self, x: Labels, axes: Iterable[int], why: str) -> Labels:
        """Say that the sizes along some axes must stay: the layer slides or folds along them.

        Units that stand along these axes alone are frozen. Units that stand along others as well are
        tied across these: they can go where the whole of such a slice goes.

        Args:
            axes: of `x`, from 0.
            why: continues a sentence whose subject is the units.
        Returns: the tensor, with nothing labelled along these axes.
        """
        held = {axis % x.rank for axis in axes} if x.shape is not None else set()
        if not any(x.varies(axis) for axis in held):
            return x
        factors = []
        for factor in x.factors:
            support = set(x.support(factor))
            if not support & held:
                factors.append(factor)
            elif support <= held:
                self.freeze(factor, why)
            else:
                first = factor[
                    tuple(slice(0, 1) if axis in held else slice(None) for axis in range(x.rank))
                ]
                self.tie(np.broadcast_to(first, factor.shape).ravel(), factor.ravel())
                factors.append(first)
        return Labels(x.shape, tuple(factors), x.silent)

    def collapse(self, x: Labels, axes: Iterable[int]) -> Labels:
        """The labels of a tensor of which some axes were brought down to size 1.

        Units that stood along these axes alone end here. Where units stood along others as well, a
        position that is left goes when all the units that stood there go.
        """
        gone = sorted({axis % x.rank for axis in axes})
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(self.shape(x)))
        factors = []
        for factor in x.factors:
            support = [axis for axis, extent in enumerate(factor.shape) if extent > 1]
            if not support:
                if not set(x.support(factor)) & set(gone):
                    factors.append(factor)
                continue
            left = [axis for axis in support if axis not in gone]
            if len(left) == len(support):
                factors.append(factor)
            elif left:
                order = [*left, *(axis for axis in range(x.rank) if axis not in left)]
                members = factor.transpose(order).reshape(
                    int(np.prod([factor.shape[axis] for axis in left])), -1
                )
                extents = [factor.shape[axis] if axis in left else 1 for axis in range(x.rank)]
                factors.append(self._map.derive(np.ascontiguousarray(members)).reshape(extents))
        return Labels(shape, tuple(factors), x.silent)

    def anonymous(self, size: int) -> np.ndarray:
        """Fresh labels that nobody can name: positions that are filled in, such as padding. int64 (size,)."""
        return self._map.issue(size)

    def mix(self, what: Labels | Axis | np.ndarray, why: str) -> None:
        """Say that a statistic is taken over units, so that removing one changes what the others give."""
        ids = what.all_ids() if isinstance(what, (Labels, Axis)) else what.ravel()
        ids = ids[ids != 0]
        if ids.size:
            self._map.mixes.append(Mix(distinct(ids), why, self.layer.path))

    def blocks(self, field: str, *sides: np.ndarray) -> Any:
        """Say that units come in equal runs: int64 (runs, n) for each side."""
        found = Blocks(self.layer, field, list(sides))
        if self._first:
            self._map.blocks.append(found)
        return found

    def opaque(self, why: str, do: str = "") -> Labels | list[Labels]:
        """Freeze what comes in and the layer's own units. What comes out has none; its shape is as recorded."""
        for x in self.xs:
            self.freeze(x, why, do)
        # A rule may give up after it issued units: what reads them does not know them either.
        for record in self._record.whole():
            for held in record.axes.values():
                self.freeze(held.ids, why, do)
        self._record.opaque = why
        self._record.answer = self._record.answer or "opaque"
        known = [index for index, shape in self.recorded.items() if shape is not None]
        outputs = [Labels(self.recorded.get(index)) for index in range(max(known, default=0) + 1)]
        return outputs[0] if len(outputs) == 1 else outputs

    # -- combining ------------------------------------------------------------------------------

    def combine(self, operands: Sequence[Labels]) -> Labels:
        """The labels of an element-wise function of several tensors, whose units are tied position by position."""
        if any(operand.shape is None for operand in operands):
            for operand in operands:
                self.freeze(operand, "is combined with a tensor of unknown shape")
            return Labels(self.recorded.get(0))
        try:
            combined = combine(operands, self._map.derive)
        except ValueError as error:
            raise CannotTell(str(error)) from error
        for a, b in combined.ties:
            self.tie(a.ravel(), b.ravel())
        for ids in combined.stuck:
            self.freeze(
                ids,
                f"meet positions in {self.layer.path!r} where the other operand has no unit that could go with them",
            )
        return combined.labels

    # -- layers inside a layer ------------------------------------------------------------------

    def inner(
        self,
        spec: dict[str, Any],
        at: str,
        x: Labels,
        *,
        more: Sequence[Labels] = (),
        times: int = 1,
    ) -> Any:
        """Trace a layer that this layer holds (what a wrapper wraps).

        Args:
            spec: the inner layer's dict in the config.
            at: the attribute that holds it, which names its weights' group: `layer`, `forward_layer`.
            x: what it is called on; `more` are further tensors (states).
            times: how often it runs per sample.
        Returns: what its rule returns.
        """
        child = self._record.children.get(at)
        if child is None:
            name = spec.get("name") or spec["config"].get("name", at)
            layer = make_layer(str(name), spec, self.layer.path + "/")
            layer.store = f"{self.layer.store}/{at}"
            layer.trainable = (
                self.layer.trainable and layer.config.get("trainable", True) is not False
            )
            if "layers" in layer.config and isinstance(layer.config["layers"], list):
                layer.model = nested_model(layer, layer.trainable)
            child = self._map.record(layer)
            self._record.children[at] = child
        outside = self._tracer.times
        self._tracer.times = outside * times
        try:
            return self._tracer.call(child.layer, [x, *more], {}, {})
        finally:
            self._tracer.times = outside

    def inner_units(self, at: str) -> dict[str, np.ndarray]:
        """The units that a layer inside this one issues, by the name of their axis."""
        return {name: axis.ids for name, axis in self._record.children[at].axes.items()}

    def inner_weight(self, at: str, names: Sequence[str]) -> Weight:
        """A weight of a layer inside this one, by the first of several names that it has."""
        weights = self._record.children[at].weights
        for name in names:
            if name in weights:
                return weights[name]
        raise CannotTell(f"wraps a layer that has no {' or '.join(names)}")

    # -- the door -------------------------------------------------------------------------------

    def apply(self, rule: Any) -> Any:
        """Run a rule; what it cannot tell is opaque, what its config lacks is damage."""
        try:
            return rule.function(self)
        except CannotTell as reason:
            return self.opaque(f"{self.layer.path!r} {reason}")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DamagedFileError(
                f"the config of layer '{clean(self.layer.path)}' is not that of a {clean(self.kind)}",
                why=f"{type(error).__name__}: {clean(str(error))}",
                do="check the file, or report this if plain Keras loads it"
                if rule.builtin
                else f"check the rule in {rule.source}",
            ) from error

    def checked(self, outputs: Any) -> Any:
        """Hold inferred shapes against recorded ones. Where they differ, nothing in sight can go."""
        flat = [item for item in leaves(outputs) if isinstance(item, Labels)]
        replaced: dict[int, Labels] = {}
        for index, labels in enumerate(flat):
            recorded = self.recorded.get(index)
            if recorded is None or labels.shape == recorded:
                continue
            merged = _merge(labels.shape, recorded)
            if merged is None:
                why = f"{self.layer.path!r} gives {recorded} in the config, where kprune expects {labels.shape}"
                for met in (*self.xs, *flat):
                    self.freeze(met, why)
                replaced[id(labels)] = Labels(recorded)
            elif merged != labels.shape:
                replaced[id(labels)] = labels.with_shape(merged)
        if not replaced:
            return outputs
        return _swap(outputs, replaced)


def _swap(structure: Any, replaced: dict[int, Labels]) -> Any:
    if isinstance(structure, (list, tuple)):
        return type(structure)(_swap(item, replaced) for item in structure)
    if isinstance(structure, dict):
        return {key: _swap(item, replaced) for key, item in structure.items()}
    return replaced.get(id(structure), structure)


def _merge(inferred: Shape | None, recorded: Shape) -> Shape | None:
    """The more precise of two shapes of one tensor; None if they contradict each other."""
    if inferred is None:
        return recorded
    if len(inferred) != len(recorded):
        return None
    merged: list[int | None] = []
    for a, b in zip(inferred, recorded, strict=True):
        if a is not None and b is not None and a != b:
            return None
        merged.append(b if a is None else a)
    return tuple(merged)


def _axis(where: Where) -> Axis:
    if isinstance(where, Axis):
        return where
    if isinstance(where, np.ndarray):
        return Axis.of(where)
    return Axis(None if where is None else int(where))


def _ids(where: Axis | np.ndarray) -> np.ndarray:
    if not isinstance(where, Axis):
        return where
    if not where.plain:
        raise CannotTell("ties units that stand along two axes at once")
    return where.ids if where.factors else np.zeros(where.size or 0, np.int64)


def _entry(config: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    value: Any = config
    for part in path:
        value = value[part]
    return value
