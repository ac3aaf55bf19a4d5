"""Refitting what is left of a model to what it computed before units went.

inputs.py     the inputs that a model is refitted on
kernels.py    layers whose kernels sum over units: how their inputs become rows, their outputs columns
consumers.py  the kernels of one model, with the units along their rows and columns
pairs.py      each kernel, with the layer that has it in what is left of the model
moments.py    sums over rows, and the least squares that they give
recurrent.py  recurrent layers, whose own state is among their inputs
attention.py  attention that has fewer key dimensions
following.py  what follows a kernel: a BatchNormalization, a sum with other branches
unrepaired.py  which layers are left as they were cut
outcomes.py    what became of each kernel, and the kinds of reasons
refit.py      original and pruned model side by side, kernel after kernel
streams/      a model run call by call, on all samples
ordering/     which units to give up when those that are left are refitted
"""
