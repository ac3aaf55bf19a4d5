"""Criteria of users and of other packages: registered as rules are, and used like any other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kprune
from kprune.criteria_table import CUSTOM
from kprune.errors import UsageError
from kprune.select.plans.plan import parse_plan
from tests.formats.making import contents
from tests.small_models import layer, sequential, write

SPREAD = '''
import kprune


@kprune.criterion("spread")
def spread(units):
    """How far a unit's weights lie apart."""
    return units["max"] - units["min"]
'''


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    before = dict(CUSTOM.criteria)
    yield
    CUSTOM.criteria.clear()
    CUSTOM.criteria.update(before)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    layers = (layer("Dense", "a", units=8), layer("Dense", "out", units=3))
    return write(tmp_path / "model.keras", sequential(*layers, shape=[5]))


def file(folder: Path, text: str) -> str:
    path = folder / "criteria.py"
    path.write_text(text)
    return str(path)


def expected(model: Path, count: int) -> list[int]:
    kernel = contents(model)["layers/dense/vars/0"]
    return sorted(np.argsort(np.ptp(kernel, axis=0))[:count].tolist())


def test_a_file_brings_a_criterion(model: Path, tmp_path: Path) -> None:
    rules = [file(tmp_path, SPREAD)]
    choice = kprune.Choice("spread", count=3)
    report = kprune.remove(model, choice=choice, rules=rules, dry_run=True)
    assert report.changed == {"a": expected(model, 3)}
    text = "version: 1\nsteps:\n- {backend: remove, layers: {a: {criterion: spread, count: 2}}}"
    report = kprune.apply(model, parse_plan(text), rules=rules, dry_run=True)
    assert report.changed == {"a": expected(model, 2)}


def test_the_command_line_takes_it(model: Path, tmp_path: Path) -> None:
    options = ["--criterion", "spread", "--count", "3", "--rules", file(tmp_path, SPREAD)]
    ran = subprocess.run(
        [sys.executable, "-m", "kprune", "plan", model, *options], capture_output=True, text=True
    )
    assert f"a: {expected(model, 3)}" in ran.stdout, ran.stderr


def test_a_package_brings_criteria_through_the_entry_point(model: Path, tmp_path: Path) -> None:
    (tmp_path / "spreads.py").write_text(SPREAD)
    info = tmp_path / "spreads-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spreads\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kprune.rules]\nspreads = spreads\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport kprune\n"
        "choice = kprune.Choice('spread', count=3)\n"
        f"print(kprune.remove({str(model)!r}, choice=choice, dry_run=True).changed)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout == f"{{'a': {expected(model, 3)}}}\n", ran.stderr


def test_a_criterion_sees_what_expressions_see(model: Path) -> None:
    seen: dict[str, Any] = {}

    @kprune.criterion("looking")
    def looking(units: Any) -> Any:
        seen.update(name=units.name, seed=units.seed, w=units["w"], gram=units.gram())
        return range(len(units))

    choice = kprune.Choice("looking", count=2, seed=9)
    assert kprune.remove(model, choice=choice, layers=["a"], dry_run=True).changed == {"a": [0, 1]}
    kernel = contents(model)["layers/dense/vars/0"]
    assert (seen["name"], seen["seed"]) == ("a", 9)
    np.testing.assert_array_equal(seen["w"], kernel)
    np.testing.assert_allclose(seen["gram"], kernel.T @ kernel, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return units['l3']", "KeyError: 'l3'"),
        ("return [1, 2]", "it gave an array of shape (2,)"),
        ("return [float('nan')] * len(units)", "it gave not a number"),
        ("return 'high'", "ValueError: could not convert string to float"),
    ],
)
def test_one_that_fails_is_refused_with_its_file(
    body: str, why: str, model: Path, tmp_path: Path
) -> None:
    text = SPREAD.replace('return units["max"] - units["min"]', body)
    rules = [file(tmp_path, text)]
    with pytest.raises(UsageError, match="the criterion 'spread' fails for layer 'a'") as caught:
        kprune.remove(model, choice=kprune.Choice("spread", count=3), rules=rules)
    assert why in caught.value.why and "criteria.py" in caught.value.where
    assert not model.with_name("model.pruned.keras").exists()


def test_a_file_that_fails_leaves_no_criterion_behind(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fails"):
        kprune.plan(model, ["a:0"], rules=[file(tmp_path, SPREAD + "\nraise OSError\n")])
    assert "spread" not in CUSTOM.criteria


def test_a_name_that_is_taken_is_refused(model: Path, tmp_path: Path) -> None:
    text = SPREAD.replace('"spread"', '"l1"')
    with pytest.raises(UsageError, match="fails") as caught:
        kprune.plan(model, ["a:0"], rules=[file(tmp_path, text)])
    assert "there is a criterion 'l1' already" in caught.value.why


def test_an_unknown_name_is_answered_with_those_of_the_file_too(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="did you mean 'spread'") as caught:
        choice = kprune.Choice("spred", count=3)
        kprune.remove(model, choice=choice, rules=[file(tmp_path, SPREAD)])
    assert caught.value.do.endswith("obs, spread")
