"""A module for each command, or for those that are alike: options in, a call of kprune's function, its result shown.

change.py       remove, zero, mask, unmask
compact.py      compact
diff.py         diff
explain.py      explain
flatten.py      flatten
inspect.py      inspect
iterate.py      iterate
plan.py         plan, apply
reference.py    rules, criteria, schema, guide
repair.py       repair
sensitivity.py  sensitivity
tune.py         tune
verify.py       verify

To add a command, write its function in a module here, and a line in `COMMANDS`.

Annotations are evaluated as the module is loaded (no `from __future__ import annotations`): Typer
needs every one of them, and would compile each string anew.
"""

from typing import NamedTuple

LOOK, CHANGE, CHECK, REFERENCE = "Look", "Change", "Check and train", "Reference"


class Entry(NamedTuple):
    """A line in the list of commands."""

    heading: str
    name: str
    module: str
    summary: str


# Each command with the module that holds it, imported when it is called or its help is shown; and
# what the list of commands says of it, which is the first line of its own help.
COMMANDS = (
    Entry(LOOK, "inspect", "inspect", "Layers: units, parameters, FLOPs, what is free, what is tied."),
    Entry(LOOK, "explain", "explain", "What is removed with these units and why, or why they cannot be removed."),
    Entry(LOOK, "diff", "diff", "What differs: layers, units, parameters, FLOPs, bytes, values."),
    Entry(CHANGE, "remove", "change", "Remove units physically: smaller layers, in a smaller file."),
    Entry(CHANGE, "zero", "change", "Set the units' incoming weights and biases to 0; shapes stay."),
    Entry(CHANGE, "mask", "change", "Multiply the units' outputs by 0 with stock Keras layers; reversible."),
    Entry(CHANGE, "unmask", "change", "Remove masks: the model is what it was before."),
    Entry(CHANGE, "compact", "compact", "Remove what is dead or constant: the same outputs, a smaller file."),
    Entry(CHANGE, "plan", "plan", "Choose units, and print the choice as a plan with explicit indices."),
    Entry(CHANGE, "apply", "plan", "Carry out a plan."),
    Entry(CHANGE, "repair", "repair", "Refit a pruned model to the outputs of the original."),
    Entry(CHANGE, "flatten", "flatten", "Write a model of a custom class (KerasHub's, or yours) as a plain graph."),
    Entry(CHECK, "verify", "verify", "Run both models in TensorFlow, and compare."),
    Entry(CHECK, "tune", "tune", "Fine-tune what is left, in Keras; the best epoch is written."),
    Entry(CHECK, "iterate", "iterate", "Prune a little, repair or train, and repeat, as a plan says."),
    Entry(CHECK, "sensitivity", "sensitivity", "Measure what it costs to cut each layer alone."),
    Entry(REFERENCE, "rules", "reference", "Layer classes and operations that kprune knows, and what they do."),
    Entry(REFERENCE, "criteria", "reference", "Criteria and statistics: what each is, its source, what it needs."),
    Entry(REFERENCE, "guide", "reference", "Pages that say more than help does."),
    Entry(REFERENCE, "schema", "reference", "JSON Schema of plans and of reports."),
)  # fmt: skip
