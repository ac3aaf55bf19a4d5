"""From chosen units to an Edit: what changes in a file's config and in its tensors.

remove.py        units cut from every weight axis, config field and optimizer slot
zero.py          their weights set to zero
mask.py          their outputs multiplied by 0
fold.py          constant units, which their consumers' biases take over
merge.py         units that give the same become one
compact.py       which units can leave without a trace
whole_layers.py  layers taken out as a whole
constants/       units that give the same whatever comes in
rewrite.py       a config with its sizes cut
splice.py        layers put into a config, and taken out of it
relocate.py      where tensors stand after the list of layers changed
convert.py       an edit of a legacy `.h5` that makes a `.keras` file of it
compile_config/  losses and metrics, where classes go
optimizer.py     which optimizer slot belongs to which variable
provenance.py    what kprune writes about itself into the file
"""
