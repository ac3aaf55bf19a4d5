"""Refitting what is left of a model to what it computed before units went.

kernels.py      layers whose kernels sum over units: how their inputs become rows, their outputs columns
consumers.py    the kernels of one model, with the units along their rows and columns
pairs.py        each kernel, with the layer that has it in what is left of the model
steps.py        a Keras model as the calls that it makes, one after the other
room.py         memory for tensors, with a bound
values.py       what passes between the calls
observing.py    looking into a layer while it is called
row_stream.py   what the kernels of one model are summed from, on data
moments.py      sums over rows, and the least squares that they give
recurrent.py    recurrent layers, whose own state is among their inputs
following.py    what follows a kernel: a BatchNormalization, a sum with other branches
refit.py        original and pruned model side by side, kernel after kernel
ordering/       which units to give up when those that are left are refitted
"""
