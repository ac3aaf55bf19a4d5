"""The idea of kprune: give every unit a number, and push the numbers through the model as if they were data.

This folder holds the data structures; `kprune.tracing` does the pushing.

    labels.py     Labels: which unit stands where in a tensor
    sizes.py      numbers in a graph that count units
    combine.py    several tensors element by element, and what that ties
    map.py        LabelMap: units, weights, and what ties, freezes and mixes them
    groups.py     ties, solved: which units stay or go together
    closure.py    from chosen units to everything that is removed with them, or the reason why it cannot be
    branches.py   branches that are removed as a whole
    additions.py  sums that Keras would compute along another axis once a width is 1
    tokens.py     rows of embeddings, and the vocabularies in front of them
    nearest.py    from a choice that does not leave a block to the nearest one that does
    paths.py      the layers on the way from one unit to another
"""
