"""HDF5 as Keras writes it: read without libhdf5 where that is safe, and laid out anew.

tensors.py           the tensors of a file, by path
contents.py          datasets, groups, attributes and their places
direct_reader.py     files as Keras writes them, by kprune's own reader
foreign/             plain copies of all other files
structures.py        the structures of which both a file read and a new one are made
datatypes.py         number types as HDF5 encodes them
attributes.py        attributes: as they are stored, and what they say
global_heap.py       values of variable length
layout.py            where metadata and datasets of a new file stand
new_metadata.py      the metadata of a new file
resized_metadata.py  the input's metadata with extents, sizes and addresses written anew
"""
