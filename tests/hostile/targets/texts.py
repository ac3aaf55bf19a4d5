"""What users write: plans, specs, expressions, lists of units."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from tests.hostile.mutations import (
    Op,
    Seed,
)
from tests.hostile.targets.target import Bytes

PLANS = (
    b"version: 1\nmodel: {parameters: 81}\nsteps:\n  - backend: remove\n    layers:\n      a: [1, 4]\n"
    b"expect: {parameters: '<= 80', exact: true}\n",
    b"version: 1\nsteps:\n  - backend: mask\n    layers:\n      'a*': {criterion: l1, ratio: 0.25, min_units: 2}\n"
    b"    exclude: [b]\n  - backend: zero\n    layers: {a: '0-2', b: '!1'}\n",
    b"version: 1\nsteps:\n  - {backend: remove, layers: {a: {where: 'l2 < 2'}}, include: [a]}\n",
)  # fmt: skip
WORDS = tuple(
    word.encode()
    for word in """version: 1|steps:|- backend: remove|layers:|a: [1]|{|}|[|]|:| |\n|\t|'|"|#|&x|*x|!!int|!x|---|...
    |>|%|@a.txt|,|-|!|0-5|0-5/2|-1|99|1e9|.nan|.inf|null|true|~|criterion: l1|ratio: 0.5|count: 2|where: |threshold: 0
    |exclude: [b]|expect: {exact: true}|model: {}|repair: true|round_to: 8|min_units: 1|<<: *x|? a|\\|\x00|\x85|\xff
    |include: [a]|all|"0-2"|version: 2""".replace("\n    |", "|").split("|")
)  # fmt: skip
SPECS = (
    b"a:1",
    b"a:0-2,4",
    b"a:0-5/2",
    b"a:!3",
    b"a:-1",
    b"'a':1",
    b"a.units:2",
    b"*:0",
    b"a:where(l2<2)",
    b"[ab]:1",
)
SPEC_WORDS = tuple(
    word.encode()
    for word in "a b bn * ? [ ] : . , - / ! @ ' \" 0 1 5 6 99 -1 where( ) l2 < units heads tokens all \\ é".split()
)
EXPRESSIONS = (
    b"l2 < 2", b"mean < 0.1 and not index == 3", b"w[0, 0] < 0", b"rank(l1) < 2", b"abs(bias) > quantile(bias, 0.5)",
    b"(std > 0.2) | (max > 1)", b"-l1 * 2 ** 2 / 3 > -9", b"gamma < 1 or outgoing_l1 > 1",
)  # fmt: skip
EXPRESSION_WORDS = tuple(
    word.encode()
    for word in """mean std min max l1 l2 absmax sparsity bias outgoing_l1 outgoing_l2 gamma beta moving_mean index w
    w[0] w[-1,:] w[9] w[...] ( ) [ ] , : < <= == != > >= + - * / // % ** & | ^ ~ << >> and or not in is if else lambda
    abs( quantile( rank( 0 1 2 99 1e400 1j 0x10 0o7 10**9 9**9**9 True None 'x' f'' . .T .__class__ __import__('os')
    x:=1 yield await {} {1} [1] \\ ; # @ é nan inf""".split()
)


class Text(Bytes):
    """An input that is a text, to which words of its language are added."""

    texts: tuple[bytes, ...]
    words: tuple[bytes, ...]
    beside = ("good.keras",)

    def files(self) -> list[bytes]:
        return list(self.texts)

    def seed(self, data: bytes) -> Seed:
        return Seed(data, (), (), self.words)

    @property
    def output(self) -> str:
        return "out.keras"


class Plan(Text):
    """A plan in YAML."""

    name, file, texts, words, weight = "plan", "bad.yaml", PLANS, WORDS, 2

    def commands(self, ops: list[Op]) -> list[list[str]]:
        return [["apply", "good.keras", self.file, "-o", self.output, "--force"]]


class Spec(Text):
    """A spec on the command line."""

    name, texts, words, weight, says_file = "spec", SPECS, (*SPEC_WORDS, b" "), 2, False

    def write(self, ops: list[Op], folder: Path) -> None:
        """It stands in no file."""

    def commands(self, ops: list[Op]) -> list[list[str]]:
        text = self.changed(ops).replace(b"\0", b"").decode(errors="replace")
        return [["remove", "good.keras", "-o", self.output, "--force", "--", text]]


class Expression(Spec):
    """An expression that chooses units."""

    name, texts, words, weight = "expression", EXPRESSIONS, (*EXPRESSION_WORDS, b" ", b"\n"), 3

    def commands(self, ops: list[Op]) -> list[list[str]]:
        text = self.changed(ops).replace(b"\0", b"").decode(errors="replace")
        return [["mask", "good.keras", "--where", text, "-o", self.output, "--force"]]


class Indices(Text):
    """A file of indices, as text or JSON."""

    name, file, weight = "indices", "bad.txt", 1
    texts = (b"1\n4\n", b"0-2, 4", b"# some\n3 5\n", b"[1, 4]")
    words = tuple(
        b'1|4|-1|99|0-2|,|\n| |#|!|@|[|]|{|}|1.5|1e3|null|"1"|\\|\x00|\xff|9999999999999999999'.split(
            b"|"
        )
    )

    def commands(self, ops: list[Op]) -> list[list[str]]:
        return [["remove", "good.keras", f"a:@{self.file}", "-o", self.output, "--force"]]


class Array(Indices):
    """A file of indices, as an array of NumPy."""

    name, file, words = "array", "bad.npy", ()

    def files(self) -> list[bytes]:
        found = []
        for value in (np.array([1, 4]), np.array([True, False] * 3), np.array([1.0, 2.0], "f4")):
            data = io.BytesIO()
            np.save(data, value)
            found.append(data.getvalue())
        return found

    def seed(self, data: bytes) -> Seed:
        return Seed(
            data,
            range(130),
            (),
            (b"'", b"(", b",", b"9999999999", b"|O", b"<f4", b"<U9", b"-1", b"{}"),
        )
