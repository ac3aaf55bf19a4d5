"""A Keras model run call by call, on all samples, within a bound on memory.

steps.py       the calls that a model makes, one after the other
values.py      what passes between them
room.py        memory for tensors, with a bound
observing.py   looking into a layer while it is called
row_stream.py  what the kernels of one model are summed from
"""
