"""Labels pushed through a graph, call by call.

trace.py             the tracer
rule_call.py         a call, as every rule sees it
layer_call.py        a call of a layer: config, units, weights
registry.py          the tables of rules
regroup.py           a tensor that is reshaped
config_arrays.py     arrays in a config whose sizes count units
unclaimed_arrays.py  such arrays that no rule handles
declared_shapes.py   shapes that the config of a Lambda declares
unknown_shapes.py    shapes that a file does not record
traced_code.py       layers whose own code was traced
code_graph.py        that code as data
counting_fields.py   numbers in a layer's config that count units
tfmot.py             wrappers of the TensorFlow Model Optimization toolkit
"""
