"""How much a file, or a command, may ask for: every bound by its name, in one table.

A file from anywhere may be small and ask for gigabytes. Whoever reads a part of one compares what
the part asks for with a bound from here before anything is allocated; the refusal names the bound.
It is raised (or lowered) by `--limit NAME=VALUE` on the command line, and in Python by

    with kprune.limit(json_items=5_000_000):
        kprune.inspect("large.keras")

This holds for the thread that says so, and for the threads that kprune starts for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from msgspec import Struct

from kprune.errors import LimitError, UsageError

_SET: ContextVar[Mapping[str, int]] = ContextVar("_SET", default={})  # noqa: B039 - never modified


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


class Limit(Struct, frozen=True):
    """One bound.

    Attributes:
        name: as `--limit` takes it.
        default: how much is allowed unless told otherwise.
        unit: what is counted: "bytes", "levels", …
        meaning: what is bounded, in one line.
    """

    name: str
    default: int
    unit: str
    meaning: str

    @property
    def value(self) -> int:
        """How much is allowed now."""
        return _SET.get().get(self.name, self.default)

    def check(self, count: int, what: str, file: object) -> None:
        """Compare what a file asks for with the bound.

        Args:
            count: how much it asks for, in the limit's unit.
            what: the part of the file that does, such as "config.json".
            file: how messages call the file.
        Raises: LimitError if it is too much.
        """
        if count > self.value:
            raise self.exceeded(count, what, file)

    def exceeded(self, count: int | None, what: str, file: object) -> LimitError:
        """The refusal for a file that asks for too much.

        Args:
            count: how much it asks for; None if that is not known.
            what, file: see `check`.
        """
        found = "more" if count is None else _said(count)
        why = f"{what} has {found} {self.unit}; limit {self.name}, {self.value:,}"
        return LimitError(f"{file} asks for too much", why=why, do=self.do)

    def read(self, stream: Readable, file: object) -> bytes:
        """All of a stream, which need not have an end.

        Args:
            file: how messages call it.
        Raises: LimitError if it is longer than this limit (of bytes) allows.
        """
        data = stream.read(self.value + 1)
        if len(data) > self.value:
            raise self.exceeded(None, "it", file)
        return data

    @property
    def do(self) -> str:
        """What the reader of a refusal can do."""
        return f"if it is meant to be so large, raise the limit with --limit {self.name}=N"


JSON_BYTES = Limit("json-bytes", 64_000_000, "bytes", "length of one JSON text")
JSON_LEVELS = Limit("json-levels", 300, "levels", "nesting of one JSON text")
JSON_ITEMS = Limit("json-items", 2_000_000, "items", "values in one JSON text")

LIST_BYTES = Limit("list-bytes", 16_000_000, "bytes", "one file of units, tokens or class names")
LIST_ITEMS = Limit("list-items", 500_000, "items", "one list of units")
PLAN_BYTES = Limit("plan-bytes", 2_000_000, "bytes", "one plan")
PLAN_ITEMS = Limit("plan-items", 160_000, "items", "keys and values in one plan")
PLAN_STEPS = Limit("plan-steps", 1_000, "steps", "steps of one plan")
PIPE_BYTES = Limit("pipe-bytes", 8_000_000_000, "bytes", "a model or data read from a pipe")
UNPACKED_BYTES = Limit(
    "unpacked-bytes", 500_000_000, "bytes", "a member of a zip that is packed more than 100-fold"
)

MODEL_UNITS = Limit("units", 1_000_000, "units", "units of a model's layers, in all")
POSITIONS = Limit("positions", 4_000_000, "positions", "places in tensors that are told apart")
MODEL_CALLS = Limit("calls", 30_000, "calls", "calls of layers, those in nested models each time")

ATTRIBUTE_BYTES = Limit("attribute-bytes", 64_000_000, "bytes", "attributes of one HDF5 file")
HDF5_OBJECTS = Limit("hdf5-objects", 200_000, "objects", "groups and datasets of one HDF5 file")
CHUNK_BYTES = Limit("chunk-bytes", 256_000_000, "bytes", "one chunk of a dataset, unpacked")
HDF5_SECONDS = Limit("hdf5-seconds", 3, "seconds", "of CPU time for the metadata of an HDF5 file")
HDF5_MEMORY = Limit("hdf5-memory", 256_000_000, "bytes", "memory for the metadata of an HDF5 file")
VALUE_BYTES = Limit(
    "value-bytes",
    4_000_000_000,
    "bytes",
    "values of an HDF5 file, unpacked, beyond its own size",
)

TABLE = {found.name: found for found in list(globals().values()) if isinstance(found, Limit)}
"""All bounds by name."""

_BYTES_OF_A_NUMBER = 4
_PLAINLY_PACKED = 100  # of numbers and texts little gets smaller than to a hundredth


def _said(count: int) -> str:
    """A number, or where it has more digits than say something its magnitude."""
    digits = int(count.bit_length() * math.log10(2))
    return f"{count:,}" if digits < 18 else f"some 10^{digits}"


@contextmanager
def limit(**values: float) -> Iterator[None]:
    """Set bounds for what runs inside the `with`.

    Args:
        values: by name, `_` for `-`: `limit(json_items=5_000_000)`.
    Raises: UsageError for an unknown name, or for less than 1.
    """
    found = {name.replace("_", "-"): value for name, value in values.items()}
    before = _SET.set({**_SET.get(), **{name: _whole(name, it) for name, it in found.items()}})
    try:
        yield
    finally:
        _SET.reset(before)


def check_unpacked(packed: int, size: int, what: str, file: object) -> None:
    """Compare how large a member of a zip archive becomes with what is allowed.

    Args:
        packed, size: its bytes in the archive, and unpacked.
        what, file: see `Limit.check`.
    Raises: LimitError for a zip bomb. Keras refuses those beyond 4 GiB (keras/src/saving/saving_lib.py).
    """
    if size > _PLAINLY_PACKED * packed:
        UNPACKED_BYTES.check(size, what, file)


@contextmanager
def for_file(size: int) -> Iterator[None]:
    """Bounds on what is told apart in a model, for a file of this size, where nobody set them.

    Each unit has numbers in the file, so a large file may well have more units than a small one.

    Args:
        size: of the file, in bytes.
    """
    grown = {
        limit.name: max(limit.default, size // _BYTES_OF_A_NUMBER)
        for limit in (MODEL_UNITS, POSITIONS)
    }
    before = _SET.set({**grown, **_SET.get()})
    try:
        yield
    finally:
        _SET.reset(before)


def given() -> dict[str, int]:
    """The bounds that were set, by the names that `limit` takes; for a process started to read a part."""
    return {name.replace("-", "_"): value for name, value in _SET.get().items()}


def _whole(name: str, value: float) -> int:
    if name not in TABLE:
        from kprune.pointing import did_you_mean, quoted

        hint = did_you_mean(name, TABLE)
        raise UsageError(
            f"there is no limit {quoted(name)}" + (f"; {hint}" if hint else ""),
            do="the limits are " + ", ".join(TABLE),
        )
    if not 1 <= value < float("inf"):
        raise UsageError(f"limit {name} must be at least 1, got {value:g}")
    return int(value)
