"""The order of the rooms: nobody imports from a later one, and no module imports itself round a corner.

Every import counts, also those inside functions and behind TYPE_CHECKING: a late import is there for
the sake of start-up time, and points down like any other.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import kprune

ROOT = Path(kprune.__file__).parent
# The ground first. A room is a folder, or a module of the package itself.
ROOMS = """
    version types errors interruption text sets pointing limits packages dtypes faults edit atomic criteria_table
    elementwise page
    graph labels tracing rules active_content
    checking formats
    analysis surgery
    runtime running refitting custom_code saved_model
    opened
    select report pruning views
    verification train
    verbs
    cli
    __init__ __main__
""".split()
MOST = 15  # modules in one folder


@cache
def modules() -> dict[str, Path]:
    """The files of the package, by dotted name."""
    return {
        ".".join(("kprune", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
    }


def face(name: str) -> str:
    """The module that a dotted name means: a package's is its `__init__`."""
    return name if name in modules() else f"{name}.__init__"


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of kprune that a module imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if face(inner) in modules() else node.module)
    return frozenset(face(name) for name in found if face(name) in modules())


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in modules()} == set(ROOMS)


def test_nobody_imports_from_a_later_room() -> None:
    upwards = [
        f"{module} -> {other}"
        for module in modules()
        for other in sorted(imports(module))
        if ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert upwards == []


def circles() -> Iterator[list[str]]:
    """What is left when modules that import nothing that is left are taken away, again and again."""
    left = set(modules())
    while done := {module for module in left if not (imports(module) & left) - {module}}:
        left -= done
    if left:
        yield sorted(left)


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert list(circles()) == []


def test_no_folder_holds_more_than_can_be_taken_in() -> None:
    sizes = Counter(
        str(path.parent.relative_to(ROOT))
        for path in modules().values()
        if path.name != "__init__.py"
    )
    assert {folder: size for folder, size in sizes.items() if size > MOST} == {}


def test_no_room_hides_a_function() -> None:
    """A module that is imported becomes an attribute of its package, and would hide a function of its name."""
    assert set(ROOMS) & set(kprune.__all__) == set()


@pytest.mark.parametrize("folder", sorted({path.parent for path in modules().values()} - {ROOT}))
def test_a_room_lists_what_is_in_it(folder: Path) -> None:
    there = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    there |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    listed = set(re.findall(r"(?<![\w.`/])[a-z_0-9]+(?:\.py\b|/)", text))
    assert listed == there
