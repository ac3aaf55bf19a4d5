"""A model file with everything kprune knows of it.

    analysis.py    Analysis: graph, labels, groups, and the tensors that belong to them
    by_order.py    which stored tensor belongs to which weight, in files ordered by layer (legacy .h5)
    by_path.py     the same in `.keras` files that Keras 2 wrote
    counts.py      parameters, operations and units of each layer
    user_rules.py  rules and criteria from the user's files, and from installed packages

What opens a file and analyses it is `kprune.opened`.
"""
