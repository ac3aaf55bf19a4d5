"""Model files: opened, and written with an `Edit` applied.

    registry.py        which formats there are; open_model, write_model, default_output
    lookalikes.py      files that are taken for models but are not, and what to do
    source.py          Source and Tensor: an opened model, its tensors not read yet
    zip/               the `.keras` file
    keras_folder.py    the same, unzipped
    folder_tree.py     what stands in a model's folder: no links that leave it, no pipes
    new_keras.py       one made of another file's tensors
    legacy_h5.py       the `.h5` of whole models
    hdf5/              HDF5 as Keras writes it
    vocabularies.py    vocabularies beside the weights, without some of their lines
    output_tensors.py  an Edit compared with a file: the objects of the output
    cut.py             one tensor, cut block by block
    crc.py             checksums of parts
    stream.py          bytes from file to file by a few threads, checked and cut on the way
    opening.py         files and pipes opened for reading
    bounded_json.py    JSON texts, measured before they are parsed

Nothing here imports TensorFlow or knows what a layer is. A file is only data: nothing in it is
executed, no link that leaves it is followed, and every size in it is checked against the bytes in the file.
"""

from kprune.dtypes import as_float, from_float
from kprune.formats.registry import default_output, open_model, write_model
from kprune.formats.source import Source, Tensor

__all__ = [
    "Source",
    "Tensor",
    "as_float",
    "default_output",
    "from_float",
    "open_model",
    "write_model",
]
