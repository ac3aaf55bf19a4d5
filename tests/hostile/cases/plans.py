"""Plans, specs and expressions that are malformed, ask for too much, or reach for what is not theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.case import Run, add, writes

PLAN = "bad.yaml"
STEP = "version: 1\nsteps:\n  - backend: remove\n    layers:\n      "


def plan(name: str, text: str | bytes | Callable[[], bytes], *says: str, code: int = 2) -> None:
    """A plan that `apply` refuses."""
    made = text if callable(text) else lambda: text.encode() if isinstance(text, str) else text
    runs = (Run(writes("good.keras", "apply", "good.keras", PLAN), code, (PLAN, *says)),)
    add(f"plan/{name}", made, file=PLAN, runs=runs)


def laughs(levels: int) -> str:
    """Aliases of aliases: as many values as 9 to the `levels`."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(rows)


plan("empty", "")
plan("a list", "- a")
plan("a text", "remove everything")
plan("binary", bytes(range(1, 256)), code=4)
plan("no UTF-8", b"version: 1\nsteps: [\xff\xfe]\n", code=4)
plan("a zero byte", "version: 1\n\0")
plan("tabs", "version: 1\nsteps:\n\t- backend: remove\n", "line 3")
plan("no version", "steps: [{backend: remove, layers: {a: [1]}}]\n", "version")
plan("a version of the future", "version: 99\nsteps: []\n", "version")
plan("an unknown key", "version: 1\nsteps: []\nsurprise: 1\n", "surprise")
plan(
    "an unknown key of a step", "version: 1\nsteps:\n  - backend: remove\n    lairs: {}\n", "lairs"
)
plan(
    "an unknown backend",
    "version: 1\nsteps:\n  - backend: explode\n    layers: {a: [1]}\n",
    "explode",
)
plan("a key given twice", "version: 1\nversion: 1\nsteps: []\n", "version")
plan("steps that are a text", "version: 1\nsteps: remove\n", "steps")
plan("a Python tag", "!!python/object/apply:os.system ['touch planted']\n", "tag")
plan("a tag of its own", "version: !kprune 1\n", "tag")
plan("an alias to itself", "version: 1\nsteps: &s [*s]\n")
plan("aliases of aliases", laughs(12))
plan("nested 100 deep", "version: 1\nsteps: " + "[" * 100 + "]" * 100, "nest")
plan("nested 100,000 deep", "version: 1\nsteps: " + "[" * 100_000, "nest")
plan(
    "nested mappings",
    "version: 1\nsteps:\n" + "".join(" " * n + "a:\n" for n in range(500)),
    "nest",
)
plan("two documents", "version: 1\nsteps: []\n---\nversion: 1\n")
plan("ten megabytes", lambda: b"version: 1 #" + b"x" * 10_000_000, "plan-bytes", code=4)
plan("an unknown layer", STEP + "nobody: [1]\n", "nobody")
plan("a unit beyond the layer", STEP + "a: [99]\n", "99")
plan("a unit below the layer", STEP + "a: [-99]\n", "-99")
plan("a unit that is a fraction", STEP + "a: [1.5]\n", "1.5")
plan("a unit that is a text", STEP + "a: [x]\n", "x")
plan("a unit of 10,000 digits", STEP + "a: [" + "9" * 10_000 + "]\n")
plan("a range of a trillion units", STEP + 'a: "0-1000000000000"\n')
plan("a range that runs back", STEP + 'a: "4-1"\n')
plan("a step of zero", STEP + 'a: "0-4/0"\n')
plan(
    "two million units",
    lambda: (STEP + "a: [" + "1," * 2_000_000 + "1]\n").encode(),
    "plan-bytes",
    code=4,
)
plan("no units", STEP + "a: []\n")
plan("an unknown criterion", STEP + "a: {criterion: beauty, ratio: 0.5}\n", "beauty")
plan("a ratio above one", STEP + "a: {criterion: l1, ratio: 1.5}\n", "ratio")
plan("a ratio that is no number", STEP + "a: {criterion: l1, ratio: .nan}\n", "ratio")
plan("an infinite threshold", STEP + "a: {criterion: l1, threshold: .inf}\n", code=2)
plan("a count below zero", STEP + "a: {criterion: l1, count: -3}\n", "count")
plan("an expression that reaches for attributes", STEP + 'a: {where: "w.__class__"}\n')
plan(
    "an expression that calls", STEP + "a: {where: \"__import__('os').system('touch planted')\"}\n"
)
plan("an expression that is not one", STEP + 'a: {where: "l2 <"}\n')
plan("an expression nested 10,000 deep",
     STEP + 'a: {where: "' + "(" * 10_000 + "1" + ")" * 10_000 + '"}\n')  # fmt: skip
plan("an expression of a huge power", STEP + 'a: {where: "9**9**9**9 > 1"}\n')
plan("an expression of huge shifts", STEP + 'a: {where: "1 << 99999999999 > 1"}\n')
plan("an expression of a huge list", STEP + 'a: {where: "[0]*9999999999 == 1"}\n')
plan("indices of a file that is not there", STEP + 'a: "@nowhere.txt"\n', "nowhere.txt", code=4)
plan("an expectation that is no comparison",
     STEP + "a: [1]\nexpect: {parameters: lots}\n", "lots")  # fmt: skip
plan("an expectation of something unknown", STEP + "a: [1]\nexpect: {beauty: 1}\n", "beauty")


def spec(name: str, text: str, *says: str, code: int = 2) -> None:
    """A spec that `remove` refuses."""
    runs = (Run(writes("good.keras", "remove", "good.keras", text), code, says),)
    add(f"spec/{name}", lambda folder: None, file="good.keras", runs=runs)


