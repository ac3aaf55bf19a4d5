"""JSON from a file: measured before it is parsed, since what it becomes takes far more memory than the text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from kprune.faults import damaged, parsing
from kprune.limits import JSON_BYTES, JSON_ITEMS, JSON_LEVELS

_OTHERS = bytes(set(range(256)) - set(b'[]{},"'))  # what structures no text
_BLOCK = 1 << 20
_DIGITS = bytes(ord("0") <= byte <= ord("9") for byte in range(256))
_ENDLESS = b"\1" * 308  # digits: Python knows whole numbers that no float holds
_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # one level down, one up, as int8


def json_value(data: bytes, file: object, name: str) -> Any:
    """What a JSON text says; NaN and infinities pass, as Keras lets them.

    Args:
        file: how messages call the file.
        name: of the part of it that holds the text; "" if the file is the text.
    Raises: LimitError if the text is too long, too deeply nested or has too many items;
        DamagedFileError if it is not JSON.
    """
    JSON_BYTES.check(len(data), name or "it", file)
    with parsing(file, name):
        encoding = json.detect_encoding(data)
        if encoding not in ("utf-8", "utf-8-sig"):
            data = data.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    check_json(data, file, name)
    if _ENDLESS in data.translate(_DIGITS):
        raise damaged(file, f"it has a number of more than {len(_ENDLESS)} digits", where=name)
    with parsing(file, name):
        return json.loads(data)


def check_json(data: bytes, file: object, name: str = "") -> None:
    """Measure a JSON text in UTF-8 which the caller is going to parse. Raises: LimitError."""
    items, levels = _measured(data)
    JSON_ITEMS.check(items, name or "it", file)
    JSON_LEVELS.check(levels, name or "it", file)


def json_object(data: bytes, file: object, name: str) -> dict[str, Any]:
    """The same for a text that must hold an object. Raises: as `json_value`, and DamagedFileError if not."""
    value = json_value(data, file, name)
    if not isinstance(value, dict):
        held = f"{name} holds" if name else "it holds"
        raise damaged(file, f"{held} a {type(value).__name__}, not an object")
    return value


def _measured(data: bytes) -> tuple[int, int]:
    """How many values a text has, and how deeply they are nested; never too few.

    Up to the first place where a text is not JSON nothing is missed, and no parser goes further.
    """
    if b'\\"' in data:  # an escaped quotation mark ends no string
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two marks with no other sign between them hide nothing: neither does what they enclose count.
    data = data.translate(None, _OTHERS).replace(b'""', b"")
    items = levels = depth = 0
    outside = True
    for start in range(0, len(data), _BLOCK):
        signs = data[start : start + _BLOCK]
        if not outside or b'"' in signs:
            signs, outside = _outside_strings(signs, outside)
        brackets = signs.translate(_STEPS, b",")
        steps = np.frombuffer(brackets, np.int8)
        run = depth + np.cumsum(steps, dtype=np.int64)
        items += len(signs) - len(brackets) + int(np.count_nonzero(steps == 1))
        if len(run):
            levels, depth = max(levels, int(run.max())), int(run[-1])
    return items, levels


def _outside_strings(signs: bytes, outside: bool) -> tuple[bytes, bool]:
    """Of a piece of a text what stands in no string.

    Args:
        outside: whether the piece begins in no string.
    Returns: it, and whether the piece ends in no string.
    """
    found = np.frombuffer(signs, np.uint8)
    marks = found == ord('"')
    counts = np.logical_xor.accumulate(marks) ^ outside
    return found[counts & ~marks].tobytes(), bool(counts[-1])
