"""Files and folders that come into being whole, or not at all.

    places.py           where an output may go: checked before long work begins
    files.py            a file being written
    folders.py          a folder being written
    standard_output.py  standard output, which gets a file once it is whole
    hidden.py           hidden names, the locks of their writers, and what killed writers left
    temporary.py        folders for work, in the system's temporary one or beside the target
    system_calls.py     calls that Python does not offer, or that not every system knows

What is written goes into the target's folder without a name (or, where the system cannot do that,
under a hidden one), is synced to the disk, and only then takes the target's name, in one step.
Until then an old file of that name stands untouched: whatever happens, a power cut included, leaves
either the old one or the new one. What a killed process leaves under a hidden name is put right by the
next one that writes the same target.
"""

from kprune.atomic.files import NewFile, new_file, put, write_bytes
from kprune.atomic.folders import NewFolder, copy_file, new_folder, put_file
from kprune.atomic.hidden import HIDDEN, put_back
from kprune.atomic.places import (
    STANDARD_OUTPUT,
    check_apart,
    check_file,
    check_output,
    names_standard_output,
)
from kprune.atomic.system_calls import start_writeback
from kprune.atomic.temporary import TemporaryFolder, work_folder

__all__ = [
    "HIDDEN",
    "STANDARD_OUTPUT",
    "NewFile",
    "NewFolder",
    "TemporaryFolder",
    "check_apart",
    "check_file",
    "check_output",
    "copy_file",
    "names_standard_output",
    "new_file",
    "new_folder",
    "put",
    "put_back",
    "put_file",
    "start_writeback",
    "work_folder",
    "write_bytes",
]
