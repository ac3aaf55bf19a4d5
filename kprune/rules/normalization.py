"""Normalisation (keras/src/layers/normalization, and Normalization of the preprocessing layers)."""

from __future__ import annotations

import numpy as np

from kprune.labels.labels import Axis, Labels
from kprune.rules.shapes import positions
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import LAYERS
from kprune.tracing.rule_call import CannotTell


@LAYERS.rule("BatchNormalization", "SyncBatchNormalization", does="passes")
def batch_normalization(call: LayerCall) -> Labels:
    """gamma, beta, moving_mean, moving_variance (channels)"""
    axis = _only(call.config["axis"])
    channels = call.x.axis(axis)
    places = positions(call.shape()[1:]) // (channels.size or 1)
    call.weight("gamma", channels, when=call.config["scale"], uses=places)
    call.weight("beta", channels, when=call.config["center"])
    call.weight("moving_mean", channels, trainable=False)
    call.weight("moving_variance", channels, trainable=False)
    if call.config.get("renorm"):
        raise CannotTell("uses batch renormalisation, whose extra statistics kprune does not cut")
    return call.x


@LAYERS.rule("LayerNormalization", does="mixes")
def layer_normalization(call: LayerCall) -> Labels:
    """gamma, beta (the axes it normalises); computes mean and variance over them"""
    axes = call.config["axis"]
    axes = [axes] if isinstance(axes, int) else list(axes)
    along = [call.x.axis(axis) for axis in axes]
    rms = call.config.get("rms_scaling", False)
    call.weight("gamma", *along, when=call.config["scale"] or rms, uses=_places(call, along))
    call.weight("beta", *along, when=call.config["center"] and not rms)
    for axis in along:
        call.mix(axis, f"share the mean and variance that {call.layer.path!r} takes")
    return call.x.with_keeps_zero(bool(call.config["scale"] or rms))


@LAYERS.rule("GroupNormalization", does="mixes")
def group_normalization(call: LayerCall) -> Labels:
    """gamma, beta (channels); computes mean and variance over each run of channels"""
    axis = call.config["axis"]
    channels = call.x.axis(axis)
    groups = call.config["groups"]
    size = channels.size
    if size is None:
        raise CannotTell("normalises groups of an unknown number of channels")
    groups = size if groups == -1 else groups
    call.weight("gamma", channels, when=call.config["scale"], uses=_places(call, [channels]))
    call.weight("beta", channels, when=call.config["center"])
    if not channels.factors:
        return call.x
    if not channels.plain:
        call.freeze(channels, f"reach the groups of {call.layer.path!r} along two axes at once")
        return call.x
    if groups != size:
        call.mix(
            channels, f"share the mean and variance that {call.layer.path!r} takes over their group"
        )
    if call.config["groups"] != -1:
        call.blocks("groups", channels.ids.reshape(groups, -1))
    return call.x.with_keeps_zero(bool(call.config["scale"]))


@LAYERS.rule("RMSNormalization", does="mixes")
def rms_normalization(call: LayerCall) -> Labels:
    """scale (the axes it normalises); computes a mean of squares over them"""
    axes = call.config["axis"]
    along = [call.x.axis(axis) for axis in sorted([axes] if isinstance(axes, int) else list(axes))]
    call.weight("scale", *along, uses=_places(call, along))
    for axis in along:
        call.mix(axis, f"share the mean square that {call.layer.path!r} takes")
    return call.x


@LAYERS.rule("UnitNormalization", does="passes")
def unit_normalization(call: LayerCall) -> Labels:
    """divides by the norm over an axis, in which units that are 0 have no effect"""
    axes = call.config.get("axis", -1)
    for axis in [axes] if isinstance(axes, int) else axes:
        if not call.x.keeps_zero:
            call.mix(call.x.axis(axis), f"share the norm that {call.layer.path!r} takes")
    return call.x


@LAYERS.rule("Normalization", does="passes")
def normalization(call: LayerCall) -> Labels:
    """mean, variance along the axes it keeps apart, as weights or as numbers in the config"""
    axes = call.config.get("axis", -1)
    if axes is None:
        axes = []
    axes = [axes] if isinstance(axes, int) else list(axes)
    rank = len(call.shape())
    kept = sorted(axis % rank for axis in axes)
    along = [call.x.axis(axis) for axis in kept]
    if call.config.get("mean") is None:
        call.weight("mean", *along, trainable=False)
        call.weight("variance", *along, trainable=False)
        call.weight("count", trainable=False)
    else:
        for field in ("mean", "variance"):
            sizes = np.shape(call.config[field])
            # Normalization.build lays the numbers along the last of the axes that are kept apart.
            last = kept[len(kept) - len(sizes) :]
            if sizes:
                call.constant(
                    field,
                    *(call.x.axis(a) if n != 1 else 1 for a, n in zip(last, sizes, strict=True)),
                )
    return call.x.with_keeps_zero(False)


def _only(axis: int | list[int]) -> int:
    if isinstance(axis, int):
        return axis
    (only,) = axis  # Keras 2 writes a list of one
    return int(only)


def _places(call: LayerCall, along: list[Axis]) -> float:
    own = positions(axis.size for axis in along)
    return positions(call.shape()[1:]) / own
