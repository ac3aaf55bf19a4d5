"""TensorFlow is imported where a model is run, and nowhere else; and nothing is imported early."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAVY = ("tensorflow", "keras", "tf_keras", "scipy", "sklearn")

# Runs command lines one after the other in one process, then says which heavy modules are there.
PROBE = textwrap.dedent(
    """
    import sys
    from kprune.cli.boundary import run

    for line in sys.argv[2:]:
        code = run(line.split())
        assert code == 0, f"{line}: {code}"
    print([name for name in sys.argv[1].split(",") if name in sys.modules], file=sys.stderr)
    """
)


def imported_by(*lines: str, modules: tuple[str, ...] = HEAVY, first: str = "") -> str:
    ran = subprocess.run(
        [sys.executable, "-c", first + PROBE, ",".join(modules), *lines],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr.splitlines()[-1]


def test_no_command_but_those_that_run_models_imports_tensorflow_or_keras(model: Path) -> None:
    Path("plan.yaml").write_text(
        "version: 1\nsteps:\n  - {backend: remove, layers: {conv_1: {criterion: l1, count: 2}}}\n"
    )
    lines = [
        "inspect model.keras",
        "inspect model.keras --json",
        "explain model.keras conv_1:0",
        "remove model.keras conv_1:0 -o removed.keras",
        "zero model.keras conv_1:0 -o zeroed.keras",
        "mask model.keras conv_1:0 -o masked.keras",
        "unmask masked.keras -o unmasked.keras",
        "plan model.keras --criterion l1 --ratio 0.1",
        "plan model.keras --criterion fpgm --ratio 0.1 --normalize layer-mean",
        "plan model.keras --criterion random --ratio 0.1 --global",
        "plan model.keras --criterion bn-scale --target-flops 80%",
        "remove model.keras --criterion lamp --target-bytes 70% -o budget.keras",
        "compact model.keras --no-check -o compact.keras",
        "apply model.keras plan.yaml -o planned.keras",
        "diff model.keras removed.keras",
        "rules",
        "schema plan",
    ]
    assert imported_by(*lines) == "[]"


def test_the_proof_above_can_fail(model: Path) -> None:
    fake = "import sys, types; sys.modules['tensorflow'] = types.ModuleType('tensorflow')\n"
    assert imported_by("inspect model.keras", first=fake) == "['tensorflow']"


def test_a_command_that_imports_tensorflow_is_noticed(model: Path, tmp_path: Path) -> None:
    """The same with a module of that name, which rules import while the command runs."""
    (tmp_path / "tensorflow.py").write_text("")
    Path("heavy.py").write_text("import tensorflow\n")
    first = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    line = "inspect model.keras --rules heavy.py"
    assert imported_by(line, first=first) == "['tensorflow']"


def test_help_and_import_cost_next_to_nothing() -> None:
    modules = ("numpy", "h5py", "yaml", "rich", "pydantic")
    assert imported_by("--help", "remove --help", modules=modules) == "[]"
    assert imported_by("--help", modules=("msgspec",)) == "[]"
    probe = "import sys, kprune; print([name for name in sys.argv[1:] if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", probe, *modules, "msgspec", "typer", *HEAVY],
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "[]\n"


def test_no_dataclass_is_made_where_units_are_named(model: Path) -> None:
    """Making one takes as long as making fifty Structs; where units are ranked or run, that is nothing."""
    asked = """if True:
        import dataclasses, sys, types
        from kprune.cli.boundary import run

        assert run(sys.argv[1:]) == 0
        made = [value for name, module in sys.modules.items() if name.startswith("kprune")
                for value in vars(module).values() if isinstance(value, type)]
        print([kind for kind in made if dataclasses.is_dataclass(kind)], file=sys.stderr)
    """
    for line in ("remove model.keras conv_1:0 --dry-run", "inspect model.keras"):
        ran = subprocess.run(
            [sys.executable, "-c", asked, *line.split()], capture_output=True, text=True
        )
        assert ran.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("line", ["inspect model.keras", "remove model.keras conv_1:0 --dry-run"])
def test_typer_does_not_bring_pydantic(model: Path, line: str) -> None:
    assert imported_by(line, modules=("pydantic",)) == "[]"
