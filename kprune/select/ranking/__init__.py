"""Which units are chosen: statistics, criteria, budgets.

options.py       the options of a choice, for the command line, plans and Python
wording.py       a choice by its options as words
choice.py        how many units of which layers, and the criterion
statistics.py    what is known of each unit's weights
criteria.py      those that come with kprune
scoring.py       scores by these criteria: one per unit, the lowest go first
eliminated.py    groups in the order of removal when the rest is refitted
ranks.py         scores of whole groups
choose.py        units chosen by rank
equal_runs.py    layers whose units are divided into runs that must stay equal
bundles.py       groups that must go together so that equal runs stay equal
partial_axes.py  parts of a layer's units, of which something must be left
budget.py        how large the model may be
"""
