"""The gate before Keras sees a model file: nothing in it runs unless the user trusts it.

Keras's own safe mode does not do: it lets Keras 2's files unpack bytecode, import modules and call
functions, and any file open others.

The gate goes by what kprune reads. Should Keras ever read a file otherwise, there is a second lock
behind it, for bytecode and imports.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

from kprune.active_content import Active
from kprune.active_content.active import listed
from kprune.errors import CannotPruneError
from kprune.faults import damaged, parsing
from kprune.formats import Source
from kprune.formats.legacy_h5 import CONFIG, TRAINING
from kprune.page.figures import some
from kprune.page.result import Note
from kprune.runtime.keras_import import keras_of
from kprune.text import clean


def untrusted(source: Source, keras: ModuleType) -> list[Active]:
    """What is active in a file, unless the user trusts it or has registered it.

    Args:
        keras: the Keras that is to load it, which looks among what is registered with itself.
    """
    if source.trusted:
        return []
    return [item for item in source.active() if not is_registered(item, keras)]


def is_registered(item: Active, keras: ModuleType) -> bool:
    """Whether a Keras finds an object of that name registered, and uses that."""
    return bool(item.registered) and (
        keras.saving.get_registered_object(item.registered) is not None
    )


def require_inert(source: Source, keras: ModuleType) -> None:
    """Refuse to load a model in which anything is active; what it was compiled with aside.

    Raises: CannotPruneError that names what there is.
    """
    items = [item for item in untrusted(source, keras) if not item.compiled]
    if items:
        raise refusal(source, items)


def require_read_alike(source: Source, path: Path) -> None:
    """Refuse a legacy file in which HDF5, and so Keras, finds another config than was looked at.

    kprune reads such files itself. A damaged one that the two read differently could show a harmless
    config to one and another to the other.

    Args:
        path: what Keras is going to load.
    Raises: DamagedFileError.
    """
    if source.trusted or source.format != "h5":
        return
    from kprune.formats.hdf5.foreign.libhdf5 import h5py

    known = {CONFIG: source.config, TRAINING: source.metadata.get(TRAINING)}
    with parsing(source.name, "its attributes"), h5py.File(path, "r") as file:
        texts = {name: file.attrs.get(name) for name in known}
        found = {name: None if text is None else json.loads(text) for name, text in texts.items()}
    for name, config in known.items():
        if json.dumps(found[name]) != json.dumps(config):  # NaN equals itself there
            raise damaged(
                source.name, "HDF5 reads it otherwise than kprune", where=f"attribute {name}"
            )


def may_compile(source: Source, keras: ModuleType) -> bool:
    """Whether a model may be compiled as its file says: nothing would act that is not trusted."""
    return not any(item.compiled for item in untrusted(source, keras))


def not_compiled(*sources: Source) -> list[Note]:
    """Notes on files whose loss and metrics are left out, since they are not trusted."""
    notes = []
    for source in sources:
        if source.trusted or not any(item.compiled for item in source.active()):
            continue  # and Keras need not be imported to know it
        items = [item for item in untrusted(source, keras_of(source)) if item.compiled]
        if items:
            text = (
                f"{source.name} is not compiled as it says, since it is not trusted (--trust): "
                f"{listed(items)}"
            )
            notes.append(Note("untrusted", "", text))
    return notes


@contextmanager
def locked(source: Source, keras: ModuleType) -> Iterator[None]:
    """Meanwhile a Keras unpacks no bytecode and imports nothing but itself, unless a file is trusted."""
    if source.trusted:
        yield
        return
    library = importlib.import_module(f"{keras.__name__}.src.saving.serialization_lib")
    original = library.importlib
    library.importlib = SimpleNamespace(import_module=_of_keras)  # type: ignore[attr-defined]
    try:
        with library.SafeModeScope(safe_mode=True):
            yield
    finally:
        library.importlib = original  # type: ignore[attr-defined]


def _of_keras(name: str) -> ModuleType:
    """A module of Keras or TensorFlow; an empty one for any other, in which Keras finds nothing."""
    own = name.partition(".")[0] in ("keras", "tf_keras", "keras_hub", "tensorflow")
    return importlib.import_module(name) if own else ModuleType(name)


def refusal(
    source: Source, items: Sequence[Active], by: str = "loading it in Keras"
) -> CannotPruneError:
    """Why a file is not loaded.

    Args:
        items: what is active in it, at least one.
        by: what would have done it.
    """
    do = "pass --trust if you trust this file and what it names"
    names = list(dict.fromkeys(clean(item.registered) for item in items if item.registered))
    if names:
        do += (
            f"; or give --rules a file that registers {some(names, 3)} "
            "(@keras.saving.register_keras_serializable)"
        )
    return CannotPruneError(
        f"cannot run {source.name}: it is not trusted",
        where=listed(items),
        why=f"{by} would do that; nothing in a file is run, imported, called or opened "
        "unless you say so",
        do=do,
    )
