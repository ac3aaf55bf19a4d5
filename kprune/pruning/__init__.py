"""From chosen units to a file: selection, change, report, writing.

selection.py       which units, in any of the ways to name them
by_sensitivity.py  which units, by the measured cost of each group of layers
amounts.py         what a budget counts
remove.py, zero.py, mask.py, compact.py
                   a module for each backend (`kprune.select.plans.backends`): its change, and the
                   units that such a step pruned
steps.py           what one step of a plan asks a backend for
pruned_units.py    which units steps pruned, and how
repairing.py       refitting the rest of a model
writing.py         where the result goes; report, write
"""
