"""The tables of rules: which families are imported, and when."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from kprune.rules import LAYERS, OPERATIONS, builtin
from kprune.tracing.registry import Table

FAMILIES = "import sys; print(*sorted(m for m in sys.modules if m.startswith('kprune.rules.')))"


def imported_after(code: str) -> set[str]:
    """Modules below kprune.rules that a fresh process has imported once it has run some code."""
    line = f"from kprune.rules import builtin\nrules = builtin()\n{code}\n{FAMILIES}"
    ran = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    return {name.removeprefix("kprune.rules.") for name in ran.stdout.split()}


def test_no_family_is_imported_before_a_class_is_looked_for() -> None:
    assert imported_after("") == set()


def test_looking_for_a_common_class_imports_no_operations_and_no_packages() -> None:
    found = imported_after("rules.layers['Dense']")
    assert "core" in found
    assert not any(name.startswith(("operations", "tensorflow", "packages")) for name in found)


def test_going_over_all_classes_imports_every_family() -> None:
    found = imported_after("list(rules.layers); len(rules.operations); list(rules.packages)")
    families = [
        *LAYERS.rules.families,
        *OPERATIONS.rules.families,
        "kprune.rules.packages.keras_hub",
    ]
    assert {name.removeprefix("kprune.rules.") for name in families} <= found


def test_a_class_of_the_last_family_is_found_as_is_one_of_the_first() -> None:
    for table in (LAYERS, OPERATIONS):
        for family in (table.rules.families[0], table.rules.families[-1]):
            importlib.import_module(family)
            names = [
                rule.name for rule in table.rules.values() if rule.function.__module__ == family
            ]
            assert names and all(name in table.rules for name in names)


def test_a_class_that_no_family_knows_has_no_rule() -> None:
    assert builtin().layers.get("NoSuchLayer") is None
    assert "NoSuchLayer" not in builtin().layers


def test_a_second_rule_for_a_class_is_refused() -> None:
    table = Table(builtin=False)
    table.rule("Mine", does="passes")(lambda call: call.x)
    with pytest.raises(ValueError, match="Mine has a rule already"):
        table.rule("Mine", does="opaque")(lambda call: call.opaque("no"))
