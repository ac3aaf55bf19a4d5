"""Adapters of LoRA (`layer.enable_lora(rank)`): two thin matrices, whose product is added to a kernel.

The kernel itself is frozen for training then. A `.keras` file has the sum under the kernel's name, and
Keras sets both adapters to 0 when it is loaded; a legacy `.h5` has all three. Only classes that derive
from Dense, EinsumDense, Embedding and BaseConv of Keras 3 have them, by `lora_rank` in their config.
"""

from __future__ import annotations

from typing import Any

from kprune.tracing.layer_call import LayerCall, Where


def has_adapters(call: LayerCall) -> bool:
    """Whether the layer's kernel has adapters, and is not trained itself."""
    return bool(call.config.get("lora_rank"))


def adapters(call: LayerCall, *kernel: Where, out: int | None = None, name: str = "kernel") -> None:
    """Say which labels stand along the axes of a layer's adapters; called where Keras builds them, last.

    Args:
        kernel: an entry for each axis of the kernel, as for `call.weight`.
        out: which of them holds the layer's units.
        name: what the kernel is called.
    """
    if not has_adapters(call):
        return
    rank: Any = call.config["lora_rank"]
    last = len(kernel) - 1
    made = None if out is None else out % len(kernel)
    call.weight(
        f"lora_{name}_a", *kernel[:-1], rank, out=made if made != last else None, merged=True
    )
    call.weight(f"lora_{name}_b", rank, kernel[-1], out=1 if made == last else None, merged=True)
