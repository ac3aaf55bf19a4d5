"""Rules of users and of other packages: files, entry points, and the names that they answer for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from kprune.analysis.user_rules import load_rules
from kprune.errors import CannotPruneError, FileError, FrozenUnitsError, UsageError
from kprune.graph import Layer
from kprune.rules import CUSTOM, builtin
from kprune.verbs.change import remove, zero
from tests.oracle.law import assert_equal, outputs, random_inputs, randomize

pytestmark = pytest.mark.oracle


@keras.saving.register_keras_serializable("kprune_custom")
class Gate(keras.layers.Layer):
    """Scales each channel by a weight, and adds what a hidden layer of its own makes of them."""

    def __init__(self, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))
        self.up = self.add_weight(name="up", shape=(shape[-1], self.hidden))
        self.down = self.add_weight(name="down", shape=(self.hidden, shape[-1]))

    def call(self, x: Any) -> Any:
        return x * self.scale + keras.ops.matmul(keras.ops.relu(x @ self.up), self.down)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden}


@keras.saving.register_keras_serializable("kprune_custom")
class Dense(keras.layers.Layer):
    """Has the name of a Keras layer, and is something else."""

    def call(self, x: Any) -> Any:
        return x[..., ::-1]


RULE = '''
import kprune


@kprune.rule("kprune_custom>Gate", does="issues")
def gate(call):
    """.hidden; scale (channels)"""
    channels, hidden = call.x.last, call.units("hidden", "hidden")
    call.weight("scale", channels)
    call.weight("up", channels, hidden, out=1)
    call.weight("down", hidden, channels)
    return call.x
'''


@pytest.fixture(autouse=True)
def _tables_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it; a file that was loaded may be loaded again."""
    builtin()
    monkeypatch.setattr(CUSTOM.rules, "registered", dict(CUSTOM.rules))
    monkeypatch.setattr("kprune.analysis.user_rules._loaded", {})


def gated(folder: Path) -> str:
    x = keras.Input((5,))
    y = keras.layers.Dense(8, "relu", name="a")(x)
    y = keras.layers.Dense(2, name="out")(Gate(6, name="gate")(y))
    path = str(folder / "gated.keras")
    randomize(keras.Model(x, y)).save(path)
    return path


def written(folder: Path, text: str, name: str = "my_layers.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_layer_without_a_rule_freezes_what_reaches_it_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(FrozenUnitsError, match="cannot remove unit 3 of 'a'") as caught:
        remove(gated(tmp_path), {"a": [3]}, dry_run=True)
    assert "'gate' is a kprune_custom>Gate layer, for which kprune has no rule" in caught.value.why
    assert "--rules" in caught.value.do


def test_a_rule_from_a_file_frees_units_and_gives_the_layer_its_own(tmp_path: Path) -> None:
    path, rules = gated(tmp_path), [written(tmp_path, RULE)]
    units = {"a": [3, 5], "gate.hidden": [0, 4]}
    small, zeroed = tmp_path / "small.keras", tmp_path / "zeroed.keras"
    report = remove(path, units, output=str(small), rules=rules)
    zero(path, units, outgoing=True, output=str(zeroed), rules=rules)
    pruned, masked = keras.models.load_model(small), keras.models.load_model(zeroed)
    assert pruned.get_layer("gate").hidden == 4
    assert report.output.parameters == pruned.count_params() < masked.count_params()
    inputs = random_inputs(masked)
    for one, other in zip(outputs(pruned, inputs), outputs(masked, inputs), strict=True):
        assert_equal(one, other)


def test_a_file_of_rules_is_run_once(tmp_path: Path) -> None:
    file = written(
        tmp_path, RULE + "\nwith open(__file__ + '.log', 'a') as log:\n    log.write('x')\n"
    )
    load_rules([file])
    load_rules([file])
    assert Path(file + ".log").read_text() == "x"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("import kprune\n\n1 / 0\n", "line 3", "ZeroDivisionError"),
        ("def broken(:\n", "line 1", "SyntaxError"),
        ("import kprune\nkprune.rule('X', does='everything')\n", "line 2", "not one of"),
        ("import no_such_module\n", "line 1", "ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", "line 2", "SystemExit"),
    ],
)
def test_a_file_of_rules_that_fails_says_on_which_line(
    tmp_path: Path, text: str, line: str, why: str
) -> None:
    with pytest.raises(UsageError, match=r"the rules file .*my_layers\.py fails") as caught:
        load_rules([written(tmp_path, text)])
    assert caught.value.where == line
    assert why in caught.value.why


