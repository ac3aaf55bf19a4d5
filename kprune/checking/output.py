"""The check of an output before it is put in place. Every output passes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from kprune.checking.layer_weights import Expected
from kprune.checking.outline import Outline
from kprune.checking.walk import Complaint, Walk
from kprune.errors import CannotPruneError, DamagedFileError, UnsoundOutputError
from kprune.graph.model import Layer, Model, Shape
from kprune.graph.parse import parse_model
from kprune.graph.weight_groups import is_old, settle_stores
from kprune.text import clean
from kprune.version import __version__

MANY = 5  # complaints that a message quotes
STATES = ("optimizer/", "optimizer_weights/")


def require_sound(after: Outline, before: Callable[[], Outline] | None = None) -> None:
    """Check a file for consistency before it is written.

    Args:
        after: of that file.
        before: gives those of the file that it was made from. What was wrong there in the same place, or is
            of a form that is not known here, is not the fault of the change; called only when needed.
    Raises: UnsoundOutputError if config and weights contradict each other; DamagedFileError if a
        layer meets what contradicted another one before.
    """
    found = complaints(after)
    known = complaints(before()) if found and before is not None else []
    keys = {complaint.key for complaint in known}
    found = [complaint for complaint in found if complaint.key not in keys]
    carried = {complaint.about: complaint for complaint in known}
    own = [complaint for complaint in found if complaint.about not in carried]
    if own:
        raise _unsound(own)
    if found:
        raise _damaged(carried[found[0].about])


def _damaged(known: Complaint) -> DamagedFileError:
    """The refusal where a change would have another layer meet what was wrong before it."""
    return DamagedFileError(
        "the model contradicts itself",
        where=clean(known.layer),
        why=known.text,
        do="load and save it in Keras, if Keras still can",
    )


def _unsound(found: Sequence[Complaint]) -> UnsoundOutputError:
    more = f"; and {len(found) - MANY} more" if len(found) > MANY else ""
    return UnsoundOutputError(
        "the result contradicts itself, which is a bug in kprune",
        where=", ".join(dict.fromkeys(clean(one.layer) for one in found[:MANY] if one.layer)),
        why="; ".join(one.text for one in found[:MANY]) + more,
        do=f"nothing was written; please report this message (kprune {__version__}) with the command that gave it",
    )


def complaints(outline: Outline) -> list[Complaint]:
    """Where a model file contradicts itself. What is not known of a layer is passed over."""
    try:
        model = parse_model(outline.config)
        if outline.order is None and is_old(outline.shapes):
            settle_stores(model, outline.shapes)
        walk = Walk(model)
    except CannotPruneError:  # its config holds no graph
        return []
    except DamagedFileError as error:
        return [Complaint("", "config", f"{error.what}: {error.why}")]
    if outline.order is not None:
        found = _by_order(model, walk, outline.shapes, outline.order)
    else:
        found = _by_path(model, walk, outline.shapes)
    return [*walk.complaints, *found, *_states(outline.shapes)]


def _states(shapes: Mapping[str, Shape]) -> Iterator[Complaint]:
    """What an optimizer keeps of a weight has the weight's shape; Adafactor's sums lack one of the last two axes."""
    known: set[Shape] = set()
    for path, shape in shapes.items():
        if not path.startswith(STATES):
            known.update((tuple(shape), tuple(shape[:-1]), (*shape[:-2], *shape[-1:])))
    for path, shape in shapes.items():
        if shape and path.startswith(STATES) and tuple(shape) not in known:
            text = f"the optimizer's state {clean(path)} has shape {tuple(shape)}, as no weight has"
            yield Complaint("", path, text)


# -- files in which paths say whose a tensor is -----------------------------------------------------


def _by_path(model: Model, walk: Walk, shapes: Mapping[str, Shape]) -> Iterator[Complaint]:
    counts: dict[str, int] = {}
    for path in shapes:
        group = path.rpartition("/")[0]
        counts[group] = counts.get(group, 0) + 1
    for outer in model.layers.values():
        for layer, weights in walk.weights(outer):
            if weights is not None and layer.store and layer.model is None:
                yield from _in_groups(layer, weights, shapes, counts)


def _in_groups(
    layer: Layer,
    weights: Sequence[Expected],
    shapes: Mapping[str, Shape],
    counts: Mapping[str, int],
) -> Iterator[Complaint]:
    groups: dict[str, list[Expected]] = {}
    for weight in weights:
        groups.setdefault(_group(layer, weight.at, counts), []).append(weight)
    for group, own in groups.items():
        stored = counts.get(group, 0)
        if stored != len(own):
            text = f"'{clean(layer.path)}' has {stored} tensors, but its config requires {len(own)}"
            yield Complaint(layer.path, group, text)
            continue
        for number, weight in enumerate(own):
            shape = shapes.get(f"{group}/{number}")
            if shape is not None and not weight.fits(shape):
                yield _differs(layer, weight, shape)


def _group(layer: Layer, at: str, counts: Mapping[str, int]) -> str:
    """Where an object of a layer keeps its variables; some attributes are private (`_query_dense`)."""
    if not at:
        return f"{layer.store}/vars"
    private = f"{layer.store}/_{at}/vars"
    return private if private in counts else f"{layer.store}/{at}/vars"


def _differs(layer: Layer, weight: Expected, shape: Shape) -> Complaint:
    name = f"{weight.at}/{weight.name}" if weight.at else weight.name
    text = f"the {name} of '{clean(layer.path)}' has shape {tuple(shape)}, but the config requires {weight.shape}"
    if weight.multiple > 1:
        text += f", the first size a multiple of {weight.multiple}"
    return Complaint(layer.path, name, text)


# -- files in which their order does ----------------------------------------------------------------


def _by_order(
    model: Model, walk: Walk, shapes: Mapping[str, Shape], order: Mapping[str, Sequence[str]]
) -> Iterator[Complaint]:
    for outer in model.layers.values():
        inside = list(walk.weights(outer))
        if any(own is None or layer.config.get("lora_rank") for layer, own in inside):
            continue  # it cannot be told which tensor is which (adapters are stored here, and merged in a .keras)
        found = [(layer, one) for layer, own in inside for one in own or () if not one.again]
        # Keras lists what is trained first (keras/src/legacy/saving/legacy_h5_format.py).
        found.sort(key=lambda pair: not (pair[1].trainable and pair[0].trainable))
        paths = order.get(outer.name, ())
        if len(found) != len(paths):
            text = f"'{clean(outer.path)}' has {len(paths)} tensors, but its config requires {len(found)}"
            yield Complaint(outer.path, "tensors", text)
            continue
        for (layer, weight), path in zip(found, paths, strict=True):
            if not weight.fits(shapes[path]):
                yield _differs(layer, weight, shapes[path])
