"""A SavedModel folder, read and written.

contents.py        its protos and its checkpoint
checkpoint.py      variables, shard by shard
source.py          a SavedModel as a source
rewrite.py         its graphs with new sizes
implementations.py names under which TensorFlow swaps functions
graph_check.py     the check before it is put in place
"""
