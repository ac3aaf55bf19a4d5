"""What a change comes to, in figures and words.

counts.py       units, parameters, operations of a model, layer by layer
report.py       the report as data (its JSON is the contract), and its schema
build.py        makes the report of one change; traps.py: what Keras does wrong after some cuts
inspect.py      what a model file holds and what may be removed of it
explanation.py  what goes along with some units and why, or why they cannot go
diff.py         what differs between two model files
fields.py       entries of configs that differ; values.py: values of tensors that do
known_rules.py  the classes that have a rule
json_text.py    JSON as kprune prints it; plot.py: curves as a picture
"""