spec("no colon", "a", "a")
spec("no units", "a:")
spec("no layer", ":3")
spec("an unknown layer", "nobody:1", "nobody")
spec("an unknown axis", "a.heads:1", "heads")
spec("a unit beyond the layer", "a:6", "6")
spec("a unit of 5,000 digits", "a:" + "1" * 5000)
spec("a range of a trillion", "a:0-1000000000000")
spec("every unit", "a:0-5", code=3)
spec("a range without end", "a:0-")
spec("a step of zero", "a:0-5/0")
spec("a hundred thousand commas", "a:" + "," * 100_000)
spec("an escape sequence", "a\x1b[2J:1")
spec("a pattern of stars", "*" * 2000 + "z:1")
spec("a pattern of brackets", "[" * 2000 + ":1")
spec("a pattern that takes for ever", "*a" * 60 + "b:1")
spec("a file that is not there", "a:@nowhere.txt", "nowhere.txt", code=4)
spec("a file that is a device", "a:@/dev/zero", "/dev/zero", code=4)
spec("a file that is a folder", "a:@/etc", "/etc", code=4)
spec("an expression that calls", "a:where(open('/etc/passwd'))")
spec("an expression with a lambda", "a:where((lambda: 1)())")
spec("an expression that walks attributes", "a:where(w.T)")
spec("an expression of a huge power", "a:where(9**9**9 > w[0,0])")
spec("an expression that is not closed", "a:where(mean<0.1")
spec("an expression of a huge index", "a:where(w[" + "9" * 400 + "] > 0)")
spec("an expression 20,000 long", "a:where(" + "mean+" * 20_000 + "mean > 0)")
spec("an expression nested 5,000 deep", "a:where(" + "not " * 5000 + "mean)")
spec("a lone quote", 'a":1')
spec("two million units", "a:" + "1," * 60_000 + "99", "99")

INDICES = "bad.txt"


def indices(
    name: str, make: Callable[[], bytes], *says: str, file: str = INDICES, code: int = 2
) -> None:
    """A file of indices that is refused."""
    arguments = writes("good.keras", "remove", "good.keras", f"a:@{file}")
    add(f"indices/{name}", make, file=file, runs=(Run(arguments, code, (file, *says)),))


def array(value: np.ndarray) -> Callable[[], bytes]:
    import io

    def make() -> bytes:
        data = io.BytesIO()
        np.save(data, value, allow_pickle=True)
        return data.getvalue()

    return make


def header(text: str) -> Callable[[], bytes]:
    """An array whose header says what it likes."""
    return lambda: b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


indices("words", lambda: b"one two three\n", "line 1")
indices("binary", lambda: bytes(range(256)), code=4)
indices("nothing", lambda: b"")
indices("two million numbers", lambda: b"1\n" * 2_000_000 + b"99\n", "list-items", code=4)
indices("a number of a million digits", lambda: b"9" * 1_000_000)
indices("a secret", lambda: b"root:x:0:0:root:/root:/bin/bash\n")
indices("JSON that is nested", lambda: b"[" * 100_000, "json-levels", file="bad.json", code=4)
indices("JSON that is an object", lambda: b'{"a": [1]}', file="bad.json")
indices("JSON of texts", lambda: b'["1", "2"]', file="bad.json")
indices("JSON of fractions", lambda: b"[1.5]", file="bad.json")
indices("JSON that is cut", lambda: b"[1, 2", file="bad.json")
indices("JSON of a huge number", lambda: b"[1e400]", file="bad.json")
indices("JSON of NaN", lambda: b"[NaN]", file="bad.json")
indices("an array of objects", array(np.array([print], object)), file="bad.npy", code=4)
indices("an array of texts", array(np.array(["1"])), file="bad.npy")
indices("an array of fractions", array(np.array([1.5])), file="bad.npy")
indices("an array that is no array", lambda: b"[1, 2]", file="bad.npy", code=4)
indices("an array that is cut", lambda: array(np.arange(99))()[:-9], file="bad.npy", code=4)
indices("an array of an exabyte", header(
    "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000000,), }\n"),
    file="bad.npy", code=4)  # fmt: skip
indices("an array whose header is code", header(
    "{'descr': __import__('os').system('touch planted'), 'shape': (1,)}\n"),
    file="bad.npy", code=4)  # fmt: skip


def tokens(name: str, make: Callable[[], bytes], *says: str, code: int = 2) -> None:
    """A file of tokens to keep that is refused: the model has no layer with tokens."""
    arguments = writes("good.keras", "remove", "good.keras", "--keep-tokens", "bad.txt")
    add(f"tokens/{name}", make, file="bad.txt", runs=(Run(arguments, code, says),))


tokens("for a model without any", lambda: b"one\ntwo\n")
tokens("that are binary", lambda: bytes(range(256)))


def folder_of_plans(folder: Path) -> None:
    (folder / PLAN).mkdir()


add("plan/a folder", folder_of_plans, file=PLAN,
    runs=(Run(writes("good.keras", "apply", "good.keras", PLAN), 4, (PLAN,)),))  # fmt: skip
add("plan/a device", lambda folder: (folder / PLAN).symlink_to("/dev/zero"), file=PLAN,
    runs=(Run(writes("good.keras", "apply", "good.keras", PLAN), 4, (PLAN,)),))  # fmt: skip
add("plan/a model", lambda folder: (folder / PLAN).symlink_to("good.keras"), file=PLAN,
    runs=(Run(writes("good.keras", "apply", "good.keras", PLAN), 4, (PLAN,)),))  # fmt: skip
