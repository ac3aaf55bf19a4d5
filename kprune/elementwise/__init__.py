"""Functions that work element by element: what kprune knows of them, once for Keras's and TensorFlow's names.

formulas.py   the functions in numpy
table.py      which names a function goes by, and how its parameters are written there
facts.py      what follows: whether zeros stay zero, whether a positive factor passes through
written.py    functions as a config writes them: names, dicts, layers
"""
