"""The README's examples, run as they stand. `KPRUNE_UPDATE=1 pytest tests/test_readme.py` writes the outputs anew."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kprune.cli.boundary import run
from kprune.select.plans.iteration import parse_iteration_plan

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
UPDATE = bool(os.environ.get("KPRUNE_UPDATE"))

_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_YAML = re.compile(r"^```yaml\n(version:.*?)^```$", re.DOTALL | re.MULTILINE)

SHELL = f"""
kprune() {{ "{sys.executable}" -m kprune "$@"; }}
python3() {{ "{sys.executable}" "$@"; }}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples run one after the other, as a reader would run them."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "sample_models", folder / "sample_models")
    return folder


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{SHELL}{command}"],
        cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
    )  # fmt: skip


RUN_MODELS = ("kprune verify", "kprune tune", "kprune sensitivity")


def run_here(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `shell`, in this process: TensorFlow is imported once for all commands that need it."""
    line, _, reader = command.partition(" | ")
    words = shlex.split(line)
    printed = told = io.StringIO()
    if words[-2] == "2>":
        words, told = words[:-2], io.StringIO()
    elif reader:
        told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("NO_COLOR", "1")
        patch.chdir(folder)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
            code = run(words[1:])
    output = printed.getvalue()
    if reader:
        read = subprocess.run(
            reader, shell=True, input=output, text=True, stdout=subprocess.PIPE, check=True
        )
        output = told.getvalue() + read.stdout
    return subprocess.CompletedProcess(command, code, output)


def examples(block: str) -> list[tuple[str, str]]:
    """(command, the output shown below it)."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2].rstrip("\n")) for part in parts]


def test_every_command_prints_what_the_readme_shows(place: Path) -> None:
    text = README.read_text()
    rewritten = text
    for block in _CONSOLE.findall(text):
        fresh = ""
        for command, shown in examples(block):
            done = (run_here if command.startswith(RUN_MODELS) else shell)(command, place)
            output = "\n".join(line.rstrip() for line in done.stdout.rstrip("\n").splitlines())
            # Refusals are shown, and what 'verify' says of a model that was trained on.
            assert done.returncode in (0, 2, 5), f"{command}\n{done.stdout}"
            assert "Traceback" not in output
            kept = shown if "…" in shown and _matches(output, shown) else output
            fresh += f"$ {command}\n" + (f"{kept}\n" if kept else "")
            if not UPDATE:
                assert _matches(output, shown), (
                    f"$ {command}\n--- README\n{shown}\n--- printed\n{output}"
                )
        rewritten = rewritten.replace(f"```console\n{block}```", f"```console\n{fresh}```")
    if UPDATE:
        README.write_text(rewritten)


def _matches(output: str, shown: str) -> bool:
    """Equal, where `…` in the README stands for any text of a line."""
    pattern = re.escape(shown).replace("…", ".*")
    pattern = re.sub(r"\d(?:\\\.\d+)?e\\-\d+", r"[0-9.]+(?:e-\\d+)?", pattern)
    return re.fullmatch(pattern, output) is not None


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
