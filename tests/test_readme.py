"""The README's examples, run as they stand. `KPRUNE_UPDATE=1 pytest tests/test_readme.py` writes the outputs anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kprune.select.plans.iteration import parse_iteration_plan
from tests.sessions import ROOT, UPDATE, check_sessions, shell

README = ROOT / "README.md"

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_YAML = re.compile(r"^```yaml\n(version:.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples run one after the other, as a reader would run them."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "sample_models", folder / "sample_models")
    return folder


def test_every_command_prints_what_the_readme_shows(place: Path) -> None:
    check_sessions(README, place)


def coverage() -> str:
    """The table of what kprune knows, made from the rules themselves."""
    from collections import Counter

    from kprune.rules import builtin
    from kprune.tracing.registry import ANSWERS

    rules = builtin()
    rows = [
        "| | classes | " + " | ".join(ANSWERS) + " |",
        "|---|---|" + "---|" * len(ANSWERS),
    ]
    for name, table in (
        ("layers of Keras", rules.layers),
        ("operations of `keras.ops`", rules.operations),
        ("layers of KerasHub", rules.packages),
    ):
        counts = Counter(rule.does for rule in table.values())
        rows.append(
            f"| {name} | {len(table)} | " + " | ".join(str(counts[a] or "") for a in ANSWERS) + " |"
        )
    return "\n".join(rows)


_COVERAGE = re.compile(r"(?<=<!-- coverage -->\n).*?(?=<!-- /coverage -->)", re.DOTALL)


def test_the_table_of_what_kprune_knows_is_made_from_the_rules() -> None:
    text = README.read_text()
    if UPDATE:
        text = _COVERAGE.sub(lambda _: coverage() + "\n", text)
        README.write_text(text)
    found = _COVERAGE.search(text)
    assert found is not None
    assert found.group().strip() == coverage()


def test_the_python_examples_run(place: Path) -> None:
    blocks = [
        block
        for block in _PYTHON.findall(README.read_text())
        if not block.startswith("# my_layers.py")
    ]
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_the_plan_of_the_readme_applies(place: Path) -> None:
    (plan,) = _YAML.findall(README.read_text())
    (place / "readme.yaml").write_text(plan)
    done = shell(
        "kprune apply sample_models/digits_cnn.keras readme.yaml -o by_plan.keras -q", place
    )
    assert (done.returncode, done.stdout) == (0, "by_plan.keras\n")


def test_the_plan_of_rounds_of_the_readme_is_read() -> None:
    (plan,) = re.findall(
        r"^```yaml\n(# rounds.yaml\n.*?)^```$", README.read_text(), re.DOTALL | re.M
    )
    assert parse_iteration_plan(plan).schedule.rounds == 4


def test_the_rule_of_the_readme_is_a_rule(place: Path) -> None:
    (block,) = [
        block for block in _PYTHON.findall(README.read_text()) if block.startswith("# my_layers.py")
    ]
    (place / "my_layers.py").write_text(block)
    done = shell("kprune rules --rules my_layers.py --json", place)
    assert done.returncode == 0, done.stdout
    assert "my_package>ChannelGain" in done.stdout
    command = "kprune plan sample_models/digits_mlp.keras --criterion spread --ratio 0.3"
    done = shell(f"{command} --rules my_layers.py", place)
    assert done.returncode == 0 and "hidden_1: [" in done.stdout, done.stdout
