"""The idea kprune stands on: give every unit a number, and push the numbers through the model as if they were data.

    labels.py      Labels: which unit stands where in a tensor
    combine.py     several tensors element by element, and what that ties
    trace.py       runs the rules over a graph; LabelMap is all they said
    layer_call.py  what a rule is given, and how it says what a layer does
    groups.py      ties, solved: which units stay or go as one
    closure.py     from chosen units to everything that goes with them, or the reason why it cannot
    explain.py     by which road units get from here to there
"""

from kprune.labels.labels import Axis, Labels
from kprune.labels.layer_call import CannotTell, LayerCall
from kprune.labels.trace import LabelMap, UnitAxis, Weight, trace

__all__ = ["Axis", "CannotTell", "LabelMap", "Labels", "LayerCall", "UnitAxis", "Weight", "trace"]
