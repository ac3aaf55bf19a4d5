"""The commands that write, as functions of a model: each opens the model, makes a change, and writes the result.

change.py          remove, zero, mask, unmask, compact, apply, plan
arguments.py       how they take their arguments, and the arguments that they share
apply.py           plans, step by step
repair.py          refitting a file that was pruned before
compact.py         a compacted model, checked before it is written
sensitivity.py     what it costs to cut each group of layers alone
iterate.py         cut, train, repeat; iterate_result.py, rounds.py: what came of it
schemas.py         JSON Schemas of plans and reports
"""
