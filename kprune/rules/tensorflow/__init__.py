"""TensorFlow functions in graphs that Keras 2 saved, one entry a function.

registry.py   the table: a function is the twin of an operation of keras.ops, or has a rule of its own
op_layers.py  layers that Keras 2 makes of functions
twins.py      functions that keras.ops has as well
sizes.py      tf.shape, and what is computed of sizes
movement.py   functions that move data: reshape, split, slices, padding
images.py     tf.image, pooling, blocks of positions
joining.py    functions of several tensors, of which keras.ops has no such form
unmapped.py   functions that hold what reaches them, by decision, each with the reason

The table is filled when a graph calls its first such function: most models never do.
"""

from __future__ import annotations

import functools
import importlib

from kprune.rules.tensorflow.registry import FUNCTIONS, Function

ROOMS = ("twins", "sizes", "movement", "images", "joining")

__all__ = ["FUNCTIONS", "Function", "functions"]


@functools.cache
def functions() -> dict[str, Function]:
    """Every function that is mapped, by its name without `tf.` and `compat.v1.`."""
    for room in ROOMS:
        importlib.import_module(f"kprune.rules.tensorflow.{room}")
    return FUNCTIONS
