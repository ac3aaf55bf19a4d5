"""The page "Files from anywhere": its numbers are those of the tests and of the program."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import ModuleType

import kprune
from kprune.limits import TABLE
from tests.hostile import test_inert_graphs, test_inert_keras
from tests.hostile.corpus import CASES
from tests.hostile.injection import FAULTS, FORMATS, VARIANTS, WAYS

PAGE = (Path(kprune.__file__).parent / "guide" / "safety.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The rows of the table that begins with a heading."""
    table = PAGE.partition(f"\n{heading}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_every_limit_is_listed_with_what_it_allows() -> None:
    assert rows("| limit | allowed | of what |") == [
        [f"`{limit.name}`", f"{limit.default:,} {limit.unit}", limit.meaning]
        for limit in TABLE.values()
    ]


def test_the_corpus_is_counted_by_kind() -> None:
    told = {kind: int(count) for kind, count, _ in rows("| kind | files | what is wrong |")}
    assert told == Counter(name.partition("/")[0] for name in CASES)
    assert f"| {len(CASES)} files |" in PAGE


def cases(module: ModuleType) -> int:
    """How often the tests run that try each bait on each command."""
    tests = [
        test
        for name, test in vars(module).items()
        if name.startswith(("test_a_verb", "test_what_keras_2"))
    ]
    marks = [[m for m in test.pytestmark if m.name == "parametrize"] for test in tests]
    return sum(math.prod(len(mark.args[1]) for mark in own) for own in marks)


def test_baits_are_counted_by_command() -> None:
    said = (
        f"{cases(test_inert_keras)} pairs in Keras files, {cases(test_inert_graphs)} in SavedModels"
    )
    assert said in PAGE, said


def test_the_grid_of_faults_is_counted() -> None:
    combinations = len(FORMATS) * len(WAYS) * len(VARIANTS)
    assert f"{combinations} combinations, {len(FAULTS)} kinds of failure" in PAGE
