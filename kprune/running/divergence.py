"""How far the outputs of two models are apart on the same inputs.

Outputs that are probabilities of classes, or logits of such, are compared as distributions; so are
those that answer yes or no. All others are compared as figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from kprune.labels.labels import Labels

SMALLEST = 1e-9
"""No probability counts as less: that of a model that is sure, and wrong, is rounded to 0."""
WHOLE = 1e-3
"""How far the sum of a row may be from 1 for it to be one of probabilities."""


class Kind(Enum):
    """How an output is compared."""

    CLASSES = "probabilities of classes"
    CLASS_LOGITS = "logits of classes"
    ANSWERS = "probabilities of yes"
    ANSWER_LOGITS = "logits of yes"
    FIGURES = "figures"


class OutputDivergence(Struct, frozen=True):
    """How far one output is from the original's."""

    agreement: Annotated[
        float | None,
        Meta(
            description="share of rows with the same class, or of equal answers; null for figures"
        ),
    ]
    kl: Annotated[
        float | None,
        Meta(description="mean divergence KL(original || other) in nats; null for figures"),
    ]
    relative_error: Annotated[
        float,
        Meta(description="norm of the difference over that of the original about its mean"),
    ]

    @property
    def text(self) -> str:
        """As tables show it."""
        if self.agreement is None or self.kl is None:
            return f"relative error {self.relative_error:.3g}"
        return f"{100 * self.agreement:.2f} % agree, KL {self.kl:.3g}"


class Divergence(Struct, frozen=True):
    """How far a model's outputs are from the original's, by the names of the outputs."""

    outputs: dict[str, OutputDivergence]

    @property
    def agreement(self) -> float | None:
        """The least agreement of any output; None if all are figures."""
        return min((it.agreement for it in self._all if it.agreement is not None), default=None)

    @property
    def kl(self) -> float | None:
        """The mean over those outputs that have one; None if all are figures."""
        own = [output.kl for output in self._all if output.kl is not None]
        return sum(own) / len(own) if own else None

    @property
    def relative_error(self) -> float:
        """The mean over the outputs."""
        return sum(output.relative_error for output in self._all) / len(self._all)

    @property
    def _all(self) -> list[OutputDivergence]:
        return list(self.outputs.values())

    @property
    def distance(self) -> float:
        """One number by which candidates are ranked, the less the nearer.

        Outputs without a KL count by half the square of their relative error, which is the KL of two
        normal distributions of the original's spread.
        """
        each = [0.5 * it.relative_error**2 if it.kl is None else it.kl for it in self._all]
        found = sum(each) / len(each)
        return math.inf if math.isnan(found) else found

    def worse(self, other: Divergence) -> bool:
        """Whether another is nearer to the original."""
        return self.distance > other.distance

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the keys of the JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {
            "agreement": self.agreement, "kl": self.kl, "relative_error": self.relative_error, **found
        }  # fmt: skip

    @property
    def text(self) -> str:
        """As tables show it; of several outputs with their names."""
        if len(self.outputs) == 1:
            return self._all[0].text
        return "; ".join(f"{name}: {output.text}" for name, output in self.outputs.items())


def is_distribution(values: np.ndarray, axis: int = -1) -> bool:
    """Whether an axis holds probabilities, as a softmax gives them."""
    real = values.astype(np.float64)
    return bool((real >= 0).all() and np.allclose(real.sum(axis=axis), 1.0, atol=1e-2))


