"""What tracing a SavedModel finds out, beside the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kprune.labels.labels import Axis, Labels
from kprune.labels.map import Blocks
from kprune.saved_model.tracing.parameters import Parameter
from kprune.saved_model.tracing.values import Number, Place, TensorList
from kprune.tracing.rule_call import Count

Says = Callable[[Number, Axis], None]


@dataclass(eq=False)
class Demand:
    """A number in a constant that has to follow what is left along an axis."""

    place: Place
    axis: Axis
    count: Count


@dataclass(eq=False)
class Traced:
    """What the `LabelMap` has no place for: graphs hold sizes where a config does not.

    Attributes:
        tensors: labels of each tensor, by graph, node and index.
        arguments, results: for each function that was traced, what it takes and what it returns.
        handles, given_handles: of these, by index, the variables.
        demands: numbers in constants that follow.
        valued: numbers in constants that are used as values, not only as sizes.
        list_shapes: lists of tensors, each with an object array of `Number`, the shape of its
            elements, and how to say that one of these counts an axis.
        consumed: axes of weights that are multiplied with units and summed.
        nonzero: labels of units that are summed where a masked one need not give 0.
        summed: labels of units that are summed with nothing of theirs in a weight to look at.
        grouped: kernels whose rows stand for other channels in each run of filters.
        squeezed: by (graph, node), what a Squeeze without `squeeze_dims` takes, and the axes of size 1.
    """

    tensors: dict[tuple[str, str, int], Labels] = field(default_factory=dict)
    arguments: dict[str, list[Labels]] = field(default_factory=dict)
    results: dict[str, list[Labels]] = field(default_factory=dict)
    handles: dict[str, dict[int, Parameter]] = field(default_factory=dict)
    given_handles: dict[str, dict[int, Parameter]] = field(default_factory=dict)
    demands: list[Demand] = field(default_factory=list)
    valued: set[Place] = field(default_factory=set)
    list_shapes: list[tuple[TensorList, np.ndarray, Says]] = field(default_factory=list)
    consumed: set[tuple[Parameter, int]] = field(default_factory=set)
    nonzero: list[np.ndarray] = field(default_factory=list)
    summed: list[np.ndarray] = field(default_factory=list)
    grouped: dict[Parameter, Blocks] = field(default_factory=dict)
    squeezed: dict[tuple[str, str], tuple[Labels, tuple[int, ...]]] = field(default_factory=dict)
