"""Groups of options: a Struct whose fields become options of every command that takes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from msgspec import NODEFAULT, Struct


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as Typer is to see it.

    Each parameter whose type is a Struct stands for the fields of that class, in their order; the
    class is made of their values when the command is called. All others stay as they are.

        class Writing(Struct):
            output: Annotated[str | None, Option("--output", "-o")] = None

        def remove(model: Model, write: Writing): ...     # kprune remove MODEL -o PATH

    Args:
        function: its parameters have types (strings are resolved in its own module) and names that
            no field of its groups has.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Struct]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if not isinstance(kind, type) or not issubclass(kind, Struct):
            parameters.append(_parameter(parameter.name, kind, parameter.default))
            continue
        groups[parameter.name] = kind
        parameters += _fields(kind)

    def command(**values: Any) -> Any:
        made = {
            name: group(**{field: values.pop(field) for field in group.__struct_fields__})
            for name, group in groups.items()
        }
        return function(**values, **made)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__module__ = function.__module__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _fields(group: type[Struct]) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    names, values = group.__struct_fields__, group.__struct_defaults__  # of the last ones
    defaults = dict(zip(reversed(names), reversed(values), strict=False))
    return [
        _parameter(name, types[name], _default(defaults.get(name, NODEFAULT))) for name in names
    ]


def _default(value: Any) -> Any:
    return inspect.Parameter.empty if value is NODEFAULT else value


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
