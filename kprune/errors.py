"""All errors that kprune reports to a user.

    KpruneError                    carries what, where, why, do; knows its exit code; never raised itself
    ├── InternalError       1      a bug in kprune, which is to be reported
    │   └── UnsoundOutputError     what was about to be written contradicts itself
    ├── UsageError          2      the command is wrong: options, unknown layer, output exists
    │   ├── SpecError       2      a malformed LAYER[.AXIS]:INDICES, with a caret under the place
    │   ├── UnknownLayerError 2    no layer of that name, with the nearest names
    │   ├── IndexRangeError 2      a unit that the layer does not have
    │   ├── ExpressionError 2      a --where expression that cannot be evaluated
    │   │   └── MissingStatisticError  it needs a statistic that these units do not have
    │   └── PlanError       2      a YAML plan that breaks the schema, with its line
    ├── CannotPruneError    3      understood, but it cannot be done
    │   ├── FrozenUnitsError 3     inputs, outputs, or a layer without a rule stand in the way
    │   ├── NotARectangleError 3   what is left of a tensor would not be a block
    │   └── LastUnitError   3      a layer would be left with no unit
    ├── FileError           4      a file cannot be read or written
    │   ├── DamagedFileError 4     the file exists, but its content is not what it should be
    │   └── LimitError      4      it asks for more than a limit allows, which can be raised
    ├── SetupError          4      what kprune runs on: a package or backend that is missing, memory
    └── CheckError          5      verify, a plan's expect, --max-*, diff --exit-code

Anything else that escapes is a bug in kprune, and is shown as an `InternalError`.

    KpruneWarning                  what stops nothing, and must be known; the command prints it as a note
    ├── UnsyncedWarning            written, but perhaps not on the disk yet
    └── RestoredWarning            something that a killed run had set aside was put back
"""

from __future__ import annotations


class KpruneError(Exception):
    """A refusal with its reason.

    Args:
        what: what went wrong, in one line.
        where: the place: a path of layers, a file and line, a spec with a caret.
        why: the reason, if `what` does not say it already.
        do: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.do = what, where, why, do

    def __str__(self) -> str:
        rows = (("error", self.what), ("where", self.where), ("why", self.why), ("do", self.do))
        return "\n".join(
            f"{name + ':':<6} " + text.replace("\n", "\n       ") for name, text in rows if text
        )


class InternalError(KpruneError):
    """A bug in kprune. Please report it."""

    exit_code = 1


class UnsoundOutputError(InternalError):
    """The output contradicts itself; this was noticed before it was written."""


class UsageError(KpruneError):
    """The command, or the plan, asks for something that does not exist or makes no sense."""

    exit_code = 2


class SpecError(UsageError):
    """A spec that does not parse."""


class UnknownLayerError(UsageError):
    """A layer (or an axis of a layer) that the model does not have."""


class IndexRangeError(UsageError):
    """A unit index outside the range of a layer."""


class ExpressionError(UsageError):
    """A selection expression that is malformed or uses an unknown name."""


class MissingStatisticError(ExpressionError):
    """An expression or a criterion needs a statistic that these units do not have."""


class PlanError(UsageError):
    """A plan that breaks the schema; `where` holds the file and line."""


class CannotPruneError(KpruneError):
    """A well-formed request that the model does not allow."""

    exit_code = 3


class Cannot:
    """The error for a task that a kind of model does not support; see `KpruneError`."""

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        self.what, self.why, self.do = what, why, do

    def error(self) -> CannotPruneError:
        return CannotPruneError(self.what, why=self.why, do=self.do)


class FrozenUnitsError(CannotPruneError):
    """The chosen units are tied to the model's interface or reach a layer without a rule."""


class NotARectangleError(CannotPruneError):
    """Units along two axes of one tensor are chosen so that no block is left."""


class LastUnitError(CannotPruneError):
    """Every unit of a layer was chosen; Keras has no layer of width 0."""


class FileError(KpruneError):
    """A file cannot be read or written."""

    exit_code = 4

    def name_file(self, name: str) -> None:
        """Say which file it is about, unless the message does."""
        if name not in str(self):
            self.where = f"{name}, {self.where}" if self.where else name


class DamagedFileError(FileError):
    """A file whose content contradicts itself or its format."""


class LimitError(FileError):
    """A file that asks for more than a limit of `kprune.limits` allows."""


class SetupError(KpruneError):
    """Something that kprune needs to run is missing: a package, a Keras backend, memory."""

    exit_code = 4


class CheckError(KpruneError):
    """An operation was carried out, but a requested condition is not met."""

    exit_code = 5


class KpruneWarning(UserWarning):
    """Something that stops nothing, and that must be known."""


class UnsyncedWarning(KpruneWarning):
    """A file is written, and the system does not say that it would outlive a power cut."""


class RestoredWarning(KpruneWarning):
    """A folder that a killed run had set aside is in its place again."""
