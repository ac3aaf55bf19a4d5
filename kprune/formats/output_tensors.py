"""An edit compared with a file: which objects the output's weights file has, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from kprune.dtypes import BFLOAT16
from kprune.edit import Edit, TensorEdit
from kprune.formats.hdf5.attributes import Stored, encoded
from kprune.formats.hdf5.contents import Table
from kprune.formats.hdf5.datatypes import type_code
from kprune.formats.hdf5.layout import Layout, Space, lay_out
from kprune.formats.hdf5.resized_metadata import moved
from kprune.formats.hdf5.tensors import Hdf5Weights
from kprune.formats.source import Tensor

if TYPE_CHECKING:
    from kprune.checking import Outline


class Outcome(Struct, frozen=True):
    """What the output's weights file is made of.

    Attributes:
        objects: groups (as paths) and tensors in the order in which they are created.
        origins: for each tensor of the output where it comes from: (input tensor or None, edit or
            None).
        kept: whether these are the objects of the input, all of them, under their own paths.
    """

    objects: list[str | Space]
    origins: dict[str, tuple[Tensor | None, TensorEdit | None]]
    kept: bool


def resolve(table: Table, edit: Edit) -> Outcome:
    """Work out what an edit makes of a file.

    What is left stands in the input's order, so that the input is read front to back; what is new
    stands behind it.

    Raises: ValueError or KeyError if the edit does not fit the file, which is a bug in the backend.
    """
    origins: dict[str, tuple[Tensor | None, TensorEdit | None]] = {}
    spaces: dict[str, Space] = {}
    places: list[tuple[int, str | Space]] = [
        (table.places[group], group) for group in table.groups if not _dropped(group, edit)
    ]
    for tensor, change in _pairs(table, edit):
        path = change.path if change else tensor.path if tensor else ""
        if path in origins:
            raise ValueError(f"two tensors would be called {path}")
        origins[path] = tensor, change
        spaces[path] = _space(path, tensor, change, table)
        if tensor:
            places.append((table.places[tensor.path], spaces[path]))
    places.sort(key=lambda pair: pair[0])  # stable: several tensors made of one keep their order
    objects = [item for _, item in places]
    objects += edit.groups
    objects += [spaces[path] for path, (tensor, _) in origins.items() if tensor is None]
    groups = {item for item in objects if isinstance(item, str)}
    kept = (groups, origins.keys()) == ({*table.groups}, table.tensors.keys()) and all(
        tensor is not None and tensor.path == path for path, (tensor, _) in origins.items()
    )
    return Outcome(objects, origins, kept)


def attributes(outcome: Outcome, edit: Edit) -> dict[str, dict[str, Stored]]:
    """What kprune itself writes beside groups and tensors, as `lay_out` takes it."""
    there = {item for item in outcome.objects if isinstance(item, str)}
    there.update(path.rpartition("/")[0] for path in outcome.origins)
    found = {
        group: {"name": encoded("name", _storable(name))}
        for group, name in edit.names().items()
        if group in there
    }
    halves = type_code(BFLOAT16)
    for item in outcome.objects:
        if isinstance(item, Space) and item.kind == halves:
            found.setdefault(item.path, {})["dtype"] = encoded("dtype", "bfloat16")
    return found


def _carried_over(outcome: Outcome, weights: Hdf5Weights) -> dict[str, dict[str, Stored]]:
    """What stands beside groups and tensors in the input, by the paths of the output."""
    origins = {path: tensor.path for path, (tensor, _) in outcome.origins.items() if tensor}
    for path, origin in list(origins.items()):
        while "/" in path and "/" in origin:  # a layer that moved takes its groups with it
            path, origin = path.rpartition("/")[0], origin.rpartition("/")[0]
            origins.setdefault(path, origin)
    for item in outcome.objects:
        if isinstance(item, str):
            origins.setdefault(item, item)
    origins[""] = ""
    held = weights.attributes
    return {path: dict(held[origin]) for path, origin in origins.items() if origin in held}


def layout(weights: Hdf5Weights, outcome: Outcome, edit: Edit) -> Layout:
    """Lay out the output: with the metadata of the input, if it has the same objects."""
    if outcome.kept:
        spaces = [item for item in outcome.objects if isinstance(item, Space)]
        found = moved(weights, spaces)
        if found is not None:
            return found
    beside = _carried_over(outcome, weights)
    for path, own in attributes(outcome, edit).items():
        beside.setdefault(path, {}).update(own)
    return lay_out(outcome.objects, beside)


def require_sound(
    outcome: Outcome,
    edit: Edit,
    before: Callable[[], Outline],
    order: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Compare the config of the output with the shapes of its tensors, before anything is written.

    Args:
        before: gives the same of the input; see `kprune.checking`.
        order: where the format hands tensors to layers by order, those of the input.
    Raises: UnsoundOutputError if they contradict each other.
    """
    from kprune.checking import Outline, require_sound

    shapes = {item.path: item.shape for item in outcome.objects if isinstance(item, Space)}
    left = order and {
        layer: [path for path in paths if path in shapes] for layer, paths in order.items()
    }
    require_sound(Outline(edit.config, shapes, left), before)


def _storable(name: str) -> str:
    """A layer's name as HDF5 can hold it: a config can spell names that no text file can."""
    return name.replace("\0", "?").encode(errors="replace").decode()


def _pairs(table: Table, edit: Edit) -> Iterator[tuple[Tensor | None, TensorEdit | None]]:
    changes: dict[str | None, list[TensorEdit]] = {}
    for change in edit.tensors:
        if change.source is not None and change.source not in table.tensors:
            raise KeyError(f"{change.path} comes from {change.source}, which is not there")
        changes.setdefault(change.source, []).append(change)
    for path, tensor in table.tensors.items():
        if path in changes:
            for change in changes[path]:
                yield tensor, change
        elif not _dropped(path, edit):
            yield tensor, None
    for change in changes.get(None, ()):
        if change.value is None:
            raise ValueError(f"{change.path} has neither a source nor a value")
        yield None, change


def _dropped(path: str, edit: Edit) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in edit.dropped)


def _space(path: str, tensor: Tensor | None, change: TensorEdit | None, table: Table) -> Space:
    if change is not None and change.value is not None:
        return Space(path, change.value.shape, type_code(change.value.dtype))
    assert tensor is not None
    shape = tensor.shape if change is None else change.shape_after(tensor.shape)
    return Space(path, shape, table.types[tensor.path])
