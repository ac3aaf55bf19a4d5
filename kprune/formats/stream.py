"""Values from file to file: read once, checked, cut and written by a few threads, block by block.

The input is read front to back in spans of about a MiB. A span holds a part of one large tensor, or
many small tensors and what stands between them; all that it leaves behind goes out in as few writes
as possible. The checksum of a part that goes out as it came in is computed once, for both files.
Reading, crc32, numpy.take and writing release Python's lock, so two threads keep two cores busy.
Each has its two buffers, and memory does not grow with the file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import numpy as np
from msgspec import Struct, field

from kprune.atomic import start_writeback
from kprune.edit import TensorEdit
from kprune.faults import writing
from kprune.formats import crc, cut
from kprune.formats.hdf5.layout import Layout
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.opening import Window
from kprune.formats.output_tensors import Outcome
from kprune.formats.source import Tensor
from kprune.types import Progress

SPAN = 1 << 20
_SMALL_GAP = 1 << 16  # reading on is cheaper than a second read
_LONGEST_SPAN = SPAN + _SMALL_GAP
_LARGE = 1 << 18  # a piece worth a span of its own, if it stays as it is
_MOST_BUFFERS = 1000  # the kernel takes 1024 in one call
_ALIGNMENT = 8  # numpy is slower on numbers that do not begin at a multiple of their size
_WORTH_STARTING = 1 << 19  # bytes; below, the call costs more than it gains
_MOST_THREADS = 4  # writes to one file wait for each other; more threads would only wait


class Piece(Struct):
    """Bytes of the input that go to one place of the output.

    Attributes:
        start, stop: where they stand in the input's window.
        at: where the result goes in the output's window.
        make: what is done to them; None if they stay as they are.
        lead: known bytes that stand in the output right before the result.
    """

    start: int
    stop: int
    at: int
    make: cut.Make | None = None
    lead: bytes = b""

    @property
    def alone(self) -> bool:
        """Whether no other piece shares its span."""
        return self.make is None and self.stop - self.start >= _LARGE


class Span(Struct):
    """A stretch of the input that is read in one go.

    Attributes:
        start, stop: where it stands in the input's window.
        pieces: what becomes of it; all else is read for the checksum only.
        counts: whether it is a part of the input's checksum; not if it is read a second time.
    """

    start: int
    stop: int
    pieces: list[Piece] = field(default_factory=list)
    counts: bool = True

    @property
    def lone(self) -> Piece | None:
        """The one piece that ends the span and goes out as it is, if it holds such a piece."""
        return self.pieces[0] if self.pieces and self.pieces[0].alone else None


class Target:
    """A part of a file that is being written, and the checksums of what was put there.

    Args:
        fd: of the file.
        start: where the part begins in it.
        name: how messages call the file.
    """

    def __init__(self, fd: int, start: int, name: str) -> None:
        self.fd, self.start, self.name = fd, start, name
        self._parts: list[tuple[int, int, int]] = []

    def put(self, at: int, buffers: list[Any], last: int | None = None) -> None:
        """Write buffers (of bytes) one behind the other. Threads may call this at the same time.

        Args:
            at: where the first goes.
            last: the CRC-32 of the last buffer, if it is known.
        """
        size = sum(len(buffer) for buffer in buffers)
        known = 0 if last is None else len(buffers[-1])
        checksum = 0
        for buffer in buffers if last is None else buffers[:-1]:
            checksum = crc.crc32(buffer, checksum)
        with writing(self.name):
            self._write(self.start + at, buffers, size)
        if size >= _WORTH_STARTING:
            start_writeback(self.fd, self.start + at, size)
        if size > known:
            self._parts.append((at, size - known, checksum))
        if last is not None:
            self._parts.append((at + size - known, known, last))

    def _write(self, offset: int, buffers: list[Any], size: int) -> None:
        done = os.pwritev(self.fd, buffers, offset)
        if done == size:
            return
        rest = memoryview(b"".join(buffers))  # a disk about to be full takes a part
        while done < size:
            done += os.pwrite(self.fd, rest[done:], offset + done)

    def checksum(self, size: int) -> int:
        """The CRC-32 of all that was put; `size` bytes without a hole."""
        return crc.joined(self._parts, size)


def copy_weights(
    weights: Hdf5Weights,
    outcome: Outcome,
    layout: Layout,
    target: Target,
    *,
    verify: bool,
    progress: Progress | None,
) -> int | None:
    """Write a whole HDF5 file of weights: the metadata of `layout`, and the values in between.

    Args:
        verify: whether to read the input to its last byte and return its checksum.
    Returns: the input's CRC-32, or None.
    """
    window = weights.readable()
    if weights.copied and verify:
        seen = checksum(weights.original)
        copy_weights(weights, outcome, layout, target, verify=False, progress=progress)
        return seen
    leads = {start + len(data): data for start, data in layout.gaps}
    streamed = {}
    for path in layout.offsets:
        tensor, edit = outcome.origins[path]
        if tensor and tensor.offset is not None and not (edit and edit.value is not None):
            streamed[path] = tensor, edit
    pieces = [
        piece
        for path, (tensor, edit) in streamed.items()
        for piece in _pieces(
            tensor,
            edit,
            (tensor.offset or 0) - window.start,
            layout.offsets[path],
            leads.pop(layout.offsets[path], b""),
        )
    ]
    copy = _Copy(window, target, verify, progress)
    copy.run(pieces)
    for path, at in layout.offsets.items():
        if path not in streamed:
            _, edit = outcome.origins[path]
            assert edit is not None and edit.value is not None
            _put_new(edit.value, target, at)
    for stop, data in leads.items():
        target.put(stop - len(data), [data])
    return copy.checksum() if verify else None


def checksum(window: Window) -> int:
    """The CRC-32 of a part of a file."""
    copy = _Copy(window, None, True, None)
    copy.run([])
    return copy.checksum()


def _pieces(
    tensor: Tensor, edit: TensorEdit | None, start: int, at: int, lead: bytes
) -> Iterator[Piece]:
    if edit is None or edit.copies:
        parts = -(-tensor.nbytes // SPAN)
        for part in range(parts):
            done, stop = (tensor.nbytes * number // parts for number in (part, part + 1))
            yield Piece(start + done, start + stop, at + done, None, b"" if done else lead)
        return
    for block in cut.blocks(edit, tensor.shape, tensor.dtype, SPAN):
        begin = start + block.start
        before = b"" if block.at else lead
        yield Piece(begin, begin + block.nbytes, at + block.at, block.make, before)


def _put_new(value: np.ndarray, target: Target, at: int) -> None:
    """Write a tensor that is new."""
    data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    for done in range(0, len(data), SPAN):
        target.put(at + done, [data[done : done + SPAN]])


def _fresh(size: int) -> np.ndarray:
    return np.empty(size, np.uint8)


def spans(pieces: list[Piece], size: int, whole: bool, limit: int) -> Iterator[Span]:
    """Cut the input into spans, front to back.

    Args:
        pieces: in any order; one longer than `limit` gets a span of its own.
        size: of the input's window.
        whole: whether every byte must be read, for the checksum, or only what is needed.
        limit: the longest span otherwise.
    """
    span = Span(0, 0)
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if piece.start < span.stop:  # a second tensor made of the same bytes
            yield Span(piece.start, piece.stop, [piece], counts=False)
            continue
        near = whole or piece.start - span.stop <= _SMALL_GAP
        shared = not (span.lone or (span.pieces and piece.alone))
        if not near or not shared or piece.stop - span.start > limit:
            yield span
            start = span.stop if whole else piece.start
            if piece.stop - start > limit:
                yield from _blank(start, piece.start, limit)
                start = piece.start
            span = Span(start, start)
        span.pieces.append(piece)
        span.stop = piece.stop
    yield span
    if whole:
        yield from _blank(span.stop, size, limit)


def _blank(start: int, stop: int, limit: int) -> Iterator[Span]:
    for first in range(start, stop, limit):
        yield Span(first, min(first + limit, stop))


class _Copy:
    """One pass over the input by a few threads, of which the calling one is the first."""

    def __init__(
        self, window: Window, target: Target | None, verify: bool, progress: Progress | None
    ) -> None:
        self.window, self.target, self.verify, self.progress = window, target, verify, progress
        self._seen: list[tuple[int, int, int]] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._errors: list[BaseException] = []

    def run(self, pieces: list[Piece]) -> None:
        work = list(spans(pieces, self.window.size, self.verify, _LONGEST_SPAN))
        self._total = sum(span.stop - span.start for span in work)
        self._done = 0
        self._spans = iter(work)
        count = min(_MOST_THREADS, _cores(), len(work))
        helpers = [
            threading.Thread(target=copy_context().run, args=(self._help,), daemon=True)
            for _ in range(count - 1)  # with the limits that hold here
        ]
        try:
            for helper in helpers:
                helper.start()
            self._work(self.progress)
        except BaseException as error:
            self._errors.insert(0, error)
            self._stopped = True
        # No thread may be left when files are closed: it would write to whatever is opened next.
        for helper in helpers:
            self._wait_for(helper)
        if self._errors:
            raise self._errors[0]
        if self.progress:
            self.progress(self._total, self._total)

    def _wait_for(self, helper: threading.Thread) -> None:
        while helper.is_alive():
            try:
                helper.join()
            except BaseException as error:  # an impatient user's second Ctrl-C
                self._errors.append(error)
                self._stopped = True

    def checksum(self) -> int:
        """The CRC-32 of the whole input."""
        return crc.joined(self._seen, self.window.size)

    def _help(self) -> None:
        try:
            self._work(None)
        except BaseException as error:  # raised again in the calling thread
            self._errors.append(error)
            self._stopped = True

    def _work(self, progress: Progress | None) -> None:
        buffers = _Buffers()
        while not self._stopped:
            with self._lock:
                span = next(self._spans, None)
                if span is None:
                    return
                self._done += span.stop - span.start
            self._carry(span, buffers)
            if progress:
                progress(self._done, self._total)

    def _carry(self, span: Span, buffers: _Buffers) -> None:
        view = buffers.input(span.stop - span.start, span.start)
        self.window.file.read_into(view, self.window.start + span.start)
        if span.lone:
            self._carry_whole(span, span.lone, view)
            return
        self._see(span, span.start, view)
        out: list[Any] = []
        begin = end = 0
        for piece in span.pieces:
            data: Any = view[piece.start - span.start : piece.stop - span.start]
            if piece.make:
                data = piece.make(data, buffers.scratch)
            at = piece.at - len(piece.lead)
            if at != end or len(out) >= _MOST_BUFFERS:
                self._put(begin, out)
                out, begin = [], at
            out += [piece.lead, data] if piece.lead else [data]
            end = piece.at + len(data)
        self._put(begin, out)

    def _carry_whole(self, span: Span, piece: Piece, view: memoryview) -> None:
        """A span that ends in one large piece, which goes out as it came in."""
        before = piece.start - span.start
        self._see(span, span.start, view[:before])
        checksum = self._see(span, piece.start, view[before:])
        if self.target:
            buffers = [piece.lead, view[before:]] if piece.lead else [view[before:]]
            self.target.put(piece.at - len(piece.lead), buffers, checksum)

    def _see(self, span: Span, start: int, view: memoryview) -> int | None:
        """Remember the checksum of a part of the input, if the whole has to be known."""
        if not (self.verify and span.counts and view):
            return None
        checksum = crc.crc32(view)
        self._seen.append((start, len(view), checksum))
        return checksum

    def _put(self, at: int, buffers: list[Any]) -> None:
        if buffers and self.target:
            self.target.put(at, buffers)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # what a container or taskset leaves of the machine
    return os.cpu_count() or 1


class _Buffers:
    """One thread's memory: a span as it is read, and what is made of it."""

    def __init__(self) -> None:
        self._in = memoryview(bytearray(_LONGEST_SPAN + _ALIGNMENT))
        self._out = np.empty(SPAN + _ALIGNMENT * _MOST_BUFFERS, np.uint8)
        self._used = 0

    def input(self, size: int, offset: int) -> memoryview:
        """Room for a span that begins at `offset`; HDF5 aligns values there, and so they stay."""
        self._used = 0
        if size + _ALIGNMENT > len(self._in):
            self._in = memoryview(bytearray(size + _ALIGNMENT))  # a grouped kernel
        skip = offset % _ALIGNMENT
        return self._in[skip : skip + size]

    def scratch(self, size: int) -> np.ndarray:
        start = self._used
        if start + size > len(self._out):
            return _fresh(size)
        self._used = -(-(start + size) // _ALIGNMENT) * _ALIGNMENT
        return self._out[start : start + size]
