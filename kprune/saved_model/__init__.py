"""SavedModels: TensorFlow graphs over variables and constants, cut in place.

    files/         the folder: read, checked and written
    tracing/       labels pushed through the graphs; which weights they have, which layer each belongs to
    rules/         what each TensorFlow operation does to labels
    units.py       layers get their units, weights the labels along their axes
    analysis.py    the same object that a `.keras` file gets: layers, units, groups, weights
    masks.py       multipliers in the graph
    dead_units.py  units that nothing would miss
    keras2.py      SavedModels that tf_keras wrote, which are models again

Two of them are run and compared in `kprune.verification`. TensorFlow is imported inside functions only.
"""
