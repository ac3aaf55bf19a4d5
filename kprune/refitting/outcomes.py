"""What became of each kernel: refitted, or left as it was cut, and why."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Why = Literal[
    "variables",
    "adapted",
    "quantized",
    "stateful",
    "cell",
    "class",
    "equation",
    "calls",
    "memory",
    "numbers",
]
"""Why a layer is left as it was cut.

variables: which of Keras's variables its weights are cannot be told.
adapted, quantized: its kernel is changed on the way, by adapters of LoRA or by its type.
stateful: it keeps its state from one batch to the next.
cell: a recurrent layer runs another cell than LSTM's, GRU's or SimpleRNN's, or several; a ConvLSTM.
class: no kernel of its class is known: a layer of a package, or of the user.
equation: an EinsumDense is no sum for each place and column.
calls: it is not called, or not as often as in the original, or its calls cannot be told apart.
memory: its least squares take more than may be taken.
numbers: what it is given on these data, or what it makes of it, is not finite.
"""


class Left(Struct, frozen=True):
    """A layer that is left as it was cut. `name`: its path, and what in it, where it has several kernels."""

    name: str
    why: Why


class Refitted(Struct, frozen=True):
    """A kernel that was refitted: the squared error of its outputs, relative to their variance."""

    name: str
    before: Annotated[
        float, Meta(description="with the weights of the cut, on the inputs that it then has")
    ]
    after: Annotated[float, Meta(description="with the new weights")]
