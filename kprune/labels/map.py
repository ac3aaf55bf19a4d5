"""What tracing a graph finds: units, weights, and what ties, freezes and mixes them. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.graph.model import Constant, Layer, Model
from kprune.labels.labels import Axis, Labels
from kprune.limits import MODEL_CALLS, MODEL_UNITS, POSITIONS
from kprune.sets import distinct

TOKENS = "tokens"

UNITS, LAYER = "units", "layer"
"""What the reason of a `Freeze` is about."""
"""The name of the axis of an embedding's rows."""


class UnitAxis(Struct, frozen=True, eq=False):
    """The units that one layer issues along one of its axes of units.

    Attributes:
        layer: the layer; a user writes `layer.path`, or `layer.path.name` for an axis other than the default.
        name: `units`, or `heads`, `key_dim`, `value_dim`; `tokens` for the rows of an embedding.
        ids: int64 (n,), the label of each unit in the order in which users count them.
    """

    layer: Layer
    name: str
    ids: np.ndarray
    default: bool = True

    @property
    def address(self) -> str:
        return self.layer.path if self.default else f"{self.layer.path}.{self.name}"

    def __len__(self) -> int:
        return len(self.ids)


class Weight(Struct, eq=False):
    """One tensor of a layer, and which labels stand along each of its axes.

    Attributes:
        layer: whose it is.
        name: Keras's name: `kernel`, `bias`, `gamma` …
        path: dataset path in the weights file.
        axes: one Axis per axis; no factors where no unit stands.
        trainable: whether Keras counts it so (and the optimizer has slots for it).
        uses: how often each element is used per sample: multiply-adds for a kernel.
        flops: floating point operations per use: 2 in a product, 1 in a sum.
        out: which axis holds the units that this weight makes, from 0; None if there is none.
        also: further such axes (a projection of attention makes heads and their dimensions).
        grouped: for a grouped kernel, (axis, inputs): the positions on `axis` stand for
            `inputs.size / groups` inputs of each group.
        scaled: an axis along which the weight is scaled by sqrt(after / before), because the layer
            divides by the square root of that size (the key_dim of attention).
        duplicate: whether the file holds it a second time for a layer that only refers to it; it is
            cut like the first, and not counted.
        merged: whether a `.keras` file has it within another weight (adapters of LoRA, in the kernel):
            Keras makes it anew when the file is loaded. A legacy `.h5` has it like any other.
    """

    layer: Layer
    name: str
    path: str
    axes: tuple[Axis, ...]
    trainable: bool = True
    uses: float = 0.0
    flops: float = 2.0
    out: int | None = None
    also: tuple[int, ...] = ()
    grouped: Blocks | None = None
    scaled: int | None = None
    duplicate: bool = False
    merged: bool = False

    @property
    def shape(self) -> tuple[int | None, ...]:
        return tuple(axis.size for axis in self.axes)

    def makes(self, ids: np.ndarray) -> int | None:
        """The axis along which this weight makes any of these units; None if it makes none of them."""
        for axis in (self.out, *self.also):
            if axis is not None and np.isin(self.axes[axis].all_ids(), ids).any():
                return axis
        return None


def adapted_layers(weights: Iterable[Weight]) -> list[str]:
    """Paths of the layers that have adapters of LoRA."""
    return list(dict.fromkeys(weight.layer.path for weight in weights if weight.merged))


class Size(Struct, eq=False):
    """A number in a config that counts units: `units`, `filters`, an entry of `target_shape`.

    With an empty field it only says that something must be left along the axis.
    """

    layer: Layer
    field: tuple[str | int, ...]
    axis: Axis


class Follow(Struct, eq=False):
    """A value in the config that depends on what is left along some axes: split points, pad widths.

    Attributes:
        record, key: the dict or list in the config, and where in it the value stands.
        value: takes a bool array of survivors for each axis, gives the new value.
    """

    layer: Layer
    record: Any
    key: str | int
    axes: tuple[Axis, ...]
    value: Callable[..., Any]


class ConfigArray(Struct, eq=False):
    """An array in the config that has units along some axes: a constant operand, `mean` of Normalization.

    Attributes:
        layer: whose config it is.
        array: where it stands.
        axes: one Axis per axis, as for a `Weight`.
        shape: that of the weight whose elements it lists, where its own is another (Keras 2 takes a
            Constant of as many numbers as the weight has); None if the axes are its own.
        initial: whether it only says with which values a weight starts before any are loaded.
    """

    layer: Layer
    array: Constant
    axes: tuple[Axis, ...]
    shape: tuple[int, ...] | None = None
    initial: bool = False


class Blocks(Struct, eq=False):
    """Units in equal runs (a grouped convolution's groups): whole runs go, or the same number from each of the others.

    Attributes:
        layer: where; `field` is the config entry that counts the runs.
        sides: int64 (runs, n) each; the inputs' runs and the outputs'.
    """

    layer: Layer
    field: str
    sides: list[np.ndarray]


