"""Values of options, turned into their types without Typer's help.

Typer from 0.29 on does that with pydantic, whose import takes longer than all else that
`kprune --version` does. kprune's options are texts, numbers, and lists of texts.
"""

from __future__ import annotations

from typing import Any, get_args

from typer import BadParameter

from kprune.text import share


class NotThatType(BadParameter):
    """A value is not of its option's type.

    Attributes:
        wanted: what the option takes.
    """

    def __init__(self, value: Any, wanted: str, param: Any, ctx: Any) -> None:
        super().__init__(f"{value!r} is not {wanted}", ctx=ctx, param=param)
        self.wanted = wanted


class PlainValues:
    """Stands where Typer keeps the adapter of one parameter; see `prepare`."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value, or all values of a parameter that takes several.

        Raises: NotThatType for a text that is no such number.
        """
        if param.multiple or param.nargs == -1:
            return [self._one(item, param, ctx) for item in value or ()]
        return None if value is None else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        if self.kind in (str, bool):
            return value
        try:
            return share(value) if self.kind is float else self.kind(value)
        except ValueError:
            wanted = {int: "a whole number", float: "a number"}[self.kind]
            raise NotThatType(value, wanted, param, ctx) from None


def prepare(parameter: Any) -> None:
    """Have a parameter's values turned into their type here, where Typer would ask pydantic."""
    described = getattr(parameter, "type_descriptor", None)
    if described is None or not hasattr(parameter, "_runtime_param"):
        return
    kind = (get_args(described.annotation) or (described.annotation,))[0]
    if kind in (str, bool, int, float):
        parameter._runtime_param = PlainValues(kind)
