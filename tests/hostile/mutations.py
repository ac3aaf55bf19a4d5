"""Changes to good files, as lists that JSON can hold: drawn at random, applied, and made fewer.

A change to bytes is one of

    ["put", at, hex]            other bytes in their place
    ["insert", at, hex]         more bytes
    ["delete", at, count]       fewer bytes
    ["copy", start, at, count]  bytes of the file itself in place of others
    ["cut", length]             nothing behind

and a change to JSON data one of

    ["set", path, value]        another value, or a further one
    ["drop", path]              no value
    ["graft", source, path]     what stands elsewhere in the same data
    ["nest", path, count]       the value within so many lists
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

Op = list[Any]
HUGE = 1 << 64


class Seed(Struct):
    """A good file, and where it is worth changing.

    Attributes:
        data: its bytes.
        places: offsets near which it is changed, most of the time.
        values: numbers that stand in it, such as addresses, which other fields may be given.
        words: texts to be put in.
    """

    data: bytes
    places: Sequence[int] = ()
    values: Sequence[int] = ()
    words: Sequence[bytes] = ()


def busy(data: bytes, skip: Sequence[range] = ()) -> list[int]:
    """Offsets of bytes that say something: not zero, or beside one that is not; none of `skip`."""
    left = [at for part in skip for at in part]
    leave = set(left)
    return [
        at
        for at in range(len(data))
        if at not in leave and any(data[max(0, at - 3) : at + 4]) and data[at] is not None
    ]


def numbers_in(data: bytes) -> list[int]:
    """Numbers of 8 bytes in a file that could be offsets in it."""
    found = set()
    for at in range(len(data) - 7):
        (value,) = struct.unpack_from("<Q", data, at)
        if 0 < value < len(data):
            found.add(value)
    return sorted(found)


def draw_bytes(rng: random.Random, seed: Seed) -> list[Op]:
    """One change or a few."""
    count = 1
    while count < 6 and rng.random() < 0.35:
        count += 1
    return [_byte_op(rng, seed) for _ in range(count)]


def _byte_op(rng: random.Random, seed: Seed) -> Op:
    data = seed.data
    length = len(data)
    at = (
        rng.choice(seed.places) if seed.places and rng.random() < 0.9 else rng.randrange(length + 1)
    )
    kind = rng.random()
    if seed.words and kind < 0.45:
        word = rng.choice(seed.words).hex()
        return ["insert", at, word] if rng.random() < 0.6 else ["put", at, word]
    if kind < 0.62:
        return ["put", at, _number(rng, seed, at).hex()]
    if kind < 0.76:
        return ["put", at, bytes([data[min(at, length - 1)] ^ 1 << rng.randrange(8)]).hex()]
    if kind < 0.82:
        return ["put", at, rng.randbytes(rng.choice((1, 1, 2, 4, 8, 16))).hex()]
    if kind < 0.88:
        start = rng.choice(seed.places) if seed.places else rng.randrange(length)
        return ["copy", start, at, rng.choice((2, 4, 8, 16, 40, 64, 200))]
    if kind < 0.92:
        return ["delete", at, rng.choice((1, 2, 4, 8, 64))]
    if kind < 0.96:
        return ["insert", at, rng.randbytes(rng.choice((1, 2, 4, 8, 64))).hex()]
    return ["cut", rng.randrange(length)]


def _number(rng: random.Random, seed: Seed, at: int) -> bytes:
    """A number in some width that a parser may stumble over."""
    size = rng.choice((1, 1, 2, 2, 4, 4, 8, 8))
    most = 1 << (8 * size)
    now = int.from_bytes(seed.data[at : at + size], "little")
    value = rng.choice(
        (
            0, 1, 2, most - 1, most // 2, most // 2 - 1, now + 1, now - 1, now * 2, now + 8,
            1 << rng.randrange(8 * size), len(seed.data), len(seed.data) - 1,
            rng.choice(seed.values) if seed.values else 3, rng.randrange(most), rng.randrange(256),
        )
    )  # fmt: skip
    return (value % most).to_bytes(size, "little")


def apply_bytes(data: bytes, ops: Sequence[Op]) -> bytes:
    """The file with the changes carried out one after another."""
    made = bytearray(data)
    for name, *rest in ops:
        if name == "put":
            at, value = rest[0], bytes.fromhex(rest[1])
            made[at : at + len(value)] = value
        elif name == "insert":
            made[rest[0] : rest[0]] = bytes.fromhex(rest[1])
        elif name == "delete":
            del made[rest[0] : rest[0] + rest[1]]
        elif name == "copy":
            start, at, count = rest
            made[at : at + count] = made[start : start + count]
        elif name == "cut":
            del made[rest[0] :]
        else:
            raise ValueError(f"there is no change called {name!r}")
    return bytes(made)


# -- data ------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, -7, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "a", "b", "in", "x", "None", "\ud800", "\x00", "../x", "a/b", "é" * 300,
    [], [[]], [None], [0], [1, 1], [1, 2, 3], [None, 5], [None, -5], [None, None], ["a", 0, 0],
    {}, {"a": 1}, {"class_name": "Dense"}, {"class_name": "Dense", "config": {}}, {"config": None},
    "Dense", "Lambda", "Add", "Concatenate", "Functional", "Sequential", "__tuple__", "__keras_tensor__",
    {"class_name": "__tuple__", "items": [1, 2]}, {"class_name": "__lambda__", "config": {}},
    {"class_name": "__keras_tensor__", "config": {"shape": [None, 6], "keras_history": ["a", 0, 0]}},
    "float16", "bfloat16", "string", "mixed_float16", "int4", "channels_first", "relu", "softmax",
)  # fmt: skip


def paths(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in JSON data."""
    found = [at]
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        found += paths(value, (*at, key))
    return found