class Freeze(Struct, eq=False):
    """Units that cannot go.

    Attributes:
        kind: `input`, `output`, `tokens` (rows of an embedding, which go if they are named), or
            `rule` (a layer without a rule, or an impossible situation).
        ids: int64 (n,).
        why: the reason, for messages; see `subject`.
        at: path of the layer where it happens.
        do: what a user can do about it, if it is not what helps with every freeze of the kind.
        subject: `UNITS` if `why` is the rest of a sentence about the units, `LAYER` if it is a whole
            clause about what the layer does to all that reaches it.
    """

    kind: str
    ids: np.ndarray
    why: str
    at: str
    do: str = ""
    subject: str = UNITS


class Mix(Struct, eq=False):
    """Units over which a layer takes a statistic: removing one changes the others.

    Attributes:
        ids: int64 (n,).
        why: the rest of a sentence that starts with the units.
        at: path of the layer where it happens.
        kind: `softmax` where the units share a sum of 1, else `statistic`.
    """

    ids: np.ndarray
    why: str
    at: str
    kind: str = "statistic"


class Tie(Struct, eq=False):
    """Units that stay or go together, pair by pair."""

    a: np.ndarray
    b: np.ndarray
    at: str


class Derived(Struct, eq=False):
    """Labels of positions at which several units stand: gone when all of these units are.

    A head, after the dimensions of its units were summed away, is one.

    Attributes:
        ids: int64 (n,), the labels of the positions; nobody can name them.
        members: int64 (n, m), the units at each.
    """

    ids: np.ndarray
    members: np.ndarray


class Lookup(Struct, eq=False):
    """A call that uses values as numbers of rows.

    Attributes:
        layer: the embedding.
        tokens: the tensor of ids.
        axis: its rows.
    """

    layer: Layer
    tokens: Labels
    axis: UnitAxis


class TokenSource(Struct, eq=False):
    """A layer that token ids come from.

    Attributes:
        layer: an input, or a layer with a vocabulary.
        ids: int64 (n,), the label of each id's row, from id 0 on.
        lookup: whether the layer has a vocabulary.
    """

    layer: Layer
    ids: np.ndarray
    lookup: bool


class Visit(Struct, eq=False):
    """One call, with what went in and what came out: the edges of an explanation."""

    layer: Layer
    inputs: list[Labels]
    outputs: list[Labels]
    of_model: bool = False


class LayerRecord(Struct, eq=False):
    """All that is known of one layer after its calls were traced.

    Attributes:
        answer, values: what its rule says that it does, and what becomes of values; see
            `kprune.tracing.registry.Rule`.
    """

    layer: Layer
    weights: dict[str, Weight] = field(default_factory=dict)
    children: dict[str, LayerRecord] = field(default_factory=dict)
    axes: dict[str, UnitAxis] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    answer: str = ""
    values: str = ""
    opaque: str = ""
    args: tuple[list[Any], dict[str, Any]] | None = None
    held: dict[str, Labels] = field(default_factory=dict)  # labels of a traced layer's weights

    def whole(self) -> Iterator[LayerRecord]:
        """This record and those of all layers inside the layer."""
        yield self
        for child in self.children.values():
            yield from child.whole()


class TracedCall(Struct, eq=False):
    """A call of a layer whose own code was traced as a graph.

    Attributes:
        record: what is known of the layer.
        arguments: of the call, Labels in place of tensors; `described`, shapes and dtypes.
        traced: the graph, as `kprune.tracing.code_graph.TracedCode`.
        map: what tracing it found.
        weights: the layer's weights in Keras's order, those of the layers inside it among them.
    """

    record: LayerRecord
    arguments: tuple[list[Any], dict[str, Any]]
    described: Any
    traced: Any
    map: LabelMap
    weights: list[Weight]


class Several(Struct, frozen=True, eq=False):
    """A layer that needs more than one along axes that had more than one.

    Attributes:
        why: what it does to an axis of size 1, for a message.
    """

    layer: Layer
    axes: tuple[Axis, ...]
    why: str

    def lost(self, gone: np.ndarray) -> bool:
        """Whether only one is left along one of the axes. gone: bool (labels,)."""
        return any(axis.size - int(axis.dead(gone).sum()) == 1 for axis in self.axes if axis.size)


TensorKey = tuple[str, str, int, int]


