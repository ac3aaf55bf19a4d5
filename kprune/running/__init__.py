"""What a model gives on data, and what is needed to run it on some.

    sources.py      data as a caller gives them: a file, arrays, a dataset, a function
    arrays.py       arrays by name, read from any of these
    data.py         the same as a model takes them
    inputs.py       random inputs that a model accepts
    fields.py       inputs made without data: smooth noise
    input_statistics.py  what a model's first layers say of the inputs it was trained on
    examples.py     what it learns from: arrays, or a dataset that Keras reads
    classes.py      targets for a model that has lost classes
    compiling.py    by what it is trained and judged
    metrics.py      how well it does on labelled data
    divergence.py   how far the outputs of two models are apart
    activations.py  what its units give: statistics that criteria rank by
    noise.py        models that draw random numbers, run without

Keras itself is imported, and model files loaded, in `kprune.runtime`.
"""
