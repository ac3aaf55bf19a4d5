"""What in a model file would run, import, call or read something when Keras loads the file.

A model's architecture is JSON, and most of that is data: sizes, names, numbers. But JSON can also
name a module to import, a function to call, a file to open, or hold Python bytecode. What is found
here is found without running anything, from lists of what is known to be harmless: whatever is not
on a list is active.

active.py                one such item: what it would do, where it stands, what it names
keras_classes.py         Keras's own classes and functions that only build and compute
tensorflow_functions.py  functions of TensorFlow that only compute
objects.py               what one object of a config would do
walk.py                  all of a config, also what no output reads
graphs.py                all graphs of a SavedModel, also what no signature calls
operations.py            what one operation of a graph would do
inert_operations.py      operations of TensorFlow that compute and do nothing else

`Source.active` is the door: every format says of itself what is active in it.
"""

from kprune.active_content.active import Active, Kind
from kprune.active_content.graphs import active_in_graphs
from kprune.active_content.walk import active_in, active_in_keras_file

__all__ = ["Active", "Kind", "active_in", "active_in_graphs", "active_in_keras_file"]
