"""The commands that write, as functions of a model: each opens it, makes a change, and has it written.

change.py          remove, zero, mask, unmask, compact, apply, plan
arguments.py       the arguments that they have in common
apply.py           plans, step by step
compact.py         what is dead already
sensitivity.py     what each group of layers costs when it alone is cut
iterate.py         cut, train, repeat; iterate_result.py, rounds.py: what came of it
"""
