"""The commands that write, as functions of a model: each opens it, makes a change, and has it written.

change.py          remove, zero, mask, unmask, compact, apply, plan
arguments.py       how they take their arguments, and those that they have in common
apply.py           plans, step by step
repair.py          refitting a file that was pruned before
compact.py         a compacted model, checked before it is written
sensitivity.py     what each group of layers costs when it alone is cut
iterate.py         cut, train, repeat; iterate_result.py, rounds.py: what came of it
"""
