"""SavedModels: TensorFlow graphs over variables and constants, cut in place.

    runtime      TensorFlow, imported without its chatter
    contents     what is in the folder: protos, checkpoint, assets; damage becomes an exit code
    checkpoint   variables, written shard by shard
    graph        functions of operations, and where each input comes from
    values       what flows: labels, and integers that say sizes
    parameters   variables and constant weights, and the layer each belongs to
    finding      where they are: what the main graph restores, what the object graph holds
    op_call      what a rule is given; rules/ say what each TensorFlow operation does to labels
    trace        pushes labels through every function
    traced       what that finds out beside the labels
    node_layers  which layer each node belongs to
    signatures   from where it does so: signatures, the main graph, other functions
    settling     what can be said only once everything was seen
    units        layers get their units, weights the labels along their axes
    analysis     the same object that a `.keras` file gets: layers, units, groups, weights
    masks        multipliers in the graph
    dead         units that nothing would miss
    rewrite      an Edit carried out on the protos
    implementations  functions that TensorFlow takes for one another
    source       the opened folder, and how another one is written
    verifying    both models run by their signatures, and compared
    signature_runs  one signature, run in batches that it takes
    silenced     what masked layers should come to, computed without those masks
    keras2       SavedModels that tf_keras wrote, which are models again

Only this room and `kprune.running` import TensorFlow, inside functions.
"""
