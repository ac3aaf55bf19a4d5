"""Values of options, turned into their types without Typer's help.

Typer from 0.29 on does that with pydantic, whose import takes longer than all else that
`kprune --version` does. kprune's options are texts, numbers, and lists of texts.
"""

from __future__ import annotations

from typing import Any, get_args

from typer import BadParameter


class PlainValues:
    """Stands where Typer keeps the adapter of one parameter; see `prepare`."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value, or all values of a parameter that takes several.

        Raises: BadParameter for a text that is no such number.
        """
        if param.multiple or param.nargs == -1:
            return [self._one(item, param, ctx) for item in value or ()]
        return None if value is None else self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        if self.kind in (str, bool):
            return value
        try:
            return self.kind(value)
        except ValueError:
            what = {int: "integer", float: "number"}[self.kind]
            raise BadParameter(f"{value!r} is not a valid {what}", ctx=ctx, param=param) from None


def prepare(parameter: Any) -> None:
    """Have a parameter's values turned into their type here, where Typer would ask pydantic."""
    described = getattr(parameter, "type_descriptor", None)
    if described is None or not hasattr(parameter, "_runtime_param"):
        return
    kind = (get_args(described.annotation) or (described.annotation,))[0]
    if kind in (str, bool, int, float):
        parameter._runtime_param = PlainValues(kind)