class LabelMap(Struct, eq=False):
    """What tracing a graph found.

    Attributes:
        model: the graph.
        axes: by the address a user writes, in order of issue.
        records: by layer object.
        tensors: labels of each tensor, by (path of its model, layer, node, index).
        owner: for each label the index of its axis in `axes`; -1 for the label 0.
        lookups: calls that take values for the numbers of rows.
        token_sources: where these values come from (see `kprune.labels.tokens`).
        several: layers that compute something different once a width is 1.
        traced_calls: calls of layers whose own code was traced (see `kprune.tracing.traced_code`).
        spoken: by its place, each value in the config that a rule spoke for; a ConfigArray if it is one.
        counted: by its place, each value in the config that counts units. A layer that is called again
            reads the same values, so what they count is tied.
        count, calls, positions: how many labels there are, the label 0 among them; how many calls were
            traced; how large the labels of all tensors are.
        outer: for the map of such a code, the map of the graph in which the layer stands. Labels,
            ties, freezes and mixes are the same ones; what a config holds is each map's own.
    """

    model: Model
    axes: dict[str, UnitAxis] = field(default_factory=dict)
    records: dict[Layer, LayerRecord] = field(default_factory=dict)
    tensors: dict[TensorKey, Labels] = field(default_factory=dict)
    ties: list[Tie] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    mixes: list[Mix] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    follows: list[Follow] = field(default_factory=list)
    arrays: list[ConfigArray] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    token_sources: list[TokenSource] = field(default_factory=list)
    several: list[Several] = field(default_factory=list)
    traced_calls: list[TracedCall] = field(default_factory=list)
    outer: LabelMap | None = None
    count: int = 1
    calls: int = 0
    positions: int = 0
    spoken: dict[tuple[int, str | int], ConfigArray | None] = field(default_factory=dict)
    counted: dict[tuple[Any, ...], Size | Follow] = field(default_factory=dict)
    _derivations: dict[bytes, Derived] = field(default_factory=dict)

    def within(self, model: Model) -> LabelMap:
        """The map of a graph inside a layer, which knows the same labels."""
        return LabelMap(
            model,
            ties=self.ties,
            freezes=self.freezes,
            mixes=self.mixes,
            derived=self.derived,
            several=self.several,
            outer=self,
            _derivations=self._derivations,
        )

    def whole(self) -> Iterator[LabelMap]:
        """This map and those of all graphs inside its layers."""
        yield self
        for call in self.traced_calls:
            yield from call.map.whole()

    def issue(self, size: int) -> np.ndarray:
        """Fresh labels, int64 (size,). Raises: LimitError for more than any model has units."""
        if self.outer is not None:
            return self.outer.issue(size)
        MODEL_UNITS.check(self.count + size, "it", "the model")
        ids = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return ids

    def count_call(self) -> None:
        """Note that a layer is called. Raises: LimitError if nested models multiply that without end."""
        if self.outer is not None:
            return self.outer.count_call()
        self.calls += 1
        MODEL_CALLS.check(self.calls, "it", "the model")

    def keep(self, key: TensorKey, labels: Labels) -> None:
        """Note the labels of a tensor. Raises: LimitError if those of all tensors are too many."""
        self.tensors.setdefault(key, labels)
        for factor in labels.factors:
            if factor.base is None:  # others are views of what is counted already
                self.positions += factor.size
        POSITIONS.check(self.positions, "it", "the model")

    def derive(self, members: np.ndarray) -> np.ndarray:
        """Labels for positions at which several units stand, int64 (n,); the same for the same members.

        Args:
            members: int64 (n, m).
        """
        key = members.tobytes()
        if key not in self._derivations:
            self._derivations[key] = Derived(self.issue(len(members)), members)
            self.derived.append(self._derivations[key])
        return self._derivations[key].ids

    def tie(self, one: np.ndarray, other: np.ndarray, at: str) -> np.ndarray:
        """Make units stay or go together, pair by pair.

        Args:
            one, other: int64 (n,); 0 where no unit stands.
            at: path of the layer (or the node) where they meet.
        Returns: the units that have no partner.
        """
        paired = (one != 0) & (other != 0)
        if paired.any():
            self.ties.append(Tie(one[paired], other[paired], at))
        lonely = np.concatenate([one[~paired], other[~paired]])
        return lonely[lonely != 0]

    def freeze(
        self, ids: np.ndarray, why: str, at: str, do: str = "", *, subject: str = UNITS
    ) -> None:
        """Freeze units, because a rule says so.

        Args:
            ids: int64; the zeros among them are passed over.
            why, at, do, subject: see `Freeze`.
        """
        ids = distinct(ids[ids != 0])
        if ids.size:
            self.freezes.append(Freeze("rule", ids, why, at, do, subject))

    def place(self, array: ConfigArray) -> ConfigArray:
        """Enter an array of the config. Returns: what was said of it before, or else this."""
        known = self.spoken.get(array.array.place)
        if known is not None:
            return known
        self.spoken[array.array.place] = array
        self.arrays.append(array)
        return array

    def record(self, layer: Layer) -> LayerRecord:
        """The record of a layer; a layer that is in two models has one record."""
        layer = layer.twin or layer
        if layer not in self.records:
            self.records[layer] = LayerRecord(layer)
        return self.records[layer]

    def weights(self) -> list[Weight]:
        """Every weight, in the order of `model.weights` as the optimizer sees it."""
        result: list[Weight] = []
        seen: set[str] = set()

        def collect(record: LayerRecord) -> None:
            for weight in record.weights.values():
                if weight.path not in seen:
                    seen.add(weight.path)
                    result.append(weight)
            for child in record.children.values():
                collect(child)
                if child.layer.model is not None:
                    walk(child.layer.model)

        def walk(model: Model) -> None:
            for layer in model.layers.values():
                if layer in self.records:
                    collect(self.records[layer])
                if layer.model is not None:
                    walk(layer.model)

        walk(self.model)
        return result
