"""JSON as kprune prints it: indented, but a list of numbers stays on one line."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any) -> str:
    """JSON text of plain data, ending in a newline.

    Non-ASCII characters are escaped: a path may hold bytes that are not text in any encoding.
    """
    return _text(value, "") + "\n"


def _text(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        items = [
            f"{deeper}{json.dumps(str(key))}: {_text(item, deeper)}" for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        items = [deeper + _text(item, deeper) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return json.dumps(value)
