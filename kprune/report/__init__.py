"""The report of a change, in figures and words.

change.py          a change that is ready to be carried out
report.py          the report as data (its JSON is the contract), as it is shown, and its schema
build.py           makes the report of one change; traps.py: what Keras does wrong after some cuts
repaired.py        what came of refitting what is left
kept_positions.py  which positions of each weight are left
names_left.py      the class names that are left, and token_ids.py the new ids of an embedding's tokens:
                   files beside the result
facts.py           a model file in figures; totals.py: those of two files, one above the other
files.py           the files that were written
"""
