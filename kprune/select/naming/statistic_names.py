"""The statistics that expressions know, by what they need, and what each is."""

from __future__ import annotations

from collections.abc import Mapping

WEIGHTS: Mapping[str, str] = {
    "mean": "mean of the unit's incoming weights, with its sign",
    "std": "their standard deviation",
    "min": "the smallest",
    "max": "the largest",
    "l1": "Σ |w|",
    "l2": "√ Σ w²",
    "absmax": "max |w|",
    "sparsity": "share of the weights that are 0",
    "bias": "the unit's bias",
    "w": "the kernel, units on its last axis: w[0,0,0] < 0",
    "index": "the unit's number, from 0",
}
OUTGOING: Mapping[str, str] = {
    "outgoing_l1": "Σ |w| over what consumers hold for the unit",
    "outgoing_l2": "√ Σ w² over the same",
}
BATCHNORM: Mapping[str, str] = {
    "gamma": "the scale",
    "beta": "the shift",
    "moving_mean": "the mean it subtracts",
    "moving_variance": "the variance it divides by",
}
DATA: Mapping[str, str] = {
    "activation_mean": "mean of what the unit gives on the data",
    "activation_std": "its standard deviation",
    "activation_absmax": "its largest magnitude",
    "apoz": "share of values that are 0",
}
NEEDS = (
    ("incoming weights", WEIGHTS),
    ("outgoing weights", OUTGOING),
    ("the BatchNormalization behind", BATCHNORM),
    ("data", DATA),
)
"""The statistics by what they are taken of."""

WEIGHT_NAMES, OUTGOING_NAMES = frozenset(WEIGHTS), frozenset(OUTGOING)
BATCHNORM_NAMES, DATA_NAMES = frozenset(BATCHNORM), frozenset(DATA)
ALL_NAMES = WEIGHT_NAMES | OUTGOING_NAMES | BATCHNORM_NAMES | DATA_NAMES
