"""What is on disk: model files opened, and written anew with an `Edit` carried out.

    known          which formats there are; open_model, write_model, default_output
    lookalikes     what is taken for a model and is none, and what to do about it
    source         Source and Tensor: an opened model, its tensors not read yet
    keras_zip      the .keras zip; zip_checks: what an archive must be; zip_records: how one is made
    keras_folder   the same, unzipped; new_keras: one made of another file's tensors
    legacy_h5      the .h5 of whole models; h5_attributes: what another process reads of it
    hdf5           which tensors an HDF5 file has, and where; hdf5_layout: a new one, drawn up;
                   hdf5_moved: one with the same objects in other sizes
    outcome        an Edit held against a file: the objects of the output
    cut            one tensor cut block by block; crc: checksums of parts
    stream         bytes from file to file by a few threads, checked and cut on the way
    atomic         files and folders that come into being whole or not at all
    opening        files and pipes opened for reading; faults: what goes wrong, in sentences

Nothing here imports TensorFlow or knows what a layer is. A file is only ever data: nothing in it is
executed, no link in it is followed, and no size in it is believed before it was held against the
bytes that are there.
"""

from kprune.dtypes import as_float, from_float
from kprune.formats.known import default_output, open_model, write_model
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
