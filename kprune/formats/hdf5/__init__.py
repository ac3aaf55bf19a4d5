"""HDF5 as Keras writes it: read without libhdf5 where that is safe, and laid out anew.

direct_reader.py     groups and datasets as Keras writes them, by kprune's own reader
tensors.py           the tensors of a file, by path
contents.py          datasets and their places
libhdf5_reader.py    what libhdf5 finds in a file
attributes.py        attributes, read in a child process with limits
layout.py            where metadata and datasets of a new file stand
resized_metadata.py  the input's metadata with extents, sizes and addresses written anew
libhdf5.py           h5py, imported safely
"""
