"""Texts of plans: the one of the manual, and those that are refused, with what is said of each."""

from __future__ import annotations

MANUAL = """\
version: 1
model: {parameters: 1663370}          # optional: refuse another model
steps:
  - backend: remove
    layers:
      dense_1: [3, 7, 12]             # or any INDICES text: "0-15", "!3,7", "@drop.txt"
      conv2d_*: {criterion: l1, ratio: 0.25, round_to: 8, min_units: 8}
      mha.heads: {where: "l2 < 0.5"}
    exclude: [predictions]
expect: {parameters: "<= 1300000", exact: true}
"""

HEAD = "version: 1\nsteps:\n  - backend: remove\n    layers:\n      "


def said(what: str, line: int, shown: str, column: int, *rest: str, then: str = "") -> str:
    """The whole message: the sentence, and the line with a caret under a column."""
    end = f"; {then}" if then else ""
    dot = "" if then.endswith("?") else "."
    rows = [
        f"error: {what} in plan.yaml, line {line}{end}{dot} Nothing was written.",
        f"where: plan.yaml, line {line}",
        f"       {shown}",
        f"       {' ' * column}^",
    ]
    return "\n".join([*rows, *rest])


# By text, the whole message; NAMES stands for the statistics that there are.
REFUSED = {
    "- a": said("the plan is a list", 1, "- a", 0, then="it must be a mapping"),
    "3": said("the plan is a whole number", 1, "3", 0, then="it must be a mapping"),
    "steps: [{backend: zero, layers: {a: [1]}}]": said(
        "no 'version'", 1, "steps: [{backend: zero, layers: {a: [1]}}]", 0
    ),
    "version: 1": said("no 'steps'", 1, "version: 1", 0),
    "version: 2\nsteps: 1": said(
        "'version' is 2", 1, "version: 2", 0, then="this kprune reads version 1"
    ),
    'version: "1"\nsteps: 1': said(
        "'version' is text", 1, 'version: "1"', 0, then="it must be a whole number"
    ),
    "version: 1\nsteps: []": said("'steps' is empty", 2, "steps: []", 0),
    "version: 1\nsteps:": said("no value for 'steps'", 2, "steps:", 0),
    "version: 1\nsteps:\n- 3": said(
        "step 1 is a whole number", 3, "- 3", 2, then="it must be a mapping"
    ),
    "version: 1\nsteps:\n-": said("no value for step 1", 3, "-", 1),
    "version: 1\nchoose: {criterion: l1}": said(
        "unknown key 'choose'",
        2,
        "choose: {criterion: l1}",
        0,
        "do:    'kprune iterate' carries out such a plan",
    ),
    "version: 1\nstep: []": said(
        "unknown key 'step'", 2, "step: []", 0, then="did you mean 'steps'?"
    ),
    "version: 1\nsteps:\n- layers: {a: [1]}": said(
        "no 'backend' in step 1", 3, "- layers: {a: [1]}", 2
    ),
    "version: 1\nsteps:\n- backend: remov\n  layers: {a: [1]}": said(
        "'backend' is 'remov'", 3, "- backend: remov", 2, then="did you mean 'remove'?"
    ),
    "version: 1\nsteps:\n- backend: x\n  layers: {a: [1]}": said(
        "'backend' is 'x'", 3, "- backend: x", 2, then="there are zero, mask, remove, compact"
    ),
    "version: 1\nsteps:\n- backend: zero\n  layesr: {a: [1]}": said(
        "unknown key 'layesr'", 4, "  layesr: {a: [1]}", 2, then="did you mean 'layers'?"
    ),
    "version: 1\nsteps:\n- backend: zero\n  layers: {}": said(
        "'layers' is empty", 4, "  layers: {}", 2
    ),
    "version: 1\nsteps:\n- backend: zero\n  layers: [a]": said(
        "'layers' is a list", 4, "  layers: [a]", 2, then="it must be a mapping"
    ),
}
# what follows `layers:` in a plan, in line 5
PARTS = {
    "a: 3.5": ("'a' is a number", 5, 0, 6, "it must be text, a mapping or a list"),
    "a:": ("no value for 'a'", 5, 0, 6, ""),
    "a: [1, x]": ("item 2 of 'a' is text", 5, 0, 13, "it must be a whole number"),
    "a: [1,\n       true]": (
        "item 2 of 'a' is true or false", 6, 1, 7, "it must be a whole number"),
    "a: [1]\n      b: {ratio: 1, criterion: l1}": (
        "'ratio' is out of range", 6, 1, 10, "it must be less than 1"),
    "a: {ratio: 0, criterion: l1}": (
        "'ratio' is out of range", 5, 0, 10, "it must be more than 0"),
    "a: {ratio: x, criterion: l1}": ("'ratio' is text", 5, 0, 10, "it must be a number"),
    "a: {count: 0, criterion: l1}": (
        "'count' is out of range", 5, 0, 10, "it must be at least 1"),
    "a: {count: 2.5, criterion: l1}": (
        "'count' is a number", 5, 0, 10, "it must be a whole number"),
    "a: {count: true, criterion: l1}": (
        "'count' is true or false", 5, 0, 10, "it must be a whole number"),
    "a: {cuont: 3, criterion: l1}": ("unknown key 'cuont'", 5, 0, 10, "did you mean 'count'?"),
    "a: {criterion: 3, ratio: .5}": ("'criterion' is a whole number", 5, 0, 10, "it must be text"),
    "a: {criterion: , ratio: .5}": ("no value for 'criterion'", 5, 0, 10, ""),
    "a: [1]\n    backnd: 3": ("unknown key 'backnd'", 6, 1, 4, "did you mean 'backend'?"),
    "a: [1]\n    exclude: x": ("'exclude' is text", 6, 1, 4, "it must be a list"),
    "a: [1]\n    fold: 1": ("'fold' is a whole number", 6, 1, 4, "it must be true or false"),
    "a: {criterion: l1, count: 3, reduce: sun}": (
        "'reduce' is 'sun'", 5, 0, 35, "did you mean 'sum'?"),
    "a: {criterion: l1, count: 3, normalize: 3}": (
        "'normalize' is a whole number", 5, 0, 35, "it must be text"),
    "a: {criterion: l1, count: 3, max_ratio: 1}": (
        "'max_ratio' is out of range", 5, 0, 35, "it must be less than 1"),
    "a: {criterion: l1, count: 3, seed: -1}": (
        "'seed' is out of range", 5, 0, 35, "it must be at least 0"),
    "a: {criterion: l1}\n    target_params: 0.5": (
        "'target_params' is a number", 6, 1, 4, "it must be a whole number or text"),
    "a: {criterion: l1, count: 3}\n    globl: true": (
        "unknown key 'globl'", 6, 1, 4, "did you mean 'global'?"),
    "a: [1]\nmodel: {}": ("no 'parameters' in 'model'", 6, 1, 0, ""),
    "a: [1]\nmodel: {parameters: -1}": (
        "'parameters' is out of range", 6, 1, 8, "it must be at least 0"),
    "a: [1]\nexpect: {parms: 1}": ("unknown key 'parms'", 6, 1, 9, "did you mean 'parameters'?"),
    "a: [1]\nexpect: {exact: 1}": (
        "'exact' is a whole number", 6, 1, 9, "it must be true or false"),
    "a: [1]\nexpect: {units: 1.5}": (
        "'units' is a number", 6, 1, 9, "it must be a whole number or text"),
    'a: [1]\nexpect: {units: "=> 5"}': (
        "'units' is not a comparison", 6, 1, 9,
        'write a number, or a comparison such as "<= 1300000"'),
}  # fmt: skip
REFUSED |= {
    HEAD + part: said(what, line, f"      {part}".split("\n")[row], column, then=then)
    for part, (what, line, row, column, then) in PARTS.items()
}
REFUSED |= {
    HEAD + "a: {criterion: l1}": said(
        "a criterion without a limit", 5, "      a: {criterion: l1}", 10,
        "do:    give one of ratio, count and threshold"),
    HEAD + "a: {criterion: l1, ratio: 0.5, count: 3}": said(
        "a criterion with 'ratio' and 'count'", 5,
        "      a: {criterion: l1, ratio: 0.5, count: 3}", 37,
        "do:    give one of ratio, count and threshold"),
    HEAD + "a: {where: mean < 1, count: 3}": said(
        "'where' and 'count' for the same layer", 5, "      a: {where: mean < 1, count: 3}", 27),
    HEAD + "a: {min_units: 3}": said(
        "a choice with neither 'criterion' nor 'where'", 5, "      a: {min_units: 3}", 6,
        "do:    write {criterion: l1, ratio: 0.25} or {where: mean < 0.1}"),
    HEAD + "a: {criterion: l1, threshold: .nan}": said(
        "a threshold that is not a number to compare with", 5,
        "      a: {criterion: l1, threshold: .nan}", 25),
    HEAD + "a: [1]\n    outgoing: true": said(
        "'outgoing' with backend 'remove'", 6, "    outgoing: true", 4,
        "do:    'outgoing' goes with backend: zero"),
    HEAD + "a: {criterion: l1, ratio: 0.5}\n    target_params: 50%": said(
        "'ratio' under 'target_params'", 5, "      a: {criterion: l1, ratio: 0.5}", 25,
        "do:    give one of the two"),
    HEAD + "a: {criterion: l1}\n      b: {criterion: l2}\n    target_flops: 5M": said(
        "two choices under 'target_flops'", 6, "      b: {criterion: l2}", 6,
        "do:    it ranks all layers in one list, so give them one choice, or two steps"),
    HEAD + "a: [1]\n    global: true": said(
        "no criterion under 'global'", 5, "      a: [1]", 6,
        'do:    write layers: {"*": {criterion: lamp}}'),
    HEAD + "a: {criterion: l1}\n    target_params: 50%\n    target_bytes: 9k": said(
        "'target_params' and 'target_bytes'", 7, "    target_bytes: 9k", 4,
        "do:    give one of them"),
    HEAD + "a: {criterion: l1}\n    target_params: a lot": said(
        "'a lot' is not a valid budget of parameters", 6, "    target_params: a lot", 4,
        "do:    write 40%, 1.2M or 500000"),
    HEAD + "a: [1]\n    below: 0.1": said(
        "'below' with backend 'remove'", 6, "    below: 0.1", 4,
        "do:    'below' goes with backend: mask"),
    HEAD.replace("remove", "mask") + "a: {where: mean < 1}\n    below: 0.1": said(
        "a choice by rank with 'below'", 5, "      a: {where: mean < 1}", 6),
    "version: 1\nsteps:\n- backend: zero\n  exclude: [a]": said(
        "a step without 'layers'", 3, "- backend: zero", 2,
        "do:    write layers: {dense_1: [3, 7, 12]}"),
    "version: 1\nsteps:\n- {backend: compact, exclude: [a]}": said(
        "'exclude' with backend 'compact'", 3, "- {backend: compact, exclude: [a]}", 21,
        "do:    'exclude' goes with backend: zero or mask or remove"),
    HEAD + "a: [1]\n    classes: [cat]": said(
        "'classes' without 'class_names'", 6, "    classes: [cat]", 4,
        "do:    write class_names: labels.txt, the names in the order of the model's outputs"),
    HEAD + "a: [1]\n    class_names: l.txt": said(
        "'class_names' without 'classes'", 6, "    class_names: l.txt", 4,
        "do:    write classes: [cat]"),
    HEAD + "a: [1]\n    class_names: l.txt\n    classes: []": said(
        "'classes' is empty", 7, "    classes: []", 4),
    HEAD + "a: [1]\n    class_names: l.txt\n    classes: {cat: 1}": said(
        "'classes' is a mapping", 7, "    classes: {cat: 1}", 4, then="it must be text or a list"),
    HEAD + "a: {criterion: l1}\n    classes: cat\n    class_names: l\n    target_params: 9": said(
        "'classes' under 'target_params'", 6, "    classes: cat", 4, "do:    make two steps of it"),
    "version: 1\nsteps:\n- backend: compact\n  classes: cat\n  class_names: l.txt": said(
        "'classes' with backend 'compact'", 4, "  classes: cat", 2,
        "do:    'classes' goes with backend: zero or mask or remove"),
    "version: 1\nsteps:" + 2 * "\n- {backend: remove, classes: cat, class_names: l.txt}": said(
        "a second step that removes classes by name", 4,
        "- {backend: remove, classes: cat, class_names: l.txt}", 20,
        "do:    name them all in one step"),
    HEAD + '"": [1]': said("no layer is named", 5, '      "": [1]', 6),
    HEAD + "a: 3,x": """\
error: '3,x' is not a list of units in plan.yaml, line 5. Nothing was written.
where: plan.yaml, line 5
       3,x
         ^
do:    write 3,7,12 or 0-7 or 0-99/2 or -1 or !3,7 or @FILE or where(EXPRESSION)""",
    HEAD + "a: [1]\n      b: {where: mean < 1 and meen > 2}": """\
error: there is no statistic 'meen' in plan.yaml, line 6. Nothing was written.
where: plan.yaml, line 6
       mean < 1 and meen > 2
                    ^^^^
do:    did you mean 'mean'?""",
    HEAD + "a:\n        where: |\n          mean <\n          oops\n": """\
error: there is no statistic 'oops' in plan.yaml, line 6. Nothing was written.
where: plan.yaml, line 6
       mean < oops >
              ^^^^
do:    NAMES""".replace(" >", " "),
}  # fmt: skip
