"""Layer names for the shell's completion, read from the model file that the line names; names of limits.

An error while completing must never be seen: whatever goes wrong, nothing is offered.
"""

from typing import Any

# Typer tells what to pass by the names of the parameters. `ctx` has no type of ours: the class has
# moved between versions of Typer.


def complete_layer(ctx: Any, incomplete: str) -> list[str]:
    """Addresses of units that start with what was typed."""
    return _addresses(ctx, incomplete)


def complete_spec(ctx: Any, incomplete: str) -> list[str]:
    """The same, with the colon behind which the indices come."""
    return [f"{address}:" for address in _addresses(ctx, incomplete)]


def complete_limit(incomplete: str) -> list[str]:
    """The names of limits, with the sign behind which the number comes."""
    from kprune.limits import TABLE

    return [f"{name}=" for name in TABLE if name.startswith(incomplete)]


def _addresses(ctx: Any, incomplete: str) -> list[str]:
    try:
        # An option at the end of the line that still lacks its value keeps the parser from filling
        # in the positional arguments: they are then left over.
        model = ctx.params.get("model") or next(iter(ctx.args), None)
        if not isinstance(model, str) or model == "-":
            return []
        from kprune.opened import opened

        with opened(model, rules=ctx.params.get("rules") or ()) as found:
            axes = found.analysis.map.axes.values()
            names = [axis.address for axis in axes if axis.name != "features"]
        return [name for name in names if name.startswith(incomplete) and name.isprintable()]
    except Exception:  # whatever it is, the shell has no place to show it
        return []


def complete_schema(incomplete: str) -> list[str]:
    """Names of schemas."""
    from kprune.verbs.schemas import SCHEMAS

    return [name for name in SCHEMAS if name.startswith(incomplete)]


def complete_topic(incomplete: str) -> list[str]:
    """Pages of the guide."""
    from kprune.views.guide import topics

    return [name for name in topics() if name.startswith(incomplete)]
