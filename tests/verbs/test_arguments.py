"""How the public functions take their arguments, and what a type checker makes of them."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import kprune
from kprune.select.ranking.wording import WORDS
from kprune.train.settings import Settings, TrainingOptions

ROOT = Path(kprune.__file__).parents[1]
WORKS_ON = {"model", "units", "plan", "layers", "original", "pruned", "a", "b"}
VERBS = """
    apply compact diff explain inspect iterate mask plan remove repair sensitivity tune unmask verify zero
""".split()


def named_by(verb: str) -> str:
    """What names the layers, files or plans that a verb works on, by position."""
    return ", ".join(
        parameter.name
        for parameter in inspect.signature(getattr(kprune, verb)).parameters.values()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    )


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_works_on_comes_first_and_every_option_is_a_keyword(verb: str) -> None:
    assert set(named_by(verb).split(", ")) <= WORKS_ON


def test_each_function_that_takes_a_model_is_held_against_the_rule() -> None:
    functions = {name for name in kprune.__all__ if inspect.isfunction(getattr(kprune, name))}
    assert functions - {"limit"} == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_keyword_is_refused_as_python_refuses_it(verb: str) -> None:
    function = getattr(kprune, verb)
    needed = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind.name != "VAR_KEYWORD"
    ]
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'otput'"):
        function(**dict.fromkeys(needed, "no.keras"), otput="b.keras")


@pytest.mark.parametrize(
    ("verb", "wrong", "right"),
    [
        ("remove", "critrion", "criterion"),
        ("zero", "out_going", "outgoing"),
        ("inspect", "rule", "rules"),
        ("verify", "max_drops", "max_drop"),
        ("tune", "epoch", "epochs"),
        ("plan", "target_param", "target_params"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(verb: str, wrong: str, right: str) -> None:
    function = getattr(kprune, verb)
    with pytest.raises(TypeError, match=f"did you mean '{right}'"):
        function("no.keras", "no.keras", **{wrong: 1})


def test_every_option_of_a_choice_is_a_keyword() -> None:
    assert set(kprune.Choosing.__annotations__) == {"criterion", *WORDS}


WORD = re.compile(r"\b[A-Z]\w+")


def types_named_by(verb: str) -> set[str]:
    """The types that the signature of a verb mentions, and those of keywords that it shares with others."""
    function = getattr(kprune, verb)
    texts = [str(annotation) for annotation in function.__annotations__.values()]
    found: set[str] = set()
    while texts:
        for name in set(WORD.findall(texts.pop())) - found:
            found.add(name)
            kind = getattr(kprune, name, None)
            if typing.is_typeddict(kind):
                texts += [str(it) for it in kind.__annotations__.values()]
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_type_that_help_mentions_can_be_imported(verb: str) -> None:
    others = {*dir(typing), *dir(collections.abc), *dir(builtins), "ForwardRef"}
    assert types_named_by(verb) - others <= set(kprune.__all__)


def test_a_choice_is_made_in_the_words_of_the_command_line(tmp_path: Path) -> None:
    model = ROOT / "sample_models" / "digits_cnn.keras"
    words = {"criterion": "l1", "target_params": "50%", "round_to": 8, "exclude": "conv_1"}
    by_words = kprune.remove(model, output=tmp_path / "words.keras", **words)  # type: ignore[arg-type]
    choice = kprune.Choice("l1", target=kprune.Budget("parameters", "50%"), round_to=8)
    by_choice = kprune.remove(
        model, choice=choice, exclude=["conv_1"], output=tmp_path / "choice.keras"
    )
    assert by_words.selected == by_choice.selected
    shares = kprune.remove(model, layers="hidden", criterion="l2", ratio="25%", dry_run=True)
    assert list(shares.selected) == ["hidden"] and len(shares.selected["hidden"]) == 16


def test_one_list_of_all_layers_that_is_not_wanted_needs_no_criterion() -> None:
    model = ROOT / "sample_models" / "digits_cnn.keras"
    report = kprune.remove(model, {"hidden": [0]}, together=False, dry_run=True)
    assert report.selected == {"hidden": [0]}


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"ratio": 0.5}, "ratio needs a criterion"),
        ({"criterion": "l1", "ratio": "half"}, "ratio takes a number"),
        ({"criterion": "l1"}, "no limit"),
        ({"criterion": "l1", "target_params": "50%", "target_flops": "50%"}, "cannot be combined"),
        ({"criterion": "l1", "ratio": 0.5, "choice": kprune.Choice("l1", ratio=0.5)}, "choice and"),
    ],
)
def test_words_that_make_no_choice_are_refused(words: dict[str, Any], match: str) -> None:
    model = ROOT / "sample_models" / "digits_cnn.keras"
    with pytest.raises(kprune.UsageError, match=match):
        kprune.remove(model, dry_run=True, **words)


def test_the_options_of_a_training_are_the_fields_of_its_settings() -> None:
    assert typing.get_type_hints(TrainingOptions) == typing.get_type_hints(Settings)


USES = """
from pathlib import Path
from typing import Any

import kprune


class Net:
    def save(self, filepath: Any) -> None: ...
    def get_config(self) -> dict[str, Any]:
        return {}


reveal_type(kprune.remove("a.keras", {"a": [1]}, fold=True, output=Path("b.keras")))  # Report
reveal_type(kprune.remove(Net(), {"a": [1]}, limits={"units": 3}))  # Net
reveal_type(kprune.zero(Path("a.keras"), outgoing=True, layers=["a"]))  # Report
reveal_type(kprune.mask(Net(), below=0.1))  # Net
reveal_type(kprune.unmask("a.keras", ["a"], force=True))  # Report
reveal_type(kprune.compact("a.keras", merge=True))  # Report
reveal_type(kprune.apply(Net(), "plan.yaml", drop_branches=True))  # Net
reveal_type(kprune.plan(Net(), {"a": [1]}))  # Plan
reveal_type(kprune.inspect(Net()))  # Inspection
reveal_type(kprune.explain("a.keras", "a:1"))  # Explanation
reveal_type(kprune.diff("a.keras", Net()))  # Difference
reveal_type(kprune.verify("a.keras", "b.keras"))  # Verification
reveal_type(kprune.tune("a.keras", data="d.npz", epochs=3))  # Tuning
reveal_type(kprune.iterate("a.keras", "plan.yaml", data="d.npz"))  # Iteration
reveal_type(kprune.sensitivity("a.keras", data="d.npz"))  # Curves
kprune.remove("a.keras", otput="b.keras")  # error
kprune.remove("a.keras", output=3)  # error
kprune.zero("a.keras", fold=True)  # error
kprune.remove(3)  # error
kprune.verify("a.keras", Net())  # error
kprune.tune("a.keras", data="d.npz", epoch=3)  # error
"""


def test_a_type_checker_knows_what_comes_of_each_function(tmp_path: Path) -> None:
    uses = tmp_path / "uses.py"
    uses.write_text(USES)
    cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *cache, uses],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    said: dict[int, str] = {}
    for line, kind, text in re.findall(r"uses\.py:(\d+): (\w+): (.*)", ran.stdout):
        revealed = re.search(r'Revealed type is ".*?(\w+)"', text)
        if kind == "error" or revealed:
            said[int(line)] = "error" if revealed is None else revealed[1]
    expected = {
        number: line.rpartition("# ")[2]
        for number, line in enumerate(USES.splitlines(), 1)
        if "# " in line
    }
    assert said == expected, ran.stdout + ran.stderr