def over_units_left(
    values: np.ndarray, labels: Labels, gone: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """An output of the original over the units that are left; probabilities sum to 1 over them.

    Args:
        values: (samples, …); labels: of this output.
        gone: bool (labels,).
    Returns: the values, and the axes, counted from the end, along which they are such probabilities.
    """
    cut = labels.cut(values, gone)
    axes = [axis for axis, _ in labels.cut_axes(gone) if is_distribution(values, axis)]
    for axis in axes:
        cut = cut / np.maximum(cut.sum(axis=axis, keepdims=True), np.finfo(np.float32).tiny)
    return cut, axes


def divergence(
    names: Sequence[str],
    original: Sequence[np.ndarray],
    other: Sequence[np.ndarray],
    kinds: Mapping[str, Kind] | None = None,
) -> Divergence:
    """How far one model's outputs are from another's.

    Args:
        names: of the outputs.
        original, other: what each model gives for the same inputs, an array (samples, …) an output.
        kinds: how each is compared; those that are missing go by what the original gives: rows of
            numbers from 0 on that sum to 1 are probabilities of classes.
    """
    kinds = kinds or {}
    return Divergence(
        {
            name: _between(kinds.get(name) or _kind_of_values(one), one, two)
            for name, one, two in zip(names, original, other, strict=True)
        }
    )


def kinds_of(model: Any) -> dict[str, Kind]:
    """How the outputs of a Keras model are compared, as far as its last layers and its losses tell."""
    # Reports, which say how far models are apart, need nothing that runs them.
    from kprune.running.compiling import losses_of
    from kprune.runtime.keras_runtime import is_compiled, output_names

    names = output_names(model)
    losses = losses_of(model) if is_compiled(model) else [None] * len(names)
    found = {}
    for name, tensor, loss in zip(names, model.outputs, losses, strict=True):
        kind = _BY_ACTIVATION.get(_last_activation(tensor)) or _of_loss(loss)
        if kind is not None:
            found[name] = kind
    return found


_BY_ACTIVATION = {"softmax": Kind.CLASSES, "sigmoid": Kind.ANSWERS}


def _last_activation(tensor: Any) -> str:
    """The name of the activation that gives a tensor; "" if none does, or along an axis of its own."""
    from kprune.running.inputs import operation_of

    layer = operation_of(tensor._keras_history)
    if hasattr(layer, "layers"):  # a model inside the model
        return _last_activation(layer.outputs[tensor._keras_history.tensor_index])
    if type(layer).__name__ == "Softmax":
        return "softmax" if layer.axis in (-1, len(tensor.shape) - 1) else ""
    while hasattr(layer, "layer"):  # TimeDistributed
        layer = layer.layer
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def _of_loss(loss: Any) -> Kind | None:
    """How an output is compared that a loss takes for logits; None for one that it takes as it is."""
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    if not config.get("from_logits"):
        return None
    binary = "binary" in f"{type(loss).__name__} {config.get('name', '')}".lower()
    return Kind.ANSWER_LOGITS if binary else Kind.CLASS_LOGITS


def _kind_of_values(values: np.ndarray) -> Kind:
    real = values.astype(np.float64)
    if real.ndim < 2 or real.shape[-1] < 2 or not (real >= 0).all():
        return Kind.FIGURES
    return Kind.CLASSES if np.allclose(real.sum(axis=-1), 1, atol=WHOLE) else Kind.FIGURES


def _between(kind: Kind, original: np.ndarray, other: np.ndarray) -> OutputDivergence:
    one, two = original.astype(np.float64), other.astype(np.float64)
    error = _relative_error(one, two)
    if kind is Kind.FIGURES:
        return OutputDivergence(None, None, error)
    if kind in (Kind.CLASSES, Kind.CLASS_LOGITS):
        same = one.argmax(axis=-1) == two.argmax(axis=-1)
        p, q = (_log_shares(values, kind) for values in (one, two))
        kl = (np.exp(p) * (p - q)).sum(axis=-1)
    else:
        middle = 0.5 if kind is Kind.ANSWERS else 0.0
        same = (one > middle) == (two > middle)
        (p, no_p), (q, no_q) = (_log_answers(values, kind) for values in (one, two))
        kl = np.exp(p) * (p - q) + np.exp(no_p) * (no_p - no_q)
    same &= np.isfinite(kl)  # what is not even a number agrees with nothing
    return OutputDivergence(float(same.mean()), float(kl.mean()), error)


def _log_shares(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Logarithms of the probabilities of classes, along the last axis."""
    logits = np.log(np.maximum(values, SMALLEST)) if kind is Kind.CLASSES else values
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _log_answers(values: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the probabilities of yes and of no."""
    if kind is Kind.ANSWER_LOGITS:
        return -np.logaddexp(0, -values), -np.logaddexp(0, values)
    yes = np.clip(values, SMALLEST, 1 - SMALLEST)
    return np.log(yes), np.log1p(-yes)


def _relative_error(original: np.ndarray, other: np.ndarray) -> float:
    spread = float(np.linalg.norm(original - original.mean(axis=0)))
    far = float(np.linalg.norm(original - other))
    if spread == 0:
        return 0.0 if far == 0 else math.inf
    return far / spread
