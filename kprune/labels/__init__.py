"""The idea kprune stands on: give every unit a number, and push the numbers through the model as if they were data.

This room holds the data; `kprune.tracing` pushes it.

    labels.py     Labels: which unit stands where in a tensor
    sizes.py      numbers in a graph that count units
    combine.py    several tensors element by element, and what that ties
    map.py        LabelMap: units, weights, and what ties, freezes and mixes them
    groups.py     ties, solved: which units stay or go as one
    closure.py    from chosen units to everything that is removed with them, or the reason why it cannot be
    branches.py   branches that go as a whole
    additions.py  sums that Keras would take along another axis once a width is 1
    tokens.py     rows of embeddings, and the vocabularies in front of them
    nearest.py    from a choice that leaves no block to the nearest one that does
    paths.py      through which layers units get from here to there
"""
