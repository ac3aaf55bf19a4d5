"""What a change comes to, in figures and words.

    counts.py    units, parameters, operations of a model, layer by layer
    report.py    the report as data (its JSON is the contract), and its schema
    build.py     makes the report of one change
    inspect.py   what a model file holds and what may be removed of it
    diff.py      what differs between two model files
"""
