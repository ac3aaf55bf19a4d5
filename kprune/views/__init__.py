"""Descriptions of a model that do not change it.

inspect.py   what a file holds; inspection.py: as data, and as it is shown
explain.py   why units go together; explanation.py: as data, and as it is shown
diff.py      what differs between two files; difference.py: as data, and as it is shown
fields.py    entries of configs that differ; values.py: tensors that differ
known_rules.py  the classes that have a rule
known_criteria.py  the criteria, and the statistics of expressions
guide.py     the pages of the guide
"""
