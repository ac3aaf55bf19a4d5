"""Functions that TensorFlow takes for one another: a recurrent layer's code for CPUs and that for GPUs.

Keras 2 gives both the same `api_implements`, and Grappler puts the one for the other by that name
among all functions of a process. A pruned model that kept the original's name would therefore run
the original's function as soon as both are loaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any

from kprune.saved_model.files.rewrite import forget_shapes

API = "api_implements"
_OURS = re.compile(r"_kprune_[0-9a-f]{16}$")


def renew(meta: Any, changed: Collection[str]) -> None:
    """Give the interfaces of changed functions names of their own, the same to all that implement one.

    The implementations that nothing calls are not traced: what they record of shapes goes, and
    TensorFlow infers it again.

    Args:
        meta: a MetaGraphDef, changed in place.
        changed: functions in which shapes or operations are others than before.
    """
    functions = [f for f in meta.graph_def.library.function if API in f.attr]
    names = {f.attr[API].s for f in functions if f.signature.name in changed}
    if not names:
        return
    content = meta.graph_def.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()[:16]
    for function in functions:
        if function.attr[API].s in names:
            old = _OURS.sub("", function.attr[API].s.decode("utf-8", "replace"))
            function.attr[API].s = f"{old}_kprune_{digest}".encode()
            if function.signature.name not in changed:
                forget_shapes(function)
