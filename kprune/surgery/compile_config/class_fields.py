"""What a loss or a metric says about classes, translated to those that are left.

Losses and metrics stand in a config by name, or with their options: which class is counted, how many
there are, a weight for each. After classes were removed a number means another class, or none.
Options of Keras's own classes (keras/src/losses, keras/src/metrics, and Keras 2's) are known by
their names, which classes of other packages share where they mean the same. What else another
package's class may say of classes is not guessed at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct

from kprune.graph.copies import copied
from kprune.text import clean

ACCURACY = ("accuracy", "acc")  # Keras chooses one by the labels and the width of the output
DEFAULT_K = 5  # of the two below, by name alone
TOP_K = {
    "topkcategoricalaccuracy": "TopKCategoricalAccuracy",
    "sparsetopkcategoricalaccuracy": "SparseTopKCategoricalAccuracy",
}
BLANK_FIRST = "ctc"  # its blank is class 0


class CannotFollow(Exception):
    """A loss or metric cannot be kept for the classes that are left; the text is the rest of a sentence."""


class ClassesLeft(Struct, frozen=True):
    """The classes along one axis of an output.

    Attributes:
        kept: int64, the original numbers of those that are left, rising.
        before: how many there were.
    """

    kept: np.ndarray
    before: int

    @property
    def count(self) -> int:
        return len(self.kept)

    def holds(self, number: int) -> bool:
        """Whether it is the number of one of the original's classes."""
        return 0 <= number < self.before

    def number(self, number: int) -> int | None:
        """The new number of a class; None if it is gone."""
        place = int(np.searchsorted(self.kept, number))
        return place if place < self.count and self.kept[place] == number else None


Along = Callable[[int], ClassesLeft | None]
"""Gives the classes along an axis of an output, counted from its end (-1); None if none of them is gone."""


class Followed(Struct):
    """What became of a loss or metric.

    Attributes:
        item: as it stands in the config now.
        changed: the names of its options that changed.
        remarks: what a reader should know, each the rest of a sentence.
    """

    item: Any
    changed: list[str]
    remarks: list[str]


def name_of(item: Any) -> str:
    """What a loss or metric is called: by its own name, or else that of its class or function."""
    if not isinstance(item, dict):
        return str(item)
    config = item.get("config")
    if isinstance(config, dict):
        return str(config.get("name") or item.get("class_name"))
    return str(config or item.get("class_name"))


def kind_of(item: Any) -> str:
    """Its class or function, in one spelling: `CategoricalHinge` and `categorical_hinge` are one."""
    if isinstance(item, dict):
        config = item.get("config")
        item = config if isinstance(config, str) else item.get("class_name")
    return str(item).rpartition(">")[2].replace("_", "").lower()


def is_foreign(item: dict[str, Any]) -> bool:
    """Whether it is a class or function that is not Keras's own."""
    registered = str(item.get("registered_name") or "")
    module = str(item.get("module") or "keras").partition(".")[0]
    own = module in ("keras", "builtins", "tf_keras")
    return ">" in registered + str(item.get("class_name")) or not own


def follow(item: Any, along: Along, *, loss_kind: str, plain: bool) -> Followed:
    """A loss or metric of an output that has lost classes.

    Args:
        item: its name, or a dict with its class and config; not changed.
        along: what is left along each axis of the output.
        loss_kind: `kind_of` the output's loss.
        plain: whether the file writes dicts without `module` and `registered_name`.
    Raises: CannotFollow if it counts what is gone.
    """
    last = along(-1)
    if last is not None and kind_of(item) == BLANK_FIRST and last.number(0) is None:
        raise CannotFollow("takes class 0, which is gone, for the blank")
    if isinstance(item, str):
        return _named(item, last, loss_kind, plain)
    if not isinstance(item, dict) or not isinstance(item.get("config"), dict):
        return Followed(item, [], [])
    new = copied(item, {})
    found = Followed(new, [], [])
    for name, value in item["config"].items():
        action = _FIELDS.get(name)
        if value is None or action is None or (kind_of(item), name) in _OTHER_MEANING:
            continue
        if name in _OWN_ONLY and is_foreign(item):
            continue
        axis = item["config"].get("axis", -1) if name in _ALONG_AXIS else -1
        classes = along(axis) if isinstance(axis, int) else last
        if classes is None and action is not _each:
            continue
        after = action(value, classes, along, found.remarks)
        if after != value:
            new["config"][name] = after
            found.changed.append(name)
    if is_foreign(item) and last is not None:
        _refuse_unknown(item["config"], last)
    return found


def _named(item: str, last: ClassesLeft | None, loss_kind: str, plain: bool) -> Followed:
    """One that goes by its name alone: Keras then chooses its options, by the width of the output."""
    known = Followed(item, [], [])
    if last is None:
        return known
    kind = TOP_K.get(kind_of(item))
    if kind is not None and last.count < DEFAULT_K:
        config = {"name": item, "dtype": "float32", "k": last.count}
        return Followed(_built(kind, config, plain), ["k"], [_all_within(last)])
    if item.lower() in ACCURACY and last.count == 1 and "categorical" in loss_kind:
        # Over one class it would be taken for the accuracy of a yes or no.
        kind = "SparseCategoricalAccuracy" if "sparse" in loss_kind else "CategoricalAccuracy"
        return Followed(_built(kind, {"name": item, "dtype": "float32"}, plain), ["class"], [])
    return known


