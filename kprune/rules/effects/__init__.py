"""What operations do to labels, once for all dialects.

    reductions.py   sums, statistics, positions of extremes, normalisation
    contractions.py products that are summed over: einsum, matmul
    joining.py      concatenation, stacks, and what takes these apart
    movement.py     transposes, axes that come and go, repetition, blocks of positions
    slicing.py      slices, blocks, single positions, look-ups

A dialect (`kprune.rules.operations` for `keras.ops`, `kprune.rules.tensorflow` for functions in
graphs of Keras 2, `kprune.saved_model.rules` for TensorFlow's graphs) fetches operands, axes and
sizes, and asks here. A size is a `Number`, which knows where it is written: `RuleCall.demand` has it
follow an axis there, be that a config or a graph.
"""
