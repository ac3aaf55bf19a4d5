"""Groups of options: a dataclass whose fields become options of every command that takes one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as Typer is to see it.

    Each parameter whose type is a dataclass stands for the fields of that class, in their order;
    the class is made of their values when the command is called. All others stay as they are.

        @dataclass
        class Writing:
            output: Annotated[str | None, Option("--output", "-o")] = None

        def remove(model: Model, write: Writing): ...     # kprune remove MODEL -o PATH

    Args:
        function: its parameters have types (strings are resolved in its own module) and names that
            no field of its groups has.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if not dataclasses.is_dataclass(kind):
            parameters.append(_parameter(parameter.name, kind, parameter.default))
            continue
        assert isinstance(kind, type)
        groups[parameter.name] = kind
        types = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            default = (
                inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            )
            parameters.append(_parameter(field.name, types[field.name], default))

    def command(**values: Any) -> Any:
        made = {
            name: group(
                **{field.name: values.pop(field.name) for field in dataclasses.fields(group)}
            )
            for name, group in groups.items()
        }
        return function(**values, **made)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__module__ = function.__module__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
