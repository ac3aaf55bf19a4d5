"""Which optimizer slot belongs to which variable.

Keras stores an optimizer's variables as numbered tensors with no names. Their order follows from the
optimizer's class and options and from the trainable variables in model order; a slot is cut exactly
like its variable. If the tensors in the file are not those that this order predicts, shape by
shape, the state is left out with a note, and Keras loads the model with a new optimizer. A wrong
state is never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from kprune.analysis.analysis import Analysis, Stored
from kprune.graph.weight_groups import GROUPS, is_state
from kprune.labels.map import Weight
from kprune.text import clean

INNER = "optimizer/inner_optimizer/"

# Two slots a variable, side by side (keras/src/optimizers).
PAIRS = frozenset(
    {"Adam", "AdamW", "Nadam", "Adamax", "Lamb", "Ftrl", "Adadelta", "ScheduleFreeAdamW"}
)
SINGLE = frozenset({"Adagrad", "Lion"})
ADAFACTOR = "Adafactor"
KNOWN = {name.lower(): name for name in (*PAIRS, *SINGLE, "SGD", "RMSprop", ADAFACTOR)}


class Slot(Struct, frozen=True):
    """One tensor of the optimizer's state.

    Attributes:
        path: dataset path.
        weight: the variable it belongs to.
        axes: which of the variable's axes it has (Adafactor's factors lack one).
    """

    path: str
    weight: Weight
    axes: tuple[int, ...]


class Slots(Struct, frozen=True):
    """The optimizer's state.

    Attributes:
        found: slots that follow their variable.
        dropped: path prefixes that have to be left behind.
        why: the reason, if any is.
    """

    found: tuple[Slot, ...] = ()
    dropped: tuple[str, ...] = ()
    why: str = ""


# What is expected at one place: the variable and which of its axes, or None for a scalar of its own.
Expected = tuple[Weight, tuple[int, ...]] | None


def find_slots(analysis: Analysis) -> Slots:
    """The optimizer slots in a file, each with its variable."""
    stored = {path: tensor for path, tensor in analysis.tensors.items() if is_state(path)}
    if not stored:
        return Slots()
    name, config = optimizer_of(analysis)
    if name != "LossScaleOptimizer" and any(path.startswith(INNER) for path in stored):
        # With a mixed_float16 policy `compile` wraps what it is given, and records what it was given.
        config = {"inner_optimizer": {"class_name": name, "config": config}}
        name = "LossScaleOptimizer"
    variables = [
        weight for weight in analysis.variables if weight.trainable and not weight.duplicate
    ]
    found: list[Slot] = []
    for group, tensors in _ordered(analysis, stored).items():
        matched = _match(name, config, group, tensors, variables) if tensors is not None else None
        if matched is None:
            return Slots(
                dropped=GROUPS,
                why=f"the state of the optimizer ({clean(name or '?')}) has a layout that kprune "
                "does not know, so it was left out; training starts with a new one",
            )
        found.extend(matched)
    return Slots(tuple(found))


def has_schedule(analysis: Analysis) -> bool:
    """Whether the optimizer's learning rate goes by the number of the step."""
    _, config = optimizer_of(analysis)
    _, inner = _class_and_config(config.get("inner_optimizer"))
    return isinstance((inner or config).get("learning_rate"), dict)


class SlotsLeft(Struct, frozen=True):
    """The optimizer's state after some variables were removed.

    Attributes:
        moved: by dataset path the new one, where slots are numbered.
        gone: paths of the slots whose variables are gone.
    """

    moved: Mapping[str, str]
    gone: tuple[str, ...]


def slots_left(analysis: Analysis, is_gone: Callable[[str], bool]) -> SlotsLeft | None:
    """The slots without those of variables that go; None where that cannot be told.

    Args:
        is_gone: whether the variable with a dataset path goes.
    """
    slots = find_slots(analysis)
    name, config = optimizer_of(analysis)
    inner = _class_and_config(config.get("inner_optimizer"))[0]
    if slots.dropped or ADAFACTOR in (name, inner):  # whose scalars are not known by variable
        return None
    gone = {slot.path for slot in slots.found if is_gone(slot.weight.path)}
    moved: dict[str, str] = {}
    if analysis.order is None:
        stored = {path: tensor for path, tensor in analysis.tensors.items() if is_state(path)}
        for group, tensors in _ordered(analysis, stored).items():
            left = [path for path, _ in tensors or () if path not in gone]
            moved.update((path, f"{group}/{number}") for number, path in enumerate(left))
    return SlotsLeft({old: new for old, new in moved.items() if old != new}, tuple(gone))


def optimizer_of(analysis: Analysis) -> tuple[str, dict[str, Any]]:
    """Class and config of the optimizer that the model was compiled with; ("", {}) if it was not."""
    compiled = analysis.config.get("compile_config")
    trained = analysis.metadata.get("training_config")  # in a legacy `.h5`
    found = compiled.get("optimizer") if isinstance(compiled, dict) else None
    if not found and isinstance(trained, dict):
        found = trained.get("optimizer_config")
    return _class_and_config(found)


