"""Files that users write and keep: plans as YAML, and curves of sensitivity.

plan.py         plans: which units of which layers, and what to do with them
iteration.py    plans for `kprune iterate`
structs.py      their schema
backends.py     what can be done to units: the table of backends
yaml_text.py    YAML that knows its lines
errors.py       errors in a plan, as a sentence with the line
floor.py        what a metric must not fall below
curves.py       how much of a metric each group of layers costs
sensitivity.py  the units that can be removed at a target metric, by such curves
"""
