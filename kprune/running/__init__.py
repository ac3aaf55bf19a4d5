"""What a model gives on data, and what is needed to run it on some.

    inputs.py       random inputs that a model accepts, and inputs from an .npz file
    examples.py     what it learns from: arrays, or a dataset that a function of the user's makes
    classes.py      labels for a model that has lost classes
    compiling.py    by what it is trained and judged
    metrics.py      how well it does on labelled data
    activations.py  what its units give: statistics that criteria rank by
    noise.py        models that draw random numbers, run without

Keras itself is imported, and model files loaded, in `kprune.runtime`.
"""