def test_a_file_that_failed_leaves_none_of_its_rules_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fails"):
        load_rules([written(tmp_path, RULE + "\n1 / 0\n")])
    assert "kprune_custom>Gate" not in builtin().custom
    load_rules([written(tmp_path, RULE)])
    assert "kprune_custom>Gate" in builtin().custom


def test_a_file_of_rules_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read the rules file"):
        load_rules([str(tmp_path / "nowhere.py")])


def test_a_rule_that_asks_for_what_the_config_lacks_is_named(tmp_path: Path) -> None:
    rules = [written(tmp_path, RULE.replace('"hidden", "hidden"', '"size", "hidden"'))]
    with pytest.raises(UsageError, match=r"the rule for .* fails") as caught:
        remove(gated(tmp_path), {"a": [3]}, dry_run=True, rules=rules)
    assert "my_layers.py" in str(caught.value)


def test_a_rule_that_gets_a_shape_wrong_is_found_out(tmp_path: Path) -> None:
    """Every weight that a rule declares is held against the file before anything is cut."""
    rules = [written(tmp_path, RULE.replace("channels, hidden, out=1", "hidden, channels"))]
    with pytest.raises(Exception, match=r"up of 'gate' has shape \(8, 6\) in the file"):
        remove(gated(tmp_path), {"a": [3]}, dry_run=True, rules=rules)


def test_two_rules_for_one_class_are_an_error(tmp_path: Path) -> None:
    load_rules([written(tmp_path, RULE)])
    other = RULE.replace("return call.x", "return call.opaque('no')")
    with pytest.raises(UsageError, match=r"others\.py fails") as caught:
        load_rules([written(tmp_path, other, "others.py")])
    assert "has a rule already" in caught.value.why


def test_a_package_brings_rules_through_an_entry_point(tmp_path: Path) -> None:
    """A distribution on sys.path, in a process of its own."""
    (tmp_path / "gate_rules.py").write_text(RULE)
    info = tmp_path / "gate_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gate-rules\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kprune.rules]\ngates = gate_rules\n")
    path = gated(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import kprune\n"
        f"print(kprune.remove({path!r}, {{'gate.hidden': [1]}}, dry_run=True).changed)\n"
    )

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert run().stdout == "{'gate.hidden': [1]}\n"
    for kind in ("RuntimeError", "SystemExit"):
        (tmp_path / "gate_rules.py").write_text(f"raise {kind}('out of order')\n")
        failed = run()
        assert "the rules of the package entry point 'gates' fail" in failed.stderr
        assert f"{kind}: out of order" in failed.stderr


def test_a_custom_class_never_gets_the_rule_of_a_keras_class_of_the_same_name(
    tmp_path: Path,
) -> None:
    x = keras.Input((5,))
    y = Dense(name="mirror")(keras.layers.Dense(8, name="a")(x))
    path = str(tmp_path / "model.keras")
    keras.Model(x, keras.layers.Dense(2, name="out")(y)).save(path)
    with pytest.raises(CannotPruneError) as caught:
        remove(path, {"a": [3]}, dry_run=True)
    assert "(it is not Keras's own Dense)" in caught.value.why
    # Its layers are numbered by class: the mirror is a dense as well, and holds no weights.
    assert remove(path, {"out": [1]}, dry_run=True).output.parameters == 8 * 6 + 9


def test_a_users_rule_never_replaces_that_of_a_keras_class(tmp_path: Path) -> None:
    text = RULE.replace("kprune_custom>Gate", "Dense")
    rules = load_rules([written(tmp_path, text)])
    spec = {"class_name": "Dense", "config": {"name": "a"}}
    keras_own = Layer("a", "a", "Dense", "keras.layers", None, spec)
    theirs = Layer("a", "a", "Dense", "somewhere", "package>Dense", spec)
    assert rules.find(keras_own) is rules.layers["Dense"]
    assert rules.find(theirs) is rules.custom["Dense"]


def test_a_rule_sees_each_call_of_a_shared_layer(tmp_path: Path) -> None:
    x = keras.Input((5,))
    gate = Gate(4, name="gate")
    one, two = keras.layers.Dense(8, name="a")(x), keras.layers.Dense(8, name="b")(x)
    y = keras.layers.Dense(2)(keras.layers.Concatenate()([gate(one), gate(two)]))
    path = str(tmp_path / "shared.keras")
    keras.Model(x, y).save(path)
    report = remove(path, {"a": [3]}, dry_run=True, rules=[written(tmp_path, RULE)])
    assert report.changed == {"a": [3], "b": [3]}
    assert report.output.parameters < report.input.parameters
