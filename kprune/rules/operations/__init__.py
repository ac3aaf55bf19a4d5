"""Nodes of `keras.ops` in Functional graphs: a table of kinds, not a rule for each of three hundred.

    elementwise.py  one argument, several arguments, constants
    movement.py     reshape, transpose, roll, tile, padding …: the same done to the labels
    joining.py      concatenation, stacking, splitting
    indexing.py     slices and indices
    reductions.py   sum, mean, max … over some axes; softmax and normalisation
    contractions.py matmul, einsum, tensordot: what is multiplied and summed is tied
    windows.py      convolution, pooling, image operations: channels pass, the rest keeps its size
    opaque.py       what holds its units, with the reason
    arguments.py    how a rule reads a call's arguments

An operation's arguments are given by position or by name, or stand in its config.
"""