def _class_and_config(spec: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(spec, dict):
        # Keras 2 keeps what `compile` was given: `adam` is Adam with nothing set.
        return KNOWN.get(str(spec or "").lower(), str(spec or "")), {}
    config = spec.get("config")
    # A custom class goes by its registered name, so that it is not taken for Keras's.
    registered = str(spec.get("registered_name") or "").removeprefix("Custom>")
    name = (
        registered
        if ">" in registered
        else str(spec.get("class_name") or "").removeprefix("Custom>")
    )
    return name, config if isinstance(config, dict) else {}


def _ordered(
    analysis: Analysis, stored: Mapping[str, Stored]
) -> dict[str, list[tuple[str, Stored]] | None]:
    """The tensors of each group in their order; None where that cannot be told."""
    if analysis.order is not None:
        listed = analysis.order.optimizer
        whole = set(listed) == set(stored)
        return {GROUPS[1]: [(path, stored[path]) for path in listed] if whole else None}
    groups = sorted({path.rpartition("/")[0] for path in stored})
    return {group: _numbered(stored, group) for group in groups}


class _Layout(Struct):
    places: list[Expected] = field(default_factory=list)

    def scalars(self, count: int) -> None:
        self.places.extend([None] * count)

    def block(self, variables: list[Weight], each: int = 1) -> None:
        for weight in variables:
            self.places.extend([(weight, tuple(range(len(weight.shape))))] * each)


def _match(
    name: str,
    config: dict[str, Any],
    group: str,
    tensors: list[tuple[str, Stored]],
    variables: list[Weight],
) -> list[Slot] | None:
    """Slots of one group of tensors, or None if they are not what the optimizer's class predicts."""
    for places in _layouts(name, config, group, variables):
        if len(places) == len(tensors) and all(
            _fits(place, tensor) for place, (_, tensor) in zip(places, tensors, strict=True)
        ):
            return [
                Slot(path, *place)
                for place, (path, _) in zip(places, tensors, strict=True)
                if place is not None
            ]
    return None


def _layouts(
    name: str, config: dict[str, Any], group: str, variables: list[Weight]
) -> Iterator[list[Expected]]:
    """The possible orders: with and without a learning rate variable, before and after the first step."""
    if name == "LossScaleOptimizer":
        inner = _class_and_config(config.get("inner_optimizer"))
        if f"{group}/".startswith(INNER):
            yield from _layouts(*inner, GROUPS[0], variables)
            return
        for places in _layouts(*inner, GROUPS[0], variables):
            # iteration, learning rate (none with a schedule), step counter, scale
            for head in (4, 3):
                yield [*[None] * head, *places]
        return
    for head in (2, 1, 0):
        scalars: list[Expected] = [None] * head
        yield scalars
        own = _own_slots(name, config, variables)
        if own is None:
            continue
        layout = _Layout()
        layout.scalars(head)
        if config.get("use_ema"):
            layout.block(variables)
        if config.get("gradient_accumulation_steps"):
            layout.block(variables)
        yield layout.places + own


def _own_slots(
    name: str, config: Mapping[str, Any], variables: list[Weight]
) -> list[Expected] | None:
    """The slots of one optimizer class after those that all have; None for a class that is not known."""
    layout = _Layout()
    if name == "SGD":
        if config.get("momentum"):
            layout.block(variables)
    elif name == "RMSprop":
        layout.block(variables)
        if config.get("momentum"):
            layout.block(variables)
        if config.get("centered"):
            layout.block(variables)
    elif name in PAIRS and _before_2_11(config):
        layout.block(variables)
        layout.block(variables)
        if config.get("amsgrad"):
            layout.block(variables)
    elif name in PAIRS:
        layout.block(variables, each=2)
        if config.get("amsgrad"):
            layout.block(variables)
        if name == "Nadam":
            layout.scalars(1)
    elif name in SINGLE:
        layout.block(variables)
    elif name == ADAFACTOR:
        for weight in variables:
            whole = tuple(range(len(weight.shape)))
            if len(whole) >= 2:
                layout.places += [
                    (weight, whole[:-1]),
                    (weight, (*whole[:-2], whole[-1])),
                    (weight, whole),
                ]
            else:
                layout.places += [None, None, (weight, whole)]
    else:
        return None
    return layout.places


def _before_2_11(config: Mapping[str, Any]) -> bool:
    """Whether the optimizer is one of Keras before 2.11 (`optimizers.legacy`), with one block a slot."""
    return "decay" in config and "weight_decay" not in config


def _fits(place: Expected, tensor: Stored) -> bool:
    if place is None:
        return tensor.shape == ()
    weight, axes = place
    want = tuple(weight.shape[axis] for axis in axes)
    return len(want) == len(tensor.shape) and all(
        size is None or size == have for size, have in zip(want, tensor.shape, strict=True)
    )


def _numbered(stored: Mapping[str, Stored], group: str) -> list[tuple[str, Stored]] | None:
    """The tensors of a group in the order of their numbers; None if they are not 0, 1, 2 …"""
    tensors = []
    for path, tensor in stored.items():
        parent, _, number = path.rpartition("/")
        if parent == group:
            if not number.isdigit():
                return None
            tensors.append((int(number), path, tensor))
    tensors.sort(key=lambda item: item[0])
    if [number for number, _, _ in tensors] != list(range(len(tensors))):
        return None
    return [(path, tensor) for _, path, tensor in tensors]
