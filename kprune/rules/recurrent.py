"""Recurrent layers (keras/src/layers/rnn). Each gate has the units once more, side by side on the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.elementwise.written import Written
from kprune.graph.order import storage_names
from kprune.labels.labels import Axis, Labels
from kprune.rules.activations import elementwise_activation
from kprune.rules.shapes import channel_axis, ints, positions, replaced, spatial_axes, window
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


@LAYERS.rule(
    "SimpleRNN", does="issues", note="units: kernel (input, units), recurrent_kernel (units, units)"
)
def simple_rnn(call: LayerCall) -> Any:
    return recurrent(call, gates=1, states=1)


@LAYERS.rule(
    "LSTM",
    does="issues",
    note="units: four gates side by side; a unit's columns in each, its recurrent row",
)
def lstm(call: LayerCall) -> Any:
    return recurrent(call, gates=4, states=2)


@LAYERS.rule(
    "GRU", does="issues", note="units: three gates; reset_after=True gives the bias two rows"
)
def gru(call: LayerCall) -> Any:
    # GRUCell.build: with reset_after the input bias and the recurrent bias are kept apart, one row each.
    return recurrent(
        call, gates=3, states=1, bias_rows=2 if call.config.get("reset_after", True) else 1
    )


def recurrent(call: LayerCall, gates: int, states: int, bias_rows: int = 1) -> Any:
    """A recurrent layer over axis 1.

    Args:
        gates: how many times the units stand on the kernels' last axis.
        states: how many tensors of (batch, units) are carried from step to step.
        bias_rows: rows of the bias, if more than one.
    Returns: the output, and the final states after it if return_state is set.
    """
    config = call.config
    activation = _activations(config)
    shape = call.shape()
    if len(shape) != 3:
        raise CannotTell(f"is called on a tensor of shape {shape}")
    sequence = call.keep_axes_whole(
        call.x, [1], f"stand along the time axis of {call.layer.path!r}"
    )
    units = call.units("units")
    columns = Axis.of(np.tile(units, gates))
    steps = shape[1] or 1
    call.weight("kernel", sequence.last, columns, uses=steps, out=1, at="cell")
    call.weight("recurrent_kernel", units, columns, uses=steps, out=1, at="cell")
    bias = (bias_rows, columns) if bias_rows > 1 else (columns,)
    call.weight(
        "bias",
        *bias,
        when=config.get("use_bias", True),
        uses=steps,
        flops=1,
        out=len(bias) - 1,
        at="cell",
    )
    state = Labels((shape[0], len(units)), (units[None, :],))
    for initial in call.xs[1 : 1 + states]:
        # The state passed in is added to, gated with and replaced by the layer's own, unit by unit.
        if initial.rank == 2:
            call.combine([state, initial])
        else:
            call.freeze(initial, f"are passed to {call.layer.path!r} as a state of another rank")
    state = state.with_keeps_zero(activation.keeps_zero)
    if config.get("return_sequences"):
        output = Labels((shape[0], shape[1], len(units)), (units[None, None, :],), state.keeps_zero)
    else:
        output = state
    return [output, *[state] * states] if config.get("return_state") else output


CELLS = {"SimpleRNNCell": (1, 1), "LSTMCell": (4, 2), "GRUCell": (3, 1)}


@LAYERS.rule("RNN", does="issues")
def rnn(call: LayerCall) -> Any:
    """units: those of the last cell; cells stacked below have theirs as .cell_0, .cell_1 …"""
    config = call.config
    shape = call.shape()
    if len(shape) != 3 or len(call.xs) > 1:
        raise CannotTell("is called with states of its own, or on a tensor that is not a sequence")
    spec = config["cell"]
    stacked = spec["class_name"] == "StackedRNNCells"
    cells = spec["config"]["cells"] if stacked else [spec]
    stores = (
        [f"cell/cells/{name}" for name in storage_names(cell["class_name"] for cell in cells)]
        if stacked
        else ["cell"]
    )
    x = call.keep_axes_whole(call.x, [1], f"stand along the time axis of {call.layer.path!r}").last
    fed = x
    outputs, states = np.zeros(0, np.int64), []
    keeps_zero = True
    for number, (cell, store) in enumerate(zip(cells, stores, strict=True)):
        last = number == len(cells) - 1
        outputs, count, keeps_zero = _cell(
            call, cell, store, x, shape[1] or 1, "units" if last else f"cell_{number}"
        )
        states.append([Labels((shape[0], len(outputs)), (outputs[None, :],), keeps_zero)] * count)
        call.rebuilt(cell, x, Axis.of(outputs))
        x = Axis.of(outputs)
    if stacked:
        call.rebuilt(spec, fed)
    state = states[-1][0]
    if config.get("return_sequences"):
        output = Labels((shape[0], shape[1], len(outputs)), (outputs[None, None, :],), keeps_zero)
    else:
        output = state
    if not config.get("return_state"):
        return output
    return [output, *(states if stacked else states[0])]


def _cell(
    call: LayerCall, spec: dict[str, Any], at: str, x: Axis, steps: int, name: str
) -> tuple[np.ndarray, int, bool]:
    """One cell: its units, how many states it has, and whether a masked unit gives 0."""
    kind, config = spec["class_name"], spec["config"]
    own = spec.get("module", "") in ("", "keras") or str(spec.get("module")).startswith("keras.")
    if kind not in CELLS or not own:
        raise CannotTell(f"runs a cell of class {kind}, for which kprune has no rule")
    activation = _activations(config)
    gates, states = CELLS[kind]
    units = call.issue(int(config["units"]), name)
    call.follow("units", lambda alive: int(alive.sum()), Axis.of(units), record=config)
    columns = Axis.of(np.tile(units, gates))
    call.weight("kernel", x, columns, uses=steps, out=1, at=at, config=config)
    call.weight("recurrent_kernel", units, columns, uses=steps, out=1, at=at, config=config)
    rows = (2, columns) if kind == "GRUCell" and config.get("reset_after", True) else (columns,)
    call.weight(
        "bias",
        *rows,
        when=config.get("use_bias", True),
        uses=steps,
        flops=1,
        out=len(rows) - 1,
        at=at,
        config=config,
    )
    return units, states, activation.keeps_zero


def _activations(config: dict[str, Any]) -> Written:
    """The activation of a cell, which makes its state, once all of them are known to be element-wise.

    Raises: CannotTell if one is not.
    """
    found = [
        elementwise_activation(config, field) for field in ("activation", "recurrent_activation")
    ]
    return found[0]


@LAYERS.rule("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", does="issues")
def conv_lstm(call: LayerCall) -> Any:
    """units: filters; kernels (window…, inputs, 4 filters), recurrent (window…, filters, 4 filters)"""
    config = call.config
    shape = call.shape()
    step = (shape[0], *shape[2:])
    channels = channel_axis(config.get("data_format"), len(step))
    spatial = spatial_axes(config.get("data_format"), len(step))
    x = call.keep_axes_whole(
        call.x,
        [1, *(axis + 1 for axis in spatial)],
        f"stand along an axis on which {call.layer.path!r} slides",
    )
    if len(call.xs) > 1:
        for state in call.xs[1:]:
            call.freeze(state, f"are passed to {call.layer.path!r} as a state")
    activation = _activations(config)
    filters = call.units("filters")
    columns = Axis.of(np.tile(filters, 4))
    kernel, stride = (
        ints(config["kernel_size"], len(spatial)),
        ints(config["strides"], len(spatial)),
    )
    dilation = ints(config["dilation_rate"], len(spatial))
    sizes = [
        window(step[a], k, s, config["padding"], d)
        for a, k, s, d in zip(spatial, kernel, stride, dilation, strict=True)
    ]
    uses = positions(sizes) * (shape[1] or 1)
    last = len(kernel) + 1
    call.weight("kernel", *kernel, x.axis(channels + 1), columns, uses=uses, out=last, at="cell")
    call.weight("recurrent_kernel", *kernel, filters, columns, uses=uses, out=last, at="cell")
    call.weight(
        "bias", columns, when=config.get("use_bias", True), uses=uses, flops=1, out=0, at="cell"
    )
    one = replaced(step, [*spatial, channels], [*sizes, len(filters)])
    keeps_zero = activation.keeps_zero
    state = Labels(one).with_axis(channels, filters, one).with_keeps_zero(keeps_zero)
    whole = (one[0], shape[1], *one[1:])
    sequence = Labels(whole).with_axis(channels + 1, filters, whole).with_keeps_zero(keeps_zero)
    output = sequence if config.get("return_sequences") else state
    return [output, state, state] if config.get("return_state") else output
