"""Groups of options: a Struct whose fields become options of every command that takes one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Meta, Struct

from kprune.cli.outputs import watched


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as Typer is to see it.

    Each parameter whose type is a Struct stands for the fields of that class, in their order (and a
    field whose type is one for the fields of that); the class is made of their values when the command
    is called. All others stay as they are.

        class Writing(Struct):
            output: Annotated[str | None, Option("--output", "-o")] = None

        def remove(model: Model, write: Writing): ...     # kprune remove MODEL -o PATH

    Args:
        function: its parameters have types (strings are evaluated, which takes time: see
            `kprune.cli.commands`) and names that no field of its groups has.
    """
    groups: dict[str, type[Struct]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind = parameter.annotation
        if not _is_group(kind):
            parameters.append(_parameter(parameter.name, kind, parameter.default))
            continue
        groups[parameter.name] = kind
        parameters += _fields(kind)

    def command(**values: Any) -> Any:
        with watched(values):
            made = {name: _made(group, values) for name, group in groups.items()}
            return function(**values, **made)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__module__ = function.__module__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _fields(group: type[Struct]) -> list[inspect.Parameter]:
    types = _types(group)
    names, values = group.__struct_fields__, group.__struct_defaults__  # of the last ones
    defaults = dict(zip(reversed(names), reversed(values), strict=False))
    found = []
    for name in names:
        if _is_group(types[name]):
            found += _fields(types[name])
        else:
            default = _default(defaults.get(name, NODEFAULT))
            found.append(_parameter(name, _as_option(types[name]), default))
    return found


@functools.cache
def _types(group: type[Struct]) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _made(group: type[Struct], values: dict[str, Any]) -> Struct:
    """A group of what is given for its fields, which are taken out of `values`."""
    types = _types(group)
    return group(
        **{
            name: _made(types[name], values) if _is_group(types[name]) else values.pop(name)
            for name in group.__struct_fields__
        }
    )


def _as_option(kind: Any) -> Any:
    """The type of a field as Typer has it: one that plans have as well is an option of that name."""
    for part in get_args(kind):
        meta = next((it for it in getattr(part, "__metadata__", ()) if isinstance(it, Meta)), None)
        if meta is not None and meta.extra:
            from kprune.cli.options import described

            words = get_origin(part.__origin__) is Literal  # refused with their names, later on
            return Annotated[
                (str if words else part.__origin__) | None, described(meta.extra["option"])
            ]
    return kind


def _default(value: Any) -> Any:
    return inspect.Parameter.empty if value is NODEFAULT else value


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
