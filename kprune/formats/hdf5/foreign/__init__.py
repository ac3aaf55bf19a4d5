"""HDF5 files that are not as Keras writes them, made plain by libhdf5 in a child process with limits.

plain_copy.py   the copy, as the parent sees it
conversion.py   the child
dataset.py      a dataset as libhdf5 reads it
chunks.py       chunks, unpacked
links.py        the names that libhdf5 finds in a file
libhdf5.py      h5py, imported safely
"""
