"""A module for each command, or for those that are alike: options in, a call of kprune's function, its result shown.

change.py       remove, zero, mask, unmask
compact.py      compact
diff.py         diff
explain.py      explain
flat.py         flatten
inspect.py      inspect
iterate.py      iterate
plan.py         plan, apply
reference.py    rules, schema
sensitivity.py  sensitivity
tune.py         tune
verify.py       verify
"""
