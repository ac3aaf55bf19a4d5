"""Labels pushed through TensorFlow's graphs.

graph.py          functions and nodes
trace.py          the tracer; traced.py: what it found
op_call.py        what a rule for an operation is given
values.py         a tensor's labels, numbers and parameter
parameters.py     variables and constants that are weights; find_weights.py finds them
signatures.py     what callers rely on
node_layers.py    which layer a node belongs to
after_tracing.py  what is decided once everything is traced
"""
