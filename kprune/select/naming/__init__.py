"""Which units are named: specs, indices, expressions, files, classes by name.

specs.py              LAYER[.AXIS]:INDICES
layer_names.py        from names to layers, and to their axes of units
resolve.py            from names and indices to units
indices.py            which units of one layer, in every notation
index_text.py         indices from text, or from what a caller gives
index_files.py        indices from a file
expressions.py        where(…): expressions over one layer's units
expression_syntax.py  what an expression may contain
statistic_names.py    the statistics that an expression may name
class_names.py        files of class names
kept_tokens.py        files of tokens that stay
"""
