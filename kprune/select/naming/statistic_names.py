"""The statistics that expressions know, by what they need."""

from __future__ import annotations

WEIGHT_NAMES = frozenset(
    {"mean", "std", "min", "max", "l1", "l2", "absmax", "sparsity", "bias", "w", "index"}
)
OUTGOING_NAMES = frozenset({"outgoing_l1", "outgoing_l2"})
BATCHNORM_NAMES = frozenset({"gamma", "beta", "moving_mean", "moving_variance"})
DATA_NAMES = frozenset({"activation_mean", "activation_std", "activation_absmax", "apoz"})
ALL_NAMES = WEIGHT_NAMES | OUTGOING_NAMES | BATCHNORM_NAMES | DATA_NAMES
