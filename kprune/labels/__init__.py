"""The idea kprune stands on: give every unit a number, and push the numbers through the model as if they were data.

labels.py      Labels: which unit stands where in a tensor
sizes.py       numbers in a graph that count units
combine.py     several tensors element by element, and what that ties
regroup.py     a tensor that is given another shape
map.py         LabelMap: units, weights, and what ties, freezes and mixes them
trace.py       runs the rules over a graph, which fills the map
rule_call.py   what every rule is given, and how it says what becomes of units
layer_call.py  what a rule for a layer is given beside: config, units, weights, layers inside
config_arrays.py  arrays in a config whose sizes count units: cut along, or the units stay
declared.py    the shapes that a Lambda's config declares
unknown_shapes.py  what is known of a shape that the file does not record
drawn.py       layers without a rule, whose own code was traced as a graph
drawing.py     such a graph, as data; fields.py: numbers in the layer's config that count units
groups.py      ties, solved: which units stay or go as one
closure.py     from chosen units to everything that goes with them, or the reason why it cannot
branches.py    branches that go as a whole
nearest.py     from a choice that leaves no block to the nearest one that does
explain.py     by which road units get from here to there
by_order.py    files that store weights by order, not by path (legacy .h5)
by_path.py     files of Keras 2, whose paths count differently
"""

from kprune.labels.labels import Axis, Labels
from kprune.labels.layer_call import LayerCall
from kprune.labels.map import LabelMap, UnitAxis, Weight
from kprune.labels.rule_call import CannotTell
from kprune.labels.trace import trace

__all__ = ["Axis", "CannotTell", "LabelMap", "Labels", "LayerCall", "UnitAxis", "Weight", "trace"]
