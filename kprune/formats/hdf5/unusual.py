"""What is not understood is left to libhdf5, in a process of its own."""

from __future__ import annotations


class Unusual(Exception):
    """Something that h5py does not write by default, or damage: libhdf5 will tell."""
