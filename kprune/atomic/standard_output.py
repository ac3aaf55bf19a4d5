"""Standard output, which gets a model file once it is whole."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable

from kprune.atomic.places import check_standard_output
from kprune.atomic.system_calls import write_all
from kprune.faults import Temporary, file_error, temporary

NAME = "standard output"
_CHUNK = 1 << 20


class Streamed:
    """An unnamed temporary file that is copied to standard output once it is whole; a `NewFile`.

    If the reader of a pipe has left, `commit` raises BrokenPipeError, as Python does of any pipe.
    """

    name: str = Temporary("a temporary copy of the output")

    def __init__(self) -> None:
        check_standard_output()
        with temporary(self.name):
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - discard closes it
        self.fd = self._file.fileno()

    def commit(self, check: Callable[[], None]) -> None:
        check()
        try:
            sys.stdout.flush()
            for offset in range(0, os.fstat(self.fd).st_size, _CHUNK):
                _to_standard_output(os.pread(self.fd, _CHUNK, offset))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise file_error(error, "write", NAME) from error

    def discard(self) -> None:
        self._file.close()


def _to_standard_output(data: bytes) -> None:
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):  # replaced by something in memory
        sys.stdout.buffer.write(data)
        return
    # Past Python's buffer: what a broken pipe leaves in there would be tried again at exit.
    write_all(fd, data)
