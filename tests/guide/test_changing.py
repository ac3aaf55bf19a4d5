"""The page "Change kprune": its code is put into a copy of kprune, and works there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kprune

ROOT = Path(kprune.__file__).parents[1]
PAGE = (ROOT / "kprune" / "guide" / "changing.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def patched(root: Path, diff: str) -> None:
    """Carry out a diff whose hunks have no line numbers: what each takes the place of stands there once."""
    head, *hunks = diff.split("@@\n")
    path = root / head.splitlines()[1].removeprefix("+++ b/")
    text = path.read_text()
    for hunk in hunks:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(before) == 1, f"{path.name} has no longer:\n{before}"
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))
    path.write_text(text)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of kprune to which everything on the page is done."""
    root = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "kprune", root / "kprune", ignore=shutil.ignore_patterns("__pycache__"))
    for kind, text in BLOCKS:
        if kind == "diff":
            patched(root, text)
        else:
            name, _, code = text.partition("\n")
            new = root / name.removeprefix("# ")
            assert not new.exists()
            new.write_text(code)
    return root


def said(changed: Path, code: str) -> str:
    """What a program prints that imports the copy."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": f"{changed}{os.pathsep}{ROOT}"},
        cwd=changed,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_layer_is_folded_through_and_merged_through(changed: Path) -> None:
    code = """
        from pathlib import Path

        import kprune
        from tests.formats.making import write_keras
        from tests.small_models import Network, arrays

        net = Network()
        a = net("Dense", "a", net.input("in", 5), units=6, activation="relu")
        config = net.functional(net("Dense", "b", net("DropBlock", "drop", a), units=2))
        tensors = arrays(config)
        kernel, bias = (tensors[f"layers/dense/vars/{number}"] for number in (0, 1))
        kernel[:, 1], bias[1] = 0, 0.5  # always 0.5
        kernel[:, 2], bias[2] = 2 * kernel[:, 0], 2 * bias[0]
        write_keras(Path("drop.keras"), tensors, config=config)
        found = kprune.compact("drop.keras", merge=True, check=False, dry_run=True)
        print(found.changed, sorted(note.kind for note in found.notes))
    """
    assert said(changed, code) == "{'a': [1, 2]} ['active', 'folded', 'merged']\n"


def test_a_criterion_is_its_formula_and_stands_in_help(changed: Path) -> None:
    code = """
        import numpy as np
        from kprune.select.ranking.criteria import activation_range
        from kprune.select.ranking.options import OPTIONS

        batches = np.random.default_rng(0).normal(size=(3, 4, 5))

        class Units:
            def __len__(self):
                return 5

            def activations(self):
                return iter(batches)

        every = batches.reshape(-1, 5)
        assert np.array_equal(activation_range(Units()), every.max(0) - every.min(0))
        print(OPTIONS["criterion"].text)
    """
    assert "activation-absmax, activation-range, taylor" in said(changed, code)


def test_an_option_holds_in_python_in_plans_and_on_the_command_line(
    changed: Path, samples: Path
) -> None:
    model = str(samples / "digits_cnn.keras")
    code = f"""
        import kprune
        from kprune.cli.boundary import run
        from kprune.select.plans.iteration import parse_iteration_plan
        from kprune.select.plans.plan import parse_plan

        choice = kprune.Choice("l1", ratio=0.5, max_count=3)
        plan = kprune.plan({model!r}, choice=choice)
        print([len(units) for units in plan.steps[0].layers.values()])
        text = "version: 1\\nsteps: [{{backend: remove, layers: {{'*': {{criterion: l1, ratio: 0.5, max_count: 3}}}}}}]"
        report = kprune.apply({model!r}, parse_plan(text), dry_run=True)
        print([len(units) for units in report.selected.values()])
        text = "version: 1\\nchoose: {{criterion: l1, max_count: 3}}\\nschedule: {{step: 0.5}}\\nfloor: loss <= 1"
        print(parse_iteration_plan(text).choose.max_count)
        run(["plan", {model!r}, "hidden", "--criterion", "l1", "--ratio", "0.5", "--max-count", "2"])
    """
    python, plan, iteration, *shown = said(changed, code).splitlines()
    assert python == plan == "[3, 3, 3, 3]" and iteration == "3"
    assert re.fullmatch(r" +hidden: \[\d+, \d+\]", shown[-1])


def test_a_command_is_listed_and_runs(changed: Path, samples: Path) -> None:
    code = f"""
        from kprune.cli.boundary import run

        run(["count", {str(samples / "digits_cnn.keras")!r}])
        run(["--help"])
    """
    first, *rest = said(changed, code).splitlines()
    assert first == "44,354 parameters, 758,090 FLOPs, 146 units"
    assert any(re.match(r" +count +Parameters, FLOPs and units", line) for line in rest)


def test_a_backend_is_carried_out_reported_and_replayed(changed: Path, samples: Path) -> None:
    code = f"""
        import kprune
        from kprune.opened import opened
        from kprune.select.plans.plan import parse_plan
        from kprune.verification.replay import pruned_units

        plan = parse_plan("version: 1\\nsteps: [{{backend: quiet, layers: {{hidden: [1, 4]}}}}]")
        model = {str(samples / "digits_cnn.keras")!r}
        print("quieted" in str(kprune.apply(model, plan, output="quiet.keras")))
        with opened(model) as it, opened("quiet.keras") as small:
            found = pruned_units(it.analysis, small.source.metadata)
            print(found.zeroed_through[it.analysis.map.axes["hidden"].ids].nonzero()[0])
            zeros = [(weight.path, small.source.read(weight.path)) for weight in small.analysis.weights]
        kernel, bias, reader = [value for path, value in zeros if "dense" in path][:3]
        print(not kernel[:, [1, 4]].any(), not bias[[1, 4]].any(), not reader[[1, 4]].any())
    """
    assert said(changed, code) == "True\n[1 4]\nTrue True True\n"


def test_a_format_is_known_cut_and_written(changed: Path, samples: Path) -> None:
    code = f"""
        import os, tarfile, zipfile
        import kprune

        model = {str(samples / "digits_cnn.keras")!r}
        zipfile.ZipFile(model).extractall("parts")
        with tarfile.open("model.tar", "w", format=tarfile.GNU_FORMAT) as archive:
            for name in sorted(os.listdir("parts")):
                archive.add(f"parts/{{name}}", name)
        units = {{"hidden": [1, 4]}}
        one = kprune.remove("model.tar", units, output="one.tar")
        kprune.remove("model.tar", units, output="two.tar")
        kprune.remove(model, units, output="small.keras")
        print(one.output.format, one.output.bytes == os.path.getsize("one.tar"))
        print(kprune.remove("model.tar", units, dry_run=True).output.bytes == one.output.bytes)
        print(open("one.tar", "rb").read() == open("two.tar", "rb").read())
        print(kprune.diff("one.tar", "small.keras").equal)
    """
    assert said(changed, code) == "keras-tar True\nTrue\nTrue\nTrue\n"
