"""From chosen units to a file: selection, change, report, writing.

selection.py       which units, in any of the ways to say it
by_sensitivity.py  which units, by what each group of layers was seen to cost
amounts.py         what a budget counts
changes.py         from chosen units to an edit
carrying.py        where the result goes; report, write
token_ids.py       the new ids of an embedding's tokens, written beside the result
"""
