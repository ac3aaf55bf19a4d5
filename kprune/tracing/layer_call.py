"""One call of one layer, as a rule sees it: its config, its units, its weights and the layers inside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from kprune.errors import DamagedFileError
from kprune.graph.model import Call, Constant, Layer, Shape, array_at, leaves
from kprune.graph.parse import layer_inside
from kprune.labels.labels import Axis, Labels
from kprune.labels.map import (
    TOKENS,
    Blocks,
    ConfigArray,
    Follow,
    LabelMap,
    LayerRecord,
    Lookup,
    Size,
    UnitAxis,
    Weight,
)
from kprune.labels.sizes import Number
from kprune.text import clean
from kprune.tracing.config_arrays import arrays_in, place_initial
from kprune.tracing.rule_call import CannotTell, Count, RuleCall, all_left

Where = Axis | np.ndarray | int | None


class Tracing(Protocol):
    """What pushes labels through a graph, as a call sees it: see `Tracer`."""

    map: LabelMap
    times: int

    def call(
        self,
        layer: Layer,
        args: list[Any],
        kwargs: dict[str, Any],
        recorded: dict[int, Shape | None],
        graph_call: Call | None = None,
    ) -> Any: ...


class LayerCall(RuleCall):
    """What a rule for a layer, or for a `keras.ops` node, is given.

    Attributes:
        config: of the layer.
        args, kwargs: the call's arguments, with `Labels` in place of tensors; `xs` are all of
            these but masks of time steps. `constants` are the arrays among the arguments, `made`
            the tensors that were made of such.
        kind: class of the layer; that of an operation where a Keras 2 layer is seen as one.
        renamed: see `seen_as`.
        graph_call: the call in the graph; None where a layer inside another is called.
        traced: whether the layer's own code was traced; None if that was not looked up.
        untraced: why it could not be.
    """

    def __init__(
        self,
        tracer: Tracing,
        record: LayerRecord,
        args: list[Any],
        kwargs: dict[str, Any],
        recorded: dict[int, Shape | None],
        graph_call: Call | None,
    ) -> None:
        # A mask of time steps rides along as an argument of its own; no unit stands in it.
        given = {name: value for name, value in kwargs.items() if name != "mask"}
        xs = [leaf for leaf in leaves([args, given]) if isinstance(leaf, Labels)]
        super().__init__(tracer.map, record, xs, recorded)
        self._tracer = tracer
        self.made: list[Labels] = []
        self.constants = [leaf for leaf in leaves([args, kwargs]) if isinstance(leaf, Constant)]
        self.kind = record.layer.kind
        self.renamed: dict[str, str] = {}
        self.config: dict[str, Any] = record.layer.config
        self.args, self.kwargs = args, kwargs
        self.graph_call = graph_call
        self.traced: bool | None = None
        self.untraced = ""
        self._counts: dict[str, int] = {}  # weights so far, by the sub-object that holds them

    def seen_as(
        self,
        kind: str,
        args: list[Any],
        kwargs: dict[str, Any],
        renamed: dict[str, str],
        config: dict[str, Any] | None = None,
    ) -> LayerCall:
        """The same call as the call of a `keras.ops` node, for the rule of that.

        Args:
            kind: class of the node.
            args, kwargs: the arguments that it takes.
            renamed: for the names of its arguments those that the config has.
            config: of the node; by default the layer's own.
        """
        view = copy.copy(self)
        view.kind, view.args, view.kwargs, view.renamed = kind, args, kwargs, renamed
        view.xs = [leaf for leaf in leaves([args, kwargs]) if isinstance(leaf, Labels)]
        view.config = self.config if config is None else config
        return view

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the call, given by position or by name, or from the config of an operation."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, self.config.get(name, default))

    @property
    def in_traced_code(self) -> bool:
        """Whether the call stands in the code of a layer, where tensors may be weights, without a batch."""
        return self._map.outer is not None

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
        ids = self.issue(size if size is not None else self._number_of_units(path), axis)
        self.size(path, Axis.of(ids))
        return ids

    def _number_of_units(self, path: tuple[str | int, ...]) -> int:
        """The config entry that counts the layer's units. Raises: DamagedFileError if it counts nothing."""
        number = _entry(self.config, path)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            name = ".".join(str(part) for part in path)
            raise damaged_config(
                self.layer, f"{name} is {number!r}, which is not a number of units"
            )
        return number

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

    def tokens(self, field: str) -> np.ndarray:
        """Fresh labels for the rows of an embedding; the config field follows what is left of them.

        Returns: int64 (rows,).
        """
        return self.units(field, TOKENS)

    def looked_up(self, tokens: Labels) -> None:
        """Say that a tensor holds numbers of the embedding's rows."""
        self._map.lookups.append(Lookup(self.layer, tokens, self._record.axes[TOKENS]))

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
        size = Size(self.layer, path, _axis(axis))
        known = self._map.counted.setdefault((id(self.config), *path), size)
        if known is size:
            self._map.sizes.append(size)
        elif isinstance(known, Size):
            self.tie_axes((known.axis,), (size.axis,))

    def follow(
        self, field: str | int, value: Callable[..., Any], *axes: Axis, record: Any = None
    ) -> None:
        """Say that a config entry is a function of what is left along some axes.

        Args:
            field: the entry's key in `record` (by default the layer's config).
            value: called with a bool array of survivors for each axis; gives the entry's new value.
        """
        holder = self.config if record is None else record
        follow = Follow(self.layer, holder, field, axes, value)
        known = self._map.counted.setdefault((id(holder), field), follow)
        if self._first:
            self._map.follows.append(follow)
            self._map.spoken.setdefault((id(holder), field), None)
        elif isinstance(known, Follow) and len(known.axes) == len(axes):
            self.tie_axes(known.axes, axes)

    def _rewrite(self, number: Number, axis: Axis, count: Count) -> None:
        if axis.factors:
            record, key = number.at
            self.follow(key, count, axis, record=record)
            if count is all_left:
                self.size_left(axis)

    def rebuilt(self, spec: dict[str, Any], *axes: Axis) -> None:
        """Say that an object in the config was built for sizes along some axes.

        Its build_config goes with them: Keras then builds it when the layer is called.
        """
        if "build_config" in spec:
            self.follow("build_config", lambda *_: None, *axes, record=spec)

    def constant(
        self,
        constant: Constant | tuple[str, ...] | str,
        *axes: Where,
        shape: tuple[int, ...] | None = None,
        initial: bool = False,
    ) -> None:
        """Say which labels stand along the axes of an array that is written into the config.

        An array that is read at several calls, or for several weights, ties what stands along it.

        Args:
            constant: the array, or the field of the layer's config that holds it.
            axes: an entry per axis: labels (Axis or int64 ids), or a size where no unit stands.
            shape, initial: see `ConfigArray`.
        Raises: CannotTell if the config holds no array there.
        """
        if not isinstance(constant, Constant):
            field = constant if isinstance(constant, str) else constant[0]
            found = array_at(self.config, field)
            if found is None:
                raise CannotTell(f"has a {field} that is not an array")
            constant = found
        placed = tuple(_axis(axis) for axis in axes)
        array = ConfigArray(self.layer, constant, placed, shape, initial)
        known = self._map.place(array)
        if known is not array:
            self.tie_axes(known.axes, placed)

    def leave(self, constant: Constant) -> None:
        """Say that no unit stands along any axis of an array that is written into the config."""
        self._map.spoken.setdefault(constant.place, None)

    def as_tensor(self, constant: Constant) -> Labels:
        """An array in the config as a tensor, batch first, with unnamed units along the other axes.

        What it meets is tied to these, so that it is cut too.
        """
        known = self._map.spoken.get(constant.place)
        batch, *sizes = constant.shape or (1,)
        axes = (
            known.axes
            if known is not None
            else [Axis(batch), *(Axis.of(self.anonymous(n)) if n > 1 else Axis(n) for n in sizes)]
        )
        self.constant(constant, *axes)
        tensor = Labels(constant.shape)
        factors = [
            factor
            for number, axis in enumerate(axes)
            if axis.factors
            for factor in tensor.with_axis(number, axis, constant.shape).factors
        ]
        return Labels(constant.shape, tuple(factors), keeps_zero=not constant.value.any())

    def made_tensor(self, argument: Any) -> Any:
        """An argument, with a tensor in place of an array in the config."""
        return self.as_tensor(argument) if isinstance(argument, Constant) else argument

    def blocks(self, field: str, *sides: np.ndarray) -> Any:
        """Say that units come in equal runs: int64 (runs, n) for each side."""
        found = Blocks(self.layer, field, list(sides))
        if self._first:
            self._map.blocks.append(found)
        return found

    @property
    def spoken(self) -> Container[tuple[int, str | int]]:
        """Places in the config for which a rule spoke."""
        return self._map.spoken

    def config_arrays(self) -> Iterator[Constant]:
        """The arrays in the layer's own config, except those of layers inside it; at its first call."""
        if not self._first or self.layer.model is not None:
            return iter(())
        skipped = {id(child.layer.spec) for child in self._record.children.values()}
        return arrays_in(self.config, skipped)

    def own_axes(self) -> Iterator[Axis]:
        """The layer's own units."""
        for axis in self._record.axes.values():
            yield Axis.of(axis.ids)

    def own_units(self) -> Iterator[Axis]:
        """The units of the layer and of the layers inside it, without the rows of embeddings."""
        for record in self._record.whole():
            for axis in record.axes.values():
                if axis.name != TOKENS:
                    yield Axis.of(axis.ids)

    def weight_axes(self) -> Iterator[Axis]:
        """What stands along the axes of the layer's weights, those of layers inside it among them."""
        for record in self._record.whole():
            for weight in record.weights.values():
                yield from weight.axes

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
        merged: bool = False,
        config: dict[str, Any] | None = None,
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
            grouped, scaled, duplicate, merged: see `Weight`.
            config: which says how the weight starts; by default the layer's.
        """
        if not when:
            return
        place: int | str = name
        if not merged:  # those have no number of their own
            place = self._counts.get(at, 0)
            self._counts[at] = place + 1
        key = f"{at}/{name}" if at else name
        placed = tuple(_axis(axis) for axis in axes)
        uses *= self._tracer.times
        place_initial(self, name, placed, self.config if config is None else config, grouped)
        known = self._record.weights.get(key)
        if known is not None:
            self.tie_weight(known, placed)
            known.uses += uses
            return
        group = "/".join(part for part in (self.layer.store, at) if part)
        self._record.weights[key] = Weight(
            self.layer,
            name,
            f"{group}/vars/{place}",
            placed,
            trainable and self.layer.trainable,
            uses,
            flops,
            out,
            also,
            grouped,
            scaled,
            duplicate,
            merged,
        )

    def tie_weight(self, known: Weight, axes: tuple[Axis, ...]) -> None:
        """A shared layer's weights are the same at every call, so what stands along them is tied."""
        self.tie_axes(known.axes, axes)

    def tie_axes(self, known: Sequence[Axis], axes: Sequence[Axis]) -> None:
        """Tie what stands along the axes of one thing that is read twice: a weight, an array, a size.

        Raises: CannotTell if the sizes differ.
        """
        for one, other in zip(known, axes, strict=True):
            if one.plain and other.plain and np.array_equal(one.ids, other.ids):
                continue
            if one.size is None or other.size is None:
                ids = np.concatenate([one.all_ids(), other.all_ids()])
                self.freeze(ids, "are shared between tensors of which one has an unknown size")
            elif one.size != other.size:
                raise CannotTell(f"is called on tensors of {one.size} and of {other.size} channels")
            elif one.plain and other.plain:
                self.tie(one.ids, other)
            elif [f.shape for f in one.factors] == [f.shape for f in other.factors]:
                for a, b in zip(one.factors, other.factors, strict=True):
                    self.tie(a.ravel(), b.ravel())
            else:
                self.freeze(
                    np.concatenate([one.all_ids(), other.all_ids()]),
                    "reach a shared layer in different ways",
                )

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
            layer = self.layer.wrapped
            if layer is None or layer.spec is not spec:
                layer = layer_inside(self.layer, spec, at)
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


def damaged_config(
    layer: Layer, why: str, do: str = "check the file, or report this if plain Keras loads it"
) -> DamagedFileError:
    """The error for a layer whose config does not belong to its class."""
    return DamagedFileError(
        f"the config of layer '{clean(layer.path)}' is not that of a {clean(layer.kind)}",
        why=clean(why),
        do=do,
    )


def _axis(where: Where) -> Axis:
    if isinstance(where, Axis):
        return where
    if isinstance(where, np.ndarray):
        return Axis.of(where)
    return Axis(None if where is None else int(where))


def _entry(config: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    value: Any = config
    for part in path:
        value = value[part]
    return value
