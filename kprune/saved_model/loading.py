"""SavedModels loaded by TensorFlow, to be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kprune.active_content.active import listed
from kprune.formats import Source
from kprune.page.result import Note
from kprune.runtime.inert import refusal
from kprune.runtime.tensorflow_runtime import tensorflow
from kprune.saved_model.files.contents import Contents, reading


def load_graphs(source: Source, folder: Path | None = None) -> Any:
    """What `tf.saved_model.load` gives: its initializers have then run.

    Args:
        source: an opened SavedModel.
        folder: another one with the same graphs, to be loaded in its place.
    Raises: CannotPruneError if its graphs do anything but compute, and it is not trusted;
        DamagedFileError if TensorFlow refuses it.
    """
    if not source.trusted and (items := _contents(source).active):
        raise refusal(source, items, "running it in TensorFlow")
    path = folder or _contents(source).folder
    with reading(source.path, "its functions"):
        return tensorflow().saved_model.load(str(path))


def trusted_graphs(*sources: Source) -> list[Note]:
    """Notes on what trusted files did besides computing."""
    notes = []
    for source in sources:
        items = _contents(source).active if source.trusted else ()
        if items:
            text = f"{source.name} is trusted, and did what its graphs say: {listed(items)}"
            notes.append(Note("trusted", "", text))
    return notes


def _contents(source: Source) -> Contents:
    found: Contents = source.contents  # type: ignore[attr-defined]  # every SavedModel has them
    return found
