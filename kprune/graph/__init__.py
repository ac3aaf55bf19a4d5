"""From a config to a graph of layer calls.

model.py          Model, Layer, Call, TensorRef: what a config says, as plain objects
parse.py          reads a config into them
dialects.py       what Keras 3 and Keras 2 write differently: the arguments of calls
copies.py         copies of configs
order.py          the order in which Keras counts layers, which decides where each one's weights are stored
weight_groups.py  the groups of a weights file that hold layers and the optimizer
value_kinds.py    which sort of values a tensor holds
"""

from kprune.graph.model import Call, Constant, Layer, Model, TensorRef
from kprune.graph.parse import parse_model

__all__ = ["Call", "Constant", "Layer", "Model", "TensorRef", "parse_model"]
