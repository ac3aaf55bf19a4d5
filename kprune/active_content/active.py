"""One thing in a model file that would do something when the file is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from kprune.page.figures import some
from kprune.text import clean


class Kind(StrEnum):
    """What would happen; the value goes on after the place and before what is named."""

    BYTECODE = "runs Python bytecode"
    MODULE = "imports"
    FUNCTION = "calls"
    CLASS = "builds"
    FILE = "opens the file"
    ADDRESS = "opens the address"
    PROGRAM = "loads another program with"
    OPERATION = "runs the operation"


class Active(Struct, frozen=True, order=True):
    """One thing that would run, import, call or read something when the model is loaded or run.

    Attributes:
        kind: what it would do.
        place: path of the layer that it stands in, `compile_config`, or the name of a part of the
            file; "" for the model itself.
        what: the module, class, function, path, address or operation; "" for bytecode.
        registered: the name under which Keras looks first among what is registered. If it finds
            something, that is used, and nothing of the file's own; "" if it does not look.
        compiled: whether it is built only when the model is compiled as its file says.
    """

    kind: Kind
    place: str
    what: str = ""
    registered: str = ""
    compiled: bool = False

    @property
    def where(self) -> str:
        """The place as messages give it."""
        if self.compiled or not self.place:
            return self.place or "the model"
        return f"'{clean(self.place, 120)}'"

    def __str__(self) -> str:
        return " ".join(
            word for word in (self.where, self.kind.value, clean(self.what, 120)) if word
        )


def listed(items: Sequence[Active], most: int = 3) -> str:
    """The first few items, for a sentence."""
    return some([str(item) for item in items], most)
