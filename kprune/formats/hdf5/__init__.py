"""HDF5 as Keras writes it: read without libhdf5 where that is safe, and laid out anew.

tensors.py           the tensors of a file, by path
contents.py          datasets, groups, attributes and their places
direct_reader.py     files as Keras writes them, by kprune's own reader
datatypes.py         number types as HDF5 encodes them
attributes.py        attributes: as they are stored, and what they say
global_heap.py       values of variable length
plain_copy.py        copies of all other files in plain form, made in a child process with limits
conversion.py        the child
foreign_dataset.py   a dataset as libhdf5 reads it
chunks.py            chunks, unpacked
links.py             the names that libhdf5 finds in a file
libhdf5.py           h5py, imported safely
layout.py            where metadata and datasets of a new file stand
new_metadata.py      the metadata of a new file
resized_metadata.py  the input's metadata with extents, sizes and addresses written anew
"""
