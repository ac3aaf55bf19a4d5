"""What a change comes to, in figures and words.

report.py   the report as data (its JSON is the contract), as it is shown, and its schema
build.py    makes the report of one change; traps.py: what Keras does wrong after some cuts
kept.py     which positions of each weight are left
facts.py    a model file in figures; totals.py: those of two files, one above the other
files.py    the files that were written
"""
