"""Plain copies of HDF5 files that are not plain, made by libhdf5 in a child process with limits.

libhdf5 never sees a file in this process: damage can make it loop, crash, or take all memory. The
child (`conversion.py`) writes a copy in the form that Keras's own files have, into a temporary file
without a name. That copy is then read here like any other file from outside: nothing is believed of
it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import IO

from kprune import errors
from kprune.errors import FileError, KpruneError, LimitError
from kprune.faults import damaged, temporary
from kprune.formats.hdf5.contents import Found, Table
from kprune.formats.hdf5.direct_reader import read_plain
from kprune.formats.opening import OpenFile, Window
from kprune.limits import HDF5_MEMORY, HDF5_SECONDS, given
from kprune.packages import imported
from kprune.text import clean

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from kprune.formats.hdf5.foreign.conversion import main; main()"
)  # fmt: skip
_CRASHES = (
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP,
    signal.SIGSYS,
)  # fmt: skip
OUTLINE, VALUES = "outline", "values"
"""What a child does."""

FAILED, OUT_OF_MEMORY = 3, 4
"""How it ends: an error is told on standard error; memory ran out."""

PER_SECOND = 20_000_000
"""Bytes of values that even a slow machine unpacks in a second."""

_PATIENCE = 20  # how much longer than its CPU time a process may take on a busy machine
_LONGEST_TEXT = 4096


class PlainCopy:
    """A plain copy of an HDF5 file.

    Its values are filled in once somebody asks for them.

    Args:
        original: the HDF5 file.
        where: what messages call it.
    Attributes:
        window: the copy.
        found: what is in it.
    Raises: DamagedFileError; FileError for what kprune does not follow or read; LimitError if it
        takes too much memory or time; SetupError without h5py.
    """

    def __init__(self, original: Window, where: str) -> None:
        self.original, self.where = original, where
        with temporary(f"a temporary copy of {original.file}"), tempfile.TemporaryFile() as copy:
            self._fd = os.dup(copy.fileno())
        self._filled = False
        try:
            _Child(self, OUTLINE, HDF5_SECONDS.value).run()
            self.window = self._window()
            self.found = self._found()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the copy. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fill(self, table: Table) -> None:
        """Have the values written, unless they are there."""
        if not self._filled:
            size = sum(tensor.nbytes for tensor in table.tensors.values())
            _Child(self, VALUES, HDF5_SECONDS.value + size // PER_SECOND + 1).run()
            self._filled = True

    def _window(self) -> Window:
        return OpenFile(self._fd, None, f"a temporary copy of {self.original.file}").window()

    def _found(self) -> Found:
        found = read_plain(self.window, self.where, odd=True)
        if found is None:
            raise damaged(self.original.file, "HDF5 finds no sense in it", where=self.where)
        return found


class _Child:
    """One run of the child.

    Args:
        seconds: of CPU time that it may take.
    """

    def __init__(self, copy: PlainCopy, task: str, seconds: int) -> None:
        self.copy, self.task, self.seconds = copy, task, seconds
        self.file = copy.original.file

    def run(self) -> None:
        order = {
            "task": self.task,
            "name": str(self.file),
            "where": self.copy.where,
            "start": self.copy.original.start,
            "size": self.copy.original.size,
            "seconds": HDF5_SECONDS.value,
            "most_seconds": self.seconds,
            "limits": given(),
        }
        program = _PROGRAM.format(path=[str(place) for place in sys.path])
        with temporary("a temporary file"):
            answer = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        with answer:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program, json.dumps(order)],
                stdin=self.file.fd,
                stdout=self.copy._fd,
                stderr=answer,
                # numpy starts a thread per core, each with memory of its own, unless told otherwise.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            try:
                code = child.wait(self.seconds * _PATIENCE)
            except subprocess.TimeoutExpired:
                raise self._too_slow() from None
            finally:
                if child.poll() is None:  # also after Ctrl-C
                    child.kill()
                    child.wait()
            if code:
                raise self._error(code, answer)

    def _error(self, code: int, answer: IO[bytes]) -> KpruneError:
        if code == FAILED:
            return self._told(answer)
        if code == OUT_OF_MEMORY:
            return LimitError(
                f"{self.file} asks for too much",
                where=self.copy.where,
                why=f"HDF5 takes more than {HDF5_MEMORY.value:,} bytes of memory to read it; "
                f"limit {HDF5_MEMORY.name}",
                do=HDF5_MEMORY.do,
            )
        if code == -getattr(signal, "SIGXCPU", 0):
            return self._too_slow()
        if -code in _CRASHES:
            return damaged(self.file, "HDF5 crashed while reading it", where=self.copy.where)
        if code > 0:  # without h5py nothing was read, and nothing is known of the file
            imported(
                "kprune.formats.hdf5.foreign.libhdf5",
                what="h5py, which reads this kind of HDF5 file,",
            )
        return FileError(
            f"cannot read {self.file}",
            where=self.copy.where,
            why=f"the process that reads it ended early ({_ending(code)})",
            do="run the command again; another program, or a lack of memory, may have ended it",
        )

    def _too_slow(self) -> LimitError:
        return LimitError(
            f"{self.file} takes too long to read",
            where=self.copy.where,
            why=f"HDF5 did not finish in {self.seconds} seconds of CPU time; "
            f"limit {HDF5_SECONDS.name}, {HDF5_SECONDS.value}",
            do=HDF5_SECONDS.do,
        )

    def _told(self, answer: IO[bytes]) -> KpruneError:
        """The error that the child told. It is text from outside like any other."""
        answer.seek(0)
        try:
            kind, *texts = json.loads(answer.read(_LONGEST_TEXT))
            what, where, why, do = (clean(text, 400) for text in texts)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return damaged(self.file, "HDF5 cannot read it", where=self.copy.where)
        found = getattr(errors, kind, FileError) if isinstance(kind, str) else FileError
        if not (isinstance(found, type) and issubclass(found, FileError)):
            found = FileError
        return found(what, where=where, why=why, do=do)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
