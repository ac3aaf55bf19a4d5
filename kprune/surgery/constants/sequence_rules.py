"""Recurrent layers and attention: when their units are constant, and what they sum over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kprune.elementwise.written import activation_formula
from kprune.graph.model import Layer
from kprune.surgery.constants.constant_units import ConstantUnits, joined
from kprune.surgery.constants.summing_kernels import BiasTarget, Kernel
from kprune.surgery.constants.summing_rules import NO_BIAS, row_values, same
from kprune.surgery.constants.walk import Constants, LayerVisit, Tensor, rule

# -- recurrent layers ----------------------------------------------------------------------------


@rule("SimpleRNN", "LSTM", "GRU")
def recurrent(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    """A unit gives 0 at every step if what it would take up is 0: its column of the candidate gate."""
    kernel, inner = at.weight("cell/kernel"), at.weight("cell/recurrent_kernel")
    bias_weight = at.weight("cell/bias")
    if kernel is None or inner is None or kernel.axes[0].size is None or at.x.labels.varies(1):
        return walk.otherwise(at)
    units = inner.axes[0].ids
    width, kind = len(units), at.layer.kind
    given = row_values(at.x.labels.last, at.x)
    room = BiasTarget(why=f"'{at.layer.path}' has no bias that could absorb a constant")
    rows = np.zeros((1, kernel.axes[1].size or 0))
    if bias_weight is not None:
        rows = np.atleast_2d(walk.read(bias_weight.path).astype(np.float64))
        two = len(bias_weight.axes) == 2
        room = BiasTarget([(bias_weight.path, _first_row if two else same)])
    found = walk.site(at, Kernel(kernel, (0,), (1,)), given, room)
    # The candidate: the third gate of an LSTM and of a GRU, all there is of a SimpleRNN.
    gate = slice(0, width) if kind == "SimpleRNN" else slice(2 * width, 3 * width)
    own = walk.read(inner.path)
    alone = (
        ~found.varying[gate] & ~(own[:, gate] != 0).any(axis=0) & (rows[1:, gate] == 0).all(axis=0)
    )
    function = activation_formula(at.config.get("activation"))
    made = np.full(width, np.nan)
    if function is not None:
        taken = function(found.constant[gate] + rows[0, gate])
        always_zero = alone & (taken == 0) & (len(at.xs) == 1)
        if kind == "LSTM":
            always_zero &= function(np.zeros(1))[0] == 0
        made[always_zero] = 0.0
        if kind == "SimpleRNN" and not _masks(walk):
            # Every step gives act(bias), the first one too.
            made = np.where(alone, taken, made)
    known = ConstantUnits.of(units, made)
    walk.make([inner.axes[0]], known)
    # The state before the first step is 0: any other constant is not constant for the recurrent kernel.
    never = BiasTarget(
        why=f"the state of '{at.layer.path}' is 0 before the first step, and their constant after"
    )
    walk.site(at, Kernel(inner, (0,), (1,)), made, never)
    return [known] * max(len(at.outputs), 1)


def _first_row(shift: np.ndarray) -> np.ndarray:
    """GRU with reset_after: the first row is added to what the input gives."""
    return np.stack([shift, np.zeros_like(shift)])


def _masks(walk: Constants) -> bool:
    """Whether a layer may mask time steps, in which recurrent layers repeat themselves."""

    def masks(layer: Layer) -> bool:
        return layer.kind == "Masking" or bool(layer.config.get("mask_zero"))

    return any(masks(record.layer) for record in walk.analysis.map.records.values())


# -- attention -----------------------------------------------------------------------------------


@rule("MultiHeadAttention")
def multi_head_attention(walk: Constants, at: LayerVisit) -> list[ConstantUnits]:
    named = dict(zip(("query", "value", "key"), at.args, strict=False))
    named.update(
        {name: value for name, value in at.kwargs.items() if name in ("query", "value", "key")}
    )
    given = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    extra = [x for x in at.xs if all(x is not value for value in given.values())]
    gated = at.config.get("use_gate")
    if "query" not in given or "value" not in given or extra or gated:
        return walk.otherwise(at)
    given.setdefault("key", given["value"])
    if any(
        x.labels.shape is None or x.labels.rank != 3 or x.labels.varies(1) for x in given.values()
    ):
        return walk.otherwise(at)
    inner: dict[str, np.ndarray] = {}
    for name in ("query", "key", "value"):
        kernel, bias = at.weight(f"{name}_dense/kernel"), at.weight(f"{name}_dense/bias")
        if kernel is None or kernel.axes[0].size is None:
            return walk.otherwise(at)
        room = BiasTarget(
            why=f"the {name} projection of '{at.layer.path}' has no bias to absorb a constant"
        )
        added: np.ndarray | float = 0.0
        shape = (kernel.axes[1].size or 0, kernel.axes[2].size or 0)
        if bias is not None:
            room = BiasTarget([(bias.path, _reshaped(shape))])
            added = walk.read(bias.path).astype(np.float64).ravel()
        values = row_values(given[name].labels.last, given[name])
        found = walk.site(at, Kernel(kernel, (0,), (1, 2)), values, room)
        inner[name] = np.where(found.varying, np.nan, found.constant + added).reshape(shape)
    heads, dims = at.record.axes["heads"].ids, at.record.axes["key_dim"].ids
    walk.summing_kernels[f"{at.layer.path}: scores"] = Scores(
        at.layer.path, heads, dims, inner["query"], inner["key"]
    )
    output, bias = at.weight("output_dense/kernel"), at.weight("output_dense/bias")
    assert output is not None
    room = (
        BiasTarget([(bias.path, same)])
        if bias is not None
        else BiasTarget(why=f"'{at.layer.path}' {NO_BIAS}")
    )
    # Attention weights add up to 1, so a value that is the same at every step passes as it is.
    found = walk.site(at, Kernel(output, (0, 1), (2,)), inner["value"].ravel(), room)
    sums = found.constant + (0.0 if bias is None else walk.read(bias.path).astype(np.float64))
    known = joined([(output.axes[2].ids, np.where(found.varying, np.nan, sums))])
    walk.make([output.axes[2]], known)
    return [known]


def _reshaped(shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda shift: shift.reshape(shape)


class Scores:
    """Where query and key are multiplied and summed over a head's dimensions; one of the summing_kernels."""

    def __init__(
        self, at: str, heads: np.ndarray, dims: np.ndarray, query: np.ndarray, key: np.ndarray
    ) -> None:
        self.at, self.heads, self.dims = at, heads, dims
        self._missed = ~((query == 0) | (key == 0))  # (heads, dims)
        self.values = np.full(len(dims), np.nan)
        self.padded = np.zeros(len(dims), bool)
        self.room = BiasTarget()

    def in_the_way(self, gone: np.ndarray) -> np.ndarray:
        missed = self._missed[~gone[self.heads]].any(axis=0)
        return np.flatnonzero(gone[self.dims] & missed)

    def labels_at(self, rows: np.ndarray) -> np.ndarray:
        return self.dims[rows]

    def share(self, read: object, gone: np.ndarray) -> None:
        return None
