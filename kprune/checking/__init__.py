"""Whether a model file contradicts itself: its config is checked against its weights before it is put in place.

This folder does not use labels, rules or cuts: what a layer's weights must look like is computed
independently, from the config and the shapes of the inputs, so that a mistake in a rule is not
repeated.

    configs.py        numbers and arrays in the configs of layers
    shapes.py         shapes with sizes left open: joined, broadcast, compared
    layer_shapes.py   what shape a layer gives, class by class
    layer_weights.py  which weights a layer has, class by class
    operations.py     the few operations that take arrays from the config
    wrappers.py       layers that hold other layers
    walk.py           from the inputs through a graph: shapes, weights, contradictions in the config
    outline.py        the tensors of a file, found by path or by order
    output.py         the check of what is about to be written
"""

from kprune.checking.outline import Outline
from kprune.checking.output import require_sound

__all__ = ["Outline", "require_sound"]
