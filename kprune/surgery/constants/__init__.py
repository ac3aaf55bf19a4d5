"""Units whose output is constant, followed through the model.

constants.py        the walk with all its rules
walk.py             the walk, what it knows of each tensor, and the table of rules
moving_rules.py     layers that pass constants on
summing_rules.py    layers that sum over units
sequence_rules.py   recurrent layers
summing_kernels.py  kernels that read units, and the biases that can absorb a constant
constant_units.py   what is known of a tensor's values
emitted.py          what a zeroed unit still emits
"""
