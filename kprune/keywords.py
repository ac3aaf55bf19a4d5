"""Keywords of public functions: an unknown one is refused as Python does it, with those that look like it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from kprune.pointing import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")


def refuse_unknown(function: Callable[..., Any], given: Iterable[str], more: type | None) -> None:
    """Raises: TypeError for a keyword that a function does not have.

    Args:
        more: the TypedDict of its further keywords, if it takes any.
    """
    code = function.__code__
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    further: Mapping[str, Any] = more.__annotations__ if more is not None else {}
    for name in given:
        if name not in own and name not in further:
            hint = did_you_mean(name, (*own, *further))
            text = f"{function.__name__}() got an unexpected keyword argument '{name}'"
            raise TypeError(text + (f"; {hint}" if hint else ""))


def checked(more: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: an unknown keyword is answered with those that look like it.

    Args:
        more: see `refuse_unknown`.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse_unknown(function, kwargs, more)
            return function(*args, **kwargs)

        return called

    return decorator
