"""From chosen units to an Edit: what changes in a file's config and in its tensors.

remove.py        units cut from every weight axis, config field and optimizer slot
zero.py          their weights set to zero
mask.py          their outputs multiplied by 0
fold.py          constant units, which are added to their consumers' biases
merge.py         units with the same output become one
compact.py       which units can be removed without any effect
whole_layers.py  layers taken out as a whole
constants/       units whose output is constant
rewrite.py       a config with its sizes cut
splice.py        layers put into a config, and taken out of it
relocate.py      the paths of tensors after the list of layers changed
convert.py       an edit of a legacy `.h5` that makes a `.keras` file of it
compile_config/  losses and metrics, if classes are removed
optimizer.py     which optimizer slot belongs to which variable
provenance.py    what kprune writes about itself into the file
"""
