"""Help: short, in groups, with an example, readable at 80 columns."""

from __future__ import annotations

import re
import shlex

import pytest

from kprune.cli.commands import COMMANDS, Entry
from tests.cli.conftest import Kprune

NAMES = [entry.name for entry in COMMANDS]


def test_the_help_lists_every_command_with_a_line(kprune: Kprune) -> None:
    ran = kprune("--help")
    assert (ran.code, ran.err) == (0, "")
    for name in NAMES:
        assert re.search(rf"^  {name} +[A-Z]", ran.out, re.MULTILINE), name


def test_without_arguments_there_is_help_and_the_code_of_a_wrong_command(kprune: Kprune) -> None:
    ran = kprune()
    assert ran.code == 2
    assert ran.out.strip() == kprune("--help").out.strip()


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help_that_fits_80_columns(kprune: Kprune, name: str) -> None:
    ran = kprune(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "<bool>" not in ran.out  # the word that Typer puts beside each flag
    assert kprune(name, "-h").out == ran.out


@pytest.mark.parametrize("entry", COMMANDS, ids=NAMES)
def test_the_list_says_of_each_command_what_its_own_help_begins_with(
    kprune: Kprune, entry: Entry
) -> None:
    _, text = kprune(entry.name, "--help").out.split("\n\n", 2)[:2]
    assert " ".join(text.split()) == entry.summary


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_each_command_uses_what_it_has(kprune: Kprune, name: str) -> None:
    shown = kprune(name, "--help").out
    found = re.search(r"Example: (kprune .*)", shown)
    assert found, "no example"
    words = shlex.split(found[1].split(" > ")[0])
    assert words[1] == name
    for word in words[2:]:
        if word.startswith("-"):
            assert re.search(rf"(^| ){word}\b", shown, re.MULTILINE), word


def test_the_version_is_printed(kprune: Kprune) -> None:
    from kprune.version import __version__

    assert kprune("--version").out == f"kprune {__version__}\n"


def test_help_names_a_command_as_git_does(kprune: Kprune) -> None:
    assert kprune("help", "remove").out == kprune("remove", "--help").out
    assert kprune("help").out == kprune("--help").out
    ran = kprune("help", "nothing")
    assert ran.code == 2 and "no command 'nothing'" in ran.err


def test_the_version_has_a_short_option(kprune: Kprune) -> None:
    assert kprune("-V").out == kprune("--version").out


def test_the_words_of_other_tools_lead_to_the_command(kprune: Kprune) -> None:
    for word, command in (("prune", "remove"), ("finetune", "tune"), ("summary", "inspect")):
        ran = kprune(word, "model.keras")
        assert ran.code == 2 and f"did you mean '{command}'?" in ran.err