def draw_data(rng: random.Random, data: Any, places: Sequence[tuple[Any, ...]]) -> list[Op]:
    """One change or a few of data; `places` are its `paths`."""
    count = 1
    while count < 6 and rng.random() < 0.4:
        count += 1
    return [_data_op(rng, data, places) for _ in range(count)]


def _data_op(rng: random.Random, data: Any, places: Sequence[tuple[Any, ...]]) -> Op:
    path = list(rng.choice(places))
    kind = rng.random()
    if kind < 0.5:
        return ["set", path, rng.choice(ODD)]
    if kind < 0.62:
        return [
            "set",
            [*path, rng.choice(("units", "name", "config", "x", 0, 1, 99))],
            rng.choice(ODD),
        ]
    if kind < 0.75:
        return ["drop", path]
    if kind < 0.97:
        return ["graft", list(rng.choice(places)), path]
    return ["nest", path, rng.choice((1, 2, 50, 400))]


def apply_data(data: Any, ops: Sequence[Op]) -> Any:
    """The data with the changes carried out one after another; what is not there is left alone."""
    made = copy.deepcopy(data)
    for name, *rest in ops:
        try:
            if name == "set":
                made = _put(made, rest[0], lambda _, value=rest[1]: copy.deepcopy(value))
            elif name == "drop":
                _drop(made, rest[0])
            elif name == "graft":
                value = copy.deepcopy(_get(made, rest[0]))
                made = _put(made, rest[1], lambda _, value=value: value)
            elif name == "nest":
                made = _put(made, rest[0], lambda value, count=rest[1]: _nested(value, count))
            else:
                raise NotImplementedError(name)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue  # an earlier change took the place away
    return made


def _nested(value: Any, count: int) -> Any:
    for _ in range(count):
        value = [value]
    return value


def _get(data: Any, path: Sequence[Any]) -> Any:
    for key in path:
        data = data[key]
    return data


def _put(data: Any, path: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(data)
    holder = _get(data, path[:-1])
    key = path[-1]
    if isinstance(holder, list) and isinstance(key, int) and key >= len(holder):
        holder.append(change(None))
    else:
        holder[key] = change(holder.get(key) if isinstance(holder, dict) else holder[key])
    return data


def _drop(data: Any, path: Sequence[Any]) -> None:
    if path:
        del _get(data, path[:-1])[path[-1]]


# -- fewer -----------------------------------------------------------------------------------------


def minimised(ops: list[Op], still: Callable[[list[Op]], bool]) -> list[Op]:
    """As few of the changes as still do what all of them did.

    Args:
        still: whether some of them do.
    """
    left = list(ops)
    changed = True
    while changed and len(left) > 1:
        changed = False
        for number in range(len(left)):
            fewer = left[:number] + left[number + 1 :]
            if still(fewer):
                left, changed = fewer, True
                break
    return left
