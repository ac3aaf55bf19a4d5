"""The tables of rules, and how a layer finds its own.

A rule is a function that takes a `LayerCall` and returns the labels of what comes out. It is
registered with what it does to units, in one of five words:

    issues      makes units of its own (Dense, Conv2D, LSTM, Embedding)
    passes      passes units on, wherever it moves them (Flatten, pooling, BatchNormalization)
    combines    combines several tensors, which ties or joins their units (Add, Concatenate)
    mixes       computes a statistic over units: removing one changes the others (LayerNormalization)
    opaque      nothing can be removed through it, and the rule says why (Lambda)
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from kprune.graph.model import Layer
from kprune.text import clean
from kprune.tracing.layer_call import LayerCall
from kprune.tracing.tfmot import remedy

if TYPE_CHECKING:
    from kprune.tracing.code_graph import CodeTracer

RuleFunction = Callable[[LayerCall], Any]
ANSWERS = ("issues", "passes", "combines", "mixes", "opaque")
VALUES = ("", "same", "moved")


class Rule(Struct, frozen=True):
    """What a class does to labels.

    Attributes:
        name: the class name, or the registered name (`package>Class`) of a custom class.
        function: takes a LayerCall, returns Labels in the structure of the layer's outputs.
        does: one of `ANSWERS`.
        note: one line for `kprune rules`.
        builtin: whether it came with kprune.
        source: file that holds it.
        code: whether such a layer is code of the user's own: where that may be run it is traced, and
            the rule answers if it cannot be.
        values: what becomes of the values where the model is used, not trained: each stands where it
            stood ("same", as behind Dropout), or elsewhere ("moved", as behind Flatten); "" for
            all else. Folding, merging and what observes units on data go through the first two.
    """

    name: str
    function: RuleFunction
    does: str
    note: str
    builtin: bool
    source: str
    code: bool = False
    values: str = ""


class RuleMap(MutableMapping[str, Rule]):
    """Rules by class name, of which those of a family are loaded when they may be needed.

    Looking for one class imports families one after the other until one of them has registered it.
    Going over all of them imports every family first.

    Attributes:
        registered: the rules of all families imported so far.
        families: modules that register more as they are imported, those of common classes first.
    """

    def __init__(self) -> None:
        self.registered: dict[str, Rule] = {}
        self.families: Sequence[str] = ()

    def _load(self, name: str | None = None) -> None:
        """Import families until one of them has a rule for a class; all of them for None."""
        for family in self.families:
            if name in self.registered:
                return
            importlib.import_module(family)  # costs next to nothing from the second time on

    def __getitem__(self, name: str) -> Rule:
        if name not in self.registered:
            self._load(name)
        return self.registered[name]

    def __setitem__(self, name: str, rule: Rule) -> None:
        self.registered[name] = rule

    def __delitem__(self, name: str) -> None:
        del self.registered[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self.registered)

    def __len__(self) -> int:
        self._load()
        return len(self.registered)


class Table(Struct):
    """Where rules are registered, by class name."""

    builtin: bool
    rules: RuleMap = field(default_factory=RuleMap)

    def rule(
        self, *names: str, does: str, note: str = "", code: bool = False, values: str = ""
    ) -> Callable[[RuleFunction], RuleFunction]:
        """Decorator: the function answers for these classes.

        Args:
            does, note, code, values: see `Rule`.
        Raises: ValueError if `does` is not one of the five words, or a class has a rule already.
        """
        if does not in ANSWERS:
            raise ValueError(f"does={does!r} is not one of {', '.join(ANSWERS)}")
        if values not in VALUES or (values and does != "passes"):
            raise ValueError(f'values={values!r} is neither "same" nor "moved" of what passes')

        def register(function: RuleFunction) -> RuleFunction:
            for name in names:
                known = self.rules.registered.get(name)
                if known is not None and known.function.__code__ is not function.__code__:
                    raise ValueError(f"{name} has a rule already, in {known.source}")
                summary = note or (function.__doc__ or "").strip().partition("\n")[0]
                self.rules[name] = Rule(
                    name,
                    function,
                    does,
                    summary,
                    self.builtin,
                    function.__code__.co_filename,
                    code,
                    values,
                )
            return function

        return register


LAYERS = Table(builtin=True)
OPERATIONS = Table(builtin=True)
PACKAGES = Table(builtin=True)
CUSTOM = Table(builtin=False)


class Rules(Struct, frozen=True):
    """All tables together.

    Attributes:
        layers: Keras's own layer classes.
        operations: classes of `keras.ops` nodes.
        custom: classes from elsewhere, by registered name or plain class name.
        packages: layers of packages that kprune knows, by `package>Class`.
        code_tracer: traces the code of layers that have no rule, if the user trusts it.
        traceable: whether it could, if the user did: not in a file of Keras 2.
        ask_packages: fills `custom` with the rules of installed packages, when first called. To look
            for those takes longer than a model's analysis, so that is left until a layer needs it.
    """

    layers: Mapping[str, Rule]
    operations: Mapping[str, Rule]
    custom: Mapping[str, Rule]
    packages: Mapping[str, Rule] = field(default_factory=dict)
    code_tracer: CodeTracer | None = None
    traceable: bool = True
    ask_packages: Callable[[], None] | None = None

    def find(self, layer: Layer) -> Rule | None:
        """The rule for a layer, or None.

        A custom class never gets the rule of a Keras class of the same name.
        """
        if layer.is_operation:
            return self.operations.get(layer.kind)
        kind = layer.kind.rpartition(">")[2]  # a legacy file says under which name it is registered
        known = self.layers.get(kind) if layer.is_builtin else None
        if known is not None and not known.code:
            return known  # a user's rule may answer for a Keras class that has none here, never replace one
        own = self._own(layer)
        if layer.is_builtin:
            return own or known
        return own or self.packages.get(package_name(layer))

    def _own(self, layer: Layer) -> Rule | None:
        """The user's rule: one for the layer alone, registered as `Class:path`, or one for its class."""
        custom = self._custom()
        kinds = (layer.registered or layer.kind, layer.kind)
        names = (*(f"{kind}:{layer.path}" for kind in kinds), *kinds)
        return next((custom[name] for name in names if name in custom), None)

    def _custom(self) -> Mapping[str, Rule]:
        if self.ask_packages is not None:
            self.ask_packages()
        return self.custom

    def from_package(self, layer: Layer) -> bool:
        """Whether a layer's rule is one of those for packages that kprune knows."""
        if layer.is_builtin or layer.is_operation:
            return False
        rule = self.packages.get(package_name(layer))
        return rule is not None and self.find(layer) is rule

    def without(self, names: Iterable[str]) -> Rules:
        """The same except some layers of packages."""
        left = {name: rule for name, rule in self.packages.items() if name not in set(names)}
        return replace(self, packages=left)

    def why_not(self, layer: Layer) -> str:
        """Why a layer without a rule freezes what reaches it."""
        kind = clean(layer.registered or layer.kind)
        what = "operation" if layer.is_operation else "layer"
        if found := remedy(layer):
            return f"'{clean(layer.path)}' is a {kind} {what}, which {found[0]}"
        reason = f"'{clean(layer.path)}' is a {kind} {what}, for which kprune has no rule"
        if not layer.is_builtin and package_name(layer) in PACKAGES.rules:
            return f"{reason} that fits: its weights are those of another release of the package"
        if not layer.is_builtin and layer.kind in self.layers:
            return f"{reason} (it is not Keras's own {clean(layer.kind)})"
        near = difflib.get_close_matches(layer.kind, [*self.layers, *self.operations], 1, 0.85)
        return f"{reason} (the nearest is {near[0]})" if near else reason

    def what_to_do(self, layer: Layer) -> str:
        """What helps with a layer without a rule, where it is not what helps with all of them."""
        found = remedy(layer)
        return "" if found is None else found[1]


def package_name(layer: Layer) -> str:
    """`package>Class` of a layer that is not Keras's own, whether it was registered so or not.

    The package is that of its module: what somebody else registered under the same name is not it.
    """
    return f"{layer.module.partition('.')[0]}>{layer.kind}"
