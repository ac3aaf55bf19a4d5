"""SavedModels: TensorFlow graphs over variables and constants, cut in place.

    files/         the folder: read, checked and written
    tracing/       labels pushed through the graphs; which weights they have, which layer each belongs to
    rules/         what each TensorFlow operation does to labels
    units.py       the units of layers, and the labels along the axes of weights
    analysis.py    the same object as for a `.keras` file: layers, units, groups, weights
    masks.py       multipliers in the graph
    dead_units.py  dead units
    loading.py     loaded by TensorFlow, to be run: only what computes and does nothing else
    keras2.py      SavedModels that tf_keras wrote, read as Keras models
    from_config.py such a model, built from what the file says of it
    stand_ins.py   layers in the place of those whose classes are not known

Two of them are run and compared in `kprune.verification`. TensorFlow is imported inside functions only.
"""
