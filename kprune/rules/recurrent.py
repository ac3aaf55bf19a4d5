"""Recurrent layers (keras/src/layers/rnn). Each gate has the units once more, side by side on the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from kprune.labels.labels import Axis, Labels
from kprune.labels.layer_call import CannotTell, LayerCall
from kprune.rules.activations import ELEMENTWISE, activation_name
from kprune.rules.registry import LAYERS


@LAYERS.rule("SimpleRNN", does="issues", note="units: kernel (input, units), recurrent_kernel (units, units)")
def simple_rnn(call: LayerCall) -> Any:
    return recurrent(call, gates=1, states=1)


@LAYERS.rule("LSTM", does="issues", note="units: four gates side by side; a unit's columns in each, its recurrent row")
def lstm(call: LayerCall) -> Any:
    return recurrent(call, gates=4, states=2)


@LAYERS.rule("GRU", does="issues", note="units: three gates; reset_after=True gives the bias two rows")
def gru(call: LayerCall) -> Any:
    # GRUCell.build: with reset_after the input bias and the recurrent bias are kept apart, one row each.
    return recurrent(call, gates=3, states=1, bias_rows=2 if call.config.get("reset_after", True) else 1)


def recurrent(call: LayerCall, gates: int, states: int, bias_rows: int = 1) -> Any:
    """A recurrent layer over axis 1.

    Args:
        gates: how many times the units stand on the kernels' last axis.
        states: how many tensors of (batch, units) are carried from step to step.
        bias_rows: rows of the bias, if more than one.
    Returns: the output, and the final states after it if return_state is set.
    """
    config = call.config
    for field in ("activation", "recurrent_activation"):
        name = activation_name(config.get(field))
        if name not in ELEMENTWISE:
            raise CannotTell(f"has the {field} {name!r}, for which kprune has no rule")
    shape = call.shape()
    if len(shape) != 3:
        raise CannotTell(f"is called on a tensor of shape {shape}")
    sequence = call.hold_axes(call.x, [1], f"stand along the time axis of {call.layer.path!r}")
    units = call.units("units")
    columns = Axis.of(np.tile(units, gates))
    steps = shape[1] or 1
    call.weight("kernel", sequence.last, columns, uses=steps, out=1, at="cell")
    call.weight("recurrent_kernel", units, columns, uses=steps, out=1, at="cell")
    bias = (bias_rows, columns) if bias_rows > 1 else (columns,)
    call.weight("bias", *bias, when=config.get("use_bias", True), uses=steps, flops=1, out=len(bias) - 1, at="cell")
    state = Labels((shape[0], len(units)), (units[None, :],))
    for initial in call.xs[1 : 1 + states]:
        # The state passed in is added to, gated with and replaced by the layer's own, unit by unit.
        if initial.rank == 2:
            call.combine([state, initial])
        else:
            call.freeze(initial, f"are passed to {call.layer.path!r} as a state of another rank")
    if config.get("return_sequences"):
        output = Labels((shape[0], shape[1], len(units)), (units[None, None, :],))
    else:
        output = state
    return [output, *[state] * states] if config.get("return_state") else output
