"""Opening model files: every command starts from a file's source and its analysis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from kprune import formats
from kprune.analysis.analysis import Analysis
from kprune.atomic import TemporaryFolder
from kprune.errors import DamagedFileError, LimitError
from kprune.formats import Source
from kprune.graph.dialects import is_keras_2
from kprune.graph.parse import holds_graph
from kprune.limits import for_file
from kprune.surgery.provenance import check_provenance, check_units
from kprune.types import AnyPath


@runtime_checkable
class LiveModel(Protocol):
    """A Keras model in memory. Anything that Keras could save is one."""

    def save(self, filepath: Any) -> Any: ...

    def get_config(self) -> Any: ...


class Opened(Struct, frozen=True, eq=False):
    """A model that is open.

    Attributes:
        source: reads and writes it; of a live model, the temporary file that it was saved to.
        analysis: everything kprune knows of it.
        rules: files with rules that it was analysed with.
        live: whether it is a model in memory.
    """

    source: Source
    analysis: Analysis
    rules: tuple[str, ...] = ()
    live: bool = False

    @property
    def path(self) -> str | None:
        """As the user named it; None for standard input and for a live model, which have no name."""
        return None if self.live or self.source.path is None else str(self.source.path)


@contextmanager
def opened(
    model: AnyPath | LiveModel,
    *,
    rules: Iterable[str] = (),
    trust: bool = False,
    drop_optimizer: bool = False,
) -> Iterator[Opened]:
    """Open a model of any format, or one in memory, and analyse it.

    Args:
        model: path of the file or folder; `-` for standard input; or a Keras model, which is saved
            to a file that is gone once this ends.
        rules: files with rules for layers that kprune does not know.
        trust: whether code that is not Keras's own may be run to read the model.
        drop_optimizer: whether what is written of it leaves the state of the optimizer behind.
    Raises: FileError if it cannot be read, UsageError for what is neither path nor model.
    """
    rules = tuple(rules)
    with (
        _saved(model) if isinstance(model, LiveModel) else nullcontext(model) as path,
        open_model(path, trust=trust) as source,
    ):
        if drop_optimizer:
            source.drop_optimizer()
        found = Opened(source, analyse(source, rules), rules, isinstance(model, LiveModel))
        try:
            yield found
        except (DamagedFileError, LimitError) as error:
            error.name_file(source.name)
            raise


@contextmanager
def _saved(model: LiveModel) -> Iterator[Path]:
    """A temporary file of a live model, whose Lambda layers see there what they see in memory."""
    from kprune.runtime.lambda_code import names_of

    with TemporaryFolder() as folder, names_of(model):
        path = Path(folder) / "model.keras"
        model.save(path)
        yield path


def open_model(path: AnyPath, *, trust: bool = False) -> Source:
    """Open a model file; one whose graph is only in code is unfolded, if that code may be run.

    Args and errors: as `kprune.formats.open_model`.
    """
    source = formats.open_model(path, trust=trust)
    if trust and source.format in ("keras", "keras-folder") and not holds_graph(source.config):
        from kprune.custom_code.flatten import opened_flat

        source = opened_flat(source)
        source.trusted = True
    return source


def analyse(source: Source, rules: Iterable[str] = ()) -> Analysis:
    """The analysis of an opened file, with rules from further files.

    Raises: DamagedFileError if its parts contradict each other, LimitError if it asks for too much.
    """
    try:
        with for_file(source.bytes):
            found = _analysed(source, rules)
            check_units(found, source.name)
            return found
    except (DamagedFileError, LimitError) as error:
        error.name_file(source.name)
        raise


def _analysed(source: Source, rules: Iterable[str]) -> Analysis:
    from kprune.analysis.user_rules import load_rules

    rules = list(rules)
    own = getattr(source, "analyse", None)  # a SavedModel's graphs are not Keras's
    if source.trusted and rules and own is None:
        # A file with classes imports Keras, which has less to say where kprune imported it.
        from kprune.runtime.keras_import import import_keras

        import_keras()
    known = load_rules(rules)  # with them come criteria, for every format
    # Not before: of a SavedModel of Keras 2 they may register the classes.
    check_provenance(source.metadata, source.name)
    known = replace(known, traceable=not is_keras_2(source.metadata))
    if own is not None:
        found: Analysis = own(rules)
        return found
    if source.trusted:
        from kprune.custom_code.code_tracer import KerasCodeTracer

        known = replace(known, code_tracer=KerasCodeTracer(source.metadata))
    found = Analysis.of(
        source.config, source.metadata, source.tensors, known, source.order, source.extras
    )
    if found.map.traced_calls and known.code_tracer is not None:
        from kprune.custom_code.rebuild_check import settle

        found.rebuild_check = settle(found, known.code_tracer)
    return found