def _built(kind: str, config: dict[str, Any], plain: bool) -> dict[str, Any]:
    bare = {"class_name": kind, "config": config}
    return bare if plain else {"module": "keras.metrics", **bare, "registered_name": None}


# -- options ---------------------------------------------------------------------------------------

Action = Callable[[Any, Any, Along, list[str]], Any]


def _class(value: Any, classes: ClassesLeft, along: Along, remarks: list[str]) -> Any:
    """The number of a class that is counted alone."""
    wanted = _whole(value)
    if -classes.before <= wanted < 0:  # counted from the end, as an index is
        wanted += classes.before
    number = classes.number(wanted)
    if number is None and classes.holds(wanted):
        raise CannotFollow(f"counts class {wanted}, which was removed")
    return value if number is None else number


def _classes(value: Any, classes: ClassesLeft, along: Along, remarks: list[str]) -> Any:
    """The numbers of classes that are counted together."""
    numbers = [_whole(number) for number in (value if isinstance(value, list) else [value])]
    left = [classes.number(number) for number in numbers]
    gone = [number for number, now in zip(numbers, left, strict=True) if now is None]
    if len(gone) == len(numbers):
        raise CannotFollow(f"counts classes that were removed ({', '.join(map(str, gone))})")
    if gone:
        remarks.append(f"no longer counts {', '.join(map(str, gone))}, of {numbers}")
    return [number for number in left if number is not None]


def _count(value: Any, classes: ClassesLeft, along: Along, remarks: list[str]) -> Any:
    """How many classes there are; a file may count more than the output has, for a void one."""
    return _whole(value) - int(
        (np.setdiff1d(np.arange(classes.before), classes.kept) < value).sum()
    )


def _ignored(value: Any, classes: ClassesLeft, along: Along, remarks: list[str]) -> Any:
    """The class of targets that are ignored."""
    number = classes.number(_whole(value))
    if number is not None or not classes.holds(value):
        return value if number is None else number
    if value >= classes.count:
        remarks.append(f"goes on ignoring labels {value}, which no class that is left has")
        return value
    remarks.append(f"ignores no class any more: labels of class {value} have to be left out")
    return None


def _at_most(value: Any, classes: ClassesLeft, along: Along, remarks: list[str]) -> Any:
    """How many of the classes are taken, the likeliest first."""
    if _whole(value) <= classes.count:
        return value
    remarks.append(_all_within(classes))
    return classes.count


def _all_within(classes: ClassesLeft) -> str:
    return f"takes the {classes.count} likeliest classes now, which are all"


def _each(value: Any, classes: ClassesLeft | None, along: Along, remarks: list[str]) -> Any:
    """A number for each class: a list, an array as Keras writes it, or a dict by class number."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        inner = {**value["config"]}
        inner["value"] = _each(inner.get("value"), classes, along, remarks)
        return {**value, "config": inner}
    if isinstance(value, dict):
        return _by_class(value, along(-1))
    array = np.asarray(value, dtype=object)
    for axis in range(-array.ndim, 0):
        left, size = along(axis), array.shape[axis]
        if left is None or size == 1:
            continue
        if size != left.before:
            raise CannotFollow(f"has {size} numbers for {left.before} classes")
        array = array.take(left.kept, axis)
    return array.tolist() if array.ndim else value


def _by_class(value: dict[str, Any], left: ClassesLeft | None) -> dict[str, Any]:
    if left is None:
        return value
    try:
        numbers = {int(key): share for key, share in value.items()}
    except ValueError:
        raise CannotFollow("uses names of classes, which kprune does not know") from None
    return {str(now): numbers[was] for now, was in enumerate(left.kept.tolist()) if was in numbers}


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise CannotFollow(f"counts classes by {clean(value, 40)}")
    return value


_FIELDS: dict[str, Action] = {
    "class_id": _class,
    "target_class_ids": _classes,
    "num_classes": _count,
    "num_labels": _count,
    "ignore_class": _ignored,
    "top_k": _at_most,
    "k": _at_most,
    "alpha": _each,
    "label_weights": _each,
    "class_weight": _each,
    "class_weights": _each,
    "normalizer": _each,
}
_OWN_ONLY = frozenset({"k", "normalizer"})  # these names mean other things elsewhere
_ALONG_AXIS = frozenset({"num_classes", "target_class_ids", "ignore_class"})
# BinaryIoU counts what lies below and above a threshold, of all classes together.
_OTHER_MEANING = frozenset({("binaryiou", "target_class_ids")})


def _refuse_unknown(config: dict[str, Any], last: ClassesLeft) -> None:
    """Raises: CannotFollow if a class of another package may say something of classes that kprune does not know."""
    for name, value in config.items():
        if name in _FIELDS and name not in _OWN_ONLY:
            continue
        word = str(name).lower()
        number = isinstance(value, int) and not isinstance(value, bool)
        about = ("class" in word or "label" in word) and (number or isinstance(value, (list, dict)))
        if about or (isinstance(value, list) and len(value) == last.before):
            raise CannotFollow(
                f"has an option '{clean(name, 40)}', which may refer to the classes as they were"
            )
