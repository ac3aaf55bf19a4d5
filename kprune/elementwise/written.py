"""Element-wise functions as a config writes them: a name, a function's dict, a layer's dict, a layer's class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from kprune.elementwise import facts
from kprune.elementwise.table import ACTIVATION, FUNCTIONS, LAYER, OPERATION, Formula

# Normalised over the last axis: what one unit gives depends on all of them.
OVER_LAST_AXIS = frozenset({"softmax", "log_softmax", "sparsemax"})


class Written(Struct, frozen=True):
    """A function of one operand, as something in a config names it.

    Attributes:
        kind, name: of `table`.
        parameters: the dict that its parameters are written in.
    """

    kind: str
    name: str
    parameters: Mapping[str, Any] = {}

    @property
    def keeps_zero(self) -> bool:
        return facts.keeps_zero(self.kind, self.name, self.parameters)

    @property
    def homogeneous(self) -> bool:
        return facts.homogeneous(self.kind, self.name, self.parameters)

    @property
    def formula(self) -> Formula | None:
        """None if a parameter is no plain number."""
        return facts.formula(self.kind, self.name, self.parameters)


def activation_name(activation: Any) -> str:
    """The name of a serialized activation: a string, a function's dict, or a layer's dict.

    Returns: `linear` for None; a class name for a layer; `package>name` for a function that is not Keras's.
    """
    if activation is None:
        return "linear"
    if isinstance(activation, str):
        return activation
    if not isinstance(activation, dict):
        return "?"
    kind, module = activation.get("class_name"), activation.get("module") or ""
    if kind == "function":
        name = activation.get("config")
        own = module in ("builtins", "") or module == "keras" or module.startswith("keras.")
        registered = activation.get("registered_name")
        if own and registered in (name, "function", None):
            return str(name)
        return str(registered or name)
    inner = activation.get("config") or {}
    if kind == "Activation":
        return activation_name(inner.get("activation"))
    return str(kind)


def written_activation(activation: Any) -> Written | None:
    """The function of a serialized activation; None if it is not one of the table's."""
    name = activation_name(activation)
    if name in FUNCTIONS[ACTIVATION]:
        return Written(ACTIVATION, name)
    if isinstance(activation, dict) and isinstance(activation.get("config"), dict):
        if activation.get("class_name") == "Activation":
            return written_activation(activation["config"].get("activation"))
        return written_layer(name, activation["config"])
    return Written(LAYER, name) if name in FUNCTIONS[LAYER] else None


def activation_formula(activation: Any) -> Formula | None:
    """The formula of a serialized activation; None if it is not one of the table's."""
    written = written_activation(activation)
    return written.formula if written is not None else None


def written_layer(kind: str, config: Mapping[str, Any]) -> Written | None:
    """The function of one operand that a layer, or a node of `keras.ops`, is; None for any other.

    Args:
        kind: its class.
        config: holds its parameters.
    """
    if kind == "Activation":
        return written_activation(config.get("activation"))
    for names in (LAYER, OPERATION):
        known = FUNCTIONS[names].get(kind)
        if known is not None and known.name.operands == 1:
            return Written(names, kind, config)
    return None
