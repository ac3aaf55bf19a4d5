"""Sessions in a text: the commands of its blocks ```console are run, and print what is shown there.

`KPRUNE_UPDATE=1` writes the outputs anew. In an output that is shown, `…` stands for any text of a line.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kprune.cli.boundary import run

ROOT = Path(__file__).parent.parent
UPDATE = bool(os.environ.get("KPRUNE_UPDATE"))

_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)

SHELL = f"""
kprune() {{ "{sys.executable}" -m kprune "$@"; }}
python3() {{ "{sys.executable}" "$@"; }}
"""


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{SHELL}{command}"],
        cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
    )  # fmt: skip


RUN_MODELS = ("kprune verify", "kprune tune", "kprune sensitivity", "kprune repair")


def _runs_models(command: str) -> bool:
    return command.startswith(RUN_MODELS) or " --repair" in command


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


def check_sessions(page: Path, folder: Path) -> None:
    """Run every command of a page, one after the other in a folder, and compare what it prints."""
    text = page.read_text()
    rewritten = text
    for block in _CONSOLE.findall(text):
        fresh = ""
        for command, shown in examples(block):
            done = (run_here if _runs_models(command) else shell)(command, folder)
            output = "\n".join(line.rstrip() for line in done.stdout.rstrip("\n").splitlines())
            # Refusals are shown, and what 'verify' says of a model that was trained on.
            assert done.returncode in (0, 2, 5), f"{command}\n{done.stdout}"
            assert "Traceback" not in output
            kept = shown if "…" in shown and matches(output, shown) else output
            fresh += f"$ {command}\n" + (f"{kept}\n" if kept else "")
            if not UPDATE:
                assert matches(output, shown), (
                    f"$ {command}\n--- {page.name}\n{shown}\n--- printed\n{output}"
                )
        rewritten = rewritten.replace(f"```console\n{block}```", f"```console\n{fresh}```")
    if UPDATE:
        page.write_text(rewritten)


def matches(output: str, shown: str) -> bool:
    """Whether they are equal, `…` apart."""
    pattern = re.escape(shown).replace("…", ".*")
    pattern = re.sub(r"\d(?:\\\.\d+)?e\\-\d+", r"[0-9.]+(?:e-\\d+)?", pattern)
    return re.fullmatch(pattern, output) is not None
