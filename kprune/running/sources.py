"""What a caller gives as data: a file, arrays, batches, or a function that makes any of these."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeGuard

import numpy as np
from msgspec import Struct

from kprune.errors import CannotPruneError, UsageError
from kprune.faults import shown
from kprune.text import clean
from kprune.types import AnyPath


class Batches(Protocol):
    """Batches by number, as a `keras.utils.PyDataset` has them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


DataSource = (
    str
    | os.PathLike[str]
    | np.ndarray
    | Mapping[str, Any]
    | tuple[Any, ...]
    | Iterable[Any]
    | Batches
    | Callable[[], Any]
)
"""What is taken as data, wherever data are taken.

- the path of an .npz file with `x`, or an array for each input by its name; `y` for targets, or an array for
  each output by its name
- `package.module:function`, which is imported and called, or a function: it gives any of the following
- an array; a mapping with the same names as in a file
- a tuple (x, y), either an array or, of several, a mapping by name or a list in the model's order;
  sample weights may follow, and are left out
- a tf.data.Dataset, a keras.utils.PyDataset, or anything else that gives batches (or single
  samples), each of them in one of these forms
"""

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
INFINITE = -1  # tf.data.INFINITE_CARDINALITY


class Given(Struct, frozen=True, eq=False):
    """Data as they were given, a function's as it gave them.

    Attributes:
        value: a path, an array, a mapping, a tuple, or batches.
        name: what messages and reports call it.
        file: whether `name` is that of a file or of a function: what a user can write down.
    """

    value: Any
    name: str
    file: bool

    @property
    def is_path(self) -> bool:
        """Whether it is an .npz file."""
        return isinstance(self.value, (str, os.PathLike))

    @property
    def is_dataset(self) -> bool:
        """Whether it is a tf.data.Dataset."""
        return hasattr(self.value, "element_spec")

    @property
    def is_batches(self) -> bool:
        """Whether it has to be read batch by batch."""
        whole = isinstance(self.value, (str, os.PathLike, Mapping, tuple)) or is_array(self.value)
        return not whole

    @property
    def said(self) -> str:
        """Its name, fit to be printed."""
        return shown(self.name) if self.file else self.name

    @property
    def dataset(self) -> str:
        """The same of a dataset."""
        return f"the dataset of {self.said}" if self.file else self.said

    @property
    def verb(self) -> str:
        """What a user does to change it."""
        return "save" if self.is_path else "give"

    def refuse_endless(self) -> None:
        """Raises: UsageError for a dataset that says it has no end."""
        if self.is_dataset and int(self.value.cardinality()) == INFINITE:
            raise UsageError(
                f"{self.dataset} has no end",
                do="leave out .repeat(), or bound it with .take(batches): one pass is an epoch",
            )

    def batches(self) -> Iterator[Any]:
        """The batches, one by one.

        Raises: CannotPruneError if whatever makes them fails.
        """
        value = self.value
        try:
            if hasattr(value, "__iter__"):
                yield from value
            else:
                yield from (value[number] for number in range(len(value)))
        except Exception as error:  # it is the user's code, which may raise anything
            raise _failed(self.said, error) from error


def given(data: DataSource | Given) -> Given:
    """Data by their name; a function is called.

    Raises: UsageError for a value that is not data, CannotPruneError for a function that fails.
    """
    if isinstance(data, Given):
        return data
    name, file = _name(data)
    if isinstance(data, (str, os.PathLike)):
        if not is_function(data):
            return Given(data, name, file)
        return _checked(Given(_called(name, lambda: _function(name)()), name, file))
    if _is_callable(data):
        return _checked(Given(_called(name, data), name, file))
    return _checked(Given(data, name, file))


def named(data: DataSource | Given) -> str:
    """What reports call data. No function is called."""
    return data.name if isinstance(data, Given) else _name(data)[0]


def _name(data: DataSource) -> tuple[str, bool]:
    """What data are called, and whether that is the name of a file or of a function."""
    if isinstance(data, (str, os.PathLike)):
        return os.fspath(data), True
    if not _is_callable(data):
        return f"the {_kind(data)} given", False
    own = getattr(data, "__qualname__", "<lambda>")
    if own.isidentifier():
        return f"{data.__module__}:{own}", True
    return "the function given", False


def _is_callable(data: Any) -> TypeGuard[Callable[[], Any]]:
    """Whether data are a function that makes them; a dataset may be callable as well."""
    return callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__")


def is_function(data: AnyPath) -> bool:
    """Whether data are named as `package.module:function`, and not as a file that is there."""
    text = os.fspath(data)
    return _FUNCTION.fullmatch(text) is not None and not os.path.lexists(text)


def held(data: DataSource) -> DataSource:
    """The same data, so that they can be read several times, and in other processes.

    What gives batches is read to its end; files and functions that have a name are left to be read there.
    """
    if isinstance(data, (str, os.PathLike)):
        return data
    found = given(data)
    if not found.is_batches:
        value: DataSource = found.value
        return value
    found.refuse_endless()
    return [_in_numpy(batch) for batch in found.batches()]


def _in_numpy(batch: Any) -> Any:
    """A batch with arrays in place of tensors."""
    if isinstance(batch, Mapping):
        return {key: _in_numpy(part) for key, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts = [_in_numpy(part) for part in batch]
        return tuple(parts) if isinstance(batch, tuple) else parts
    return np.asarray(batch)


def is_array(value: Any) -> bool:
    """Whether something is an array or a tensor, of whatever package."""
    return hasattr(value, "__array__") and hasattr(value, "shape")


def _kind(value: Any) -> str:
    """A word for what was given, for messages."""
    if is_array(value):
        return "array"
    if isinstance(value, Mapping):
        return "dict"
    if hasattr(value, "element_spec") or hasattr(value, "num_batches"):
        return "dataset"
    if hasattr(value, "__next__"):
        return "generator"
    return clean(type(value).__name__)


def _checked(found: Given) -> Given:
    """Raises: UsageError for a value of a type that holds no data."""
    value = found.value
    readable = hasattr(value, "__iter__") or (
        hasattr(value, "__getitem__") and hasattr(value, "__len__")
    )
    if isinstance(value, (str, os.PathLike)) and found.file:
        return found  # a function may say which file
    if isinstance(value, (bytes, set, frozenset)) or not (readable or is_array(value)):
        raise UsageError(
            f"no data can be read from {clean(found.name)}",
            why=f"the value is of type {clean(type(value).__name__)}",
            do="give an .npz file, arrays (x, or (x, y)), or a tf.data.Dataset",
        )
    return found


def _function(name: str) -> Callable[[], Any]:
    """The function of that name. The folder one stands in may hold its module, as with `python -m`."""
    path, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"there is no module '{clean(path)}', and no file {clean(name)}",
            do="name an .npz file, or package.module:function, the module in this folder or "
            "on PYTHONPATH",
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UsageError(
            f"{clean(path)} has no function '{clean(attribute)}'",
            where=clean(getattr(module, "__file__", "") or "", 300),
        )
    made: Callable[[], Any] = function
    return made


def _called(name: str, make: Callable[[], Any]) -> Any:
    """What a function of the user's gives. Raises: CannotPruneError if it fails."""
    try:
        return make()
    except UsageError:
        raise
    except Exception as error:  # it is the user's code, which may raise anything
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> CannotPruneError:
    return CannotPruneError(
        f"{clean(name)} fails",
        why=f"{type(error).__name__}: {clean(' '.join(str(error).split()), 300)}",
        do="--debug shows the traceback",
    )
