"""The table of TensorFlow functions, and how a call of one finds its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.graph.dialects import legacy_kwargs
from kprune.graph.model import leaves
from kprune.labels.labels import Labels
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.registry import OPERATIONS
from kprune.tracing.rule_call import CannotTell

FunctionRule = Callable[[LayerCall], Any]

# Arguments that change nothing for labels, whatever the function.
IDLE = frozenset({"name", "dtype", "validate_indices"})
CHANNELS_LAST = ("NHWC", "NWC", "NDHWC", "channels_last")


class Function(Struct, frozen=True):
    """What a TensorFlow function is to kprune.

    Attributes:
        rule: says what becomes of labels.
        takes: names of the arguments that the rule looks at. The first one of a call has no name.
        idle: names of those that make no difference to labels.
        reads_sizes: whether its rule knows what to do with sizes that are computed in the graph.
        twin: class of the operation of keras.ops that it is; "" if its rule is its own.
    """

    rule: FunctionRule
    takes: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    reads_sizes: bool = False
    twin: str = ""


class Twin(Struct, frozen=True):
    """The operation of `keras.ops` that a TensorFlow function is.

    Attributes:
        kind: its class.
        takes: names of the function's arguments behind the first that are operands, in order.
        named: for the names of the operation's arguments those that the function has, in order of
            preference (compat.v1 has other names for some).
        defaults: arguments of the operation that the function has another default for.
        idle: arguments that make no difference to labels.
    """

    kind: str
    takes: tuple[str, ...] = ()
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()

    def __call__(self, call: LayerCall) -> Any:
        given = {key: value for key, value in call.kwargs.items() if value is not None}
        operands = [*call.args, *(given[key] for key in self.takes if key in given)]
        if len(operands) != len(call.args) + len(self.takes):
            raise CannotTell("is called with operands that the file does not hold")
        found = {
            ours: next((name for name in theirs if name in given), None)
            for ours, theirs in self.named.items()
        }
        named = self.defaults | {ours: given[name] for ours, name in found.items() if name}
        # What is not set may have to be written down once units go.
        renamed = {ours: found[ours] or theirs[0] for ours, theirs in self.named.items()}
        if any(isinstance(leaf, Labels) for leaf in leaves(named)):
            raise CannotTell("is controlled by a tensor that is only known at run time")
        view = call.seen_as(self.kind, operands, named, renamed, config={})
        return OPERATIONS.rules[self.kind].function(view)

    def entry(self) -> Function:
        """Its place in the table."""
        names = {name for theirs in self.named.values() for name in theirs}
        return Function(
            self, frozenset({*self.takes, *names}), frozenset(self.idle), twin=self.kind
        )


FUNCTIONS: dict[str, Function] = {}


def twins(*names: str, twin: Twin) -> None:
    """Enter functions that an operation of keras.ops answers for."""
    for name in names:
        FUNCTIONS[name] = twin.entry()


def function(
    *names: str, takes: str = "", idle: str = "", reads_sizes: bool = False
) -> Callable[[FunctionRule], FunctionRule]:
    """Decorator: the rule answers for these functions.

    Args:
        names: without `tf.` and `compat.v1.`.
        takes, idle: names of arguments, with spaces between them; see `Function`.
    """

    def register(rule: FunctionRule) -> FunctionRule:
        for name in names:
            FUNCTIONS[name] = Function(
                rule, frozenset(takes.split()), frozenset(idle.split()), reads_sizes
            )
        return rule

    return register


def odd_arguments(call: LayerCall, known: Function) -> list[str]:
    """Names of arguments that are set and that the rule does not look at; a tensor never is idle."""
    idle = known.idle | IDLE
    return sorted(
        key
        for key, value in call.kwargs.items()
        if key not in known.takes
        and not (key in idle and not any(isinstance(leaf, Labels) for leaf in leaves([value])))
        and not (value is None or value is False)
        and not (key == "data_format" and value in CHANNELS_LAST)
    )


def written(call: LayerCall) -> dict[str, Any]:
    """The arguments of a call but the first, as they stand in the config, to be followed there."""
    nodes = call.layer.spec.get("inbound_nodes")
    if call.graph_call is None or not nodes:
        raise CannotTell("has arguments that the config does not spell out")
    return legacy_kwargs(nodes[call.graph_call.node])


def argument(call: LayerCall, name: str, default: Any = None) -> Any:
    """An argument behind the first, or its default where it is not set."""
    value = call.kwargs.get(name)
    return default if value is None else value


def whole_number(call: LayerCall, name: str, default: int | None = None) -> int:
    """An argument that must be a number in the config. Raises: CannotTell if it is anything else."""
    value = argument(call, name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CannotTell(f"is controlled by {name}, which is not a number in the config")
    return value


def plain_list(call: LayerCall, value: Any) -> np.ndarray:
    """An argument that must be numbers in the config, int64. Raises: CannotTell if it is anything else."""
    if value is None or any(not isinstance(leaf, (int, bool)) for leaf in leaves([value])):
        raise CannotTell("is controlled by numbers that are only known at run time")
    return np.asarray(value, np.int64)


def tensor(value: Any) -> Labels:
    """An operand that must be a tensor. Raises: CannotTell if it is written into the config."""
    if not isinstance(value, Labels):
        raise CannotTell("is given an array that is written into the config")
    return value


def only(call: LayerCall, name: str, *values: Any) -> None:
    """Say that an argument must have one of these values if it is set. Raises: CannotTell otherwise."""
    value = call.kwargs.get(name)
    if value is not None and value not in values:
        raise CannotTell(f"is called with {name}={value!r}")
