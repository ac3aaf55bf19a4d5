"""Linear maps with labels and data, and what removing labels costs, by explicit least squares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from kprune.analysis.analysis import Analysis
from kprune.labels.groups import Groups
from kprune.labels.map import LabelMap, Weight
from kprune.refitting.ordering.covariances import Covariance, Observation
from tests.labels.test_groups import label_map

Labels = tuple[np.ndarray, ...]


@dataclass
class Map:
    """A consumer. data: (G, n, D), centred; values: (G, D, M)."""

    name: str
    values: np.ndarray
    data: np.ndarray
    row_labels: Labels
    column_labels: Labels

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def shape(self) -> tuple[int, int, int]:
        parts, rows, columns = self.values.shape
        return parts, rows, columns

    def matrix(self, read: Callable[[str], np.ndarray]) -> np.ndarray:
        return self.values

    def covariance(self) -> np.ndarray:
        return self.data.transpose(0, 2, 1) @ self.data / self.data.shape[1]

    def observed(self, weights: np.ndarray | None = None) -> Observation:
        return Observation(self, Covariance(self.covariance()), weights)


def nothing_read(path: str) -> np.ndarray:
    raise AssertionError(path)


def made(
    seed: int, row_labels: Labels, column_labels: Labels, *, samples: int = 60, name: str = "map"
) -> Map:
    """A map with random values and correlated data. Labels: as a consumer has them."""
    rng = np.random.default_rng(seed)
    parts, rows = row_labels[0].shape[1:]
    columns = column_labels[0].shape[2]
    mixing = rng.normal(size=(parts, rows, rows)) + 2 * np.eye(rows)
    data = rng.normal(size=(parts, samples, rows)) @ mixing
    data -= data.mean(axis=1, keepdims=True)
    return Map(name, rng.normal(size=(parts, rows, columns)), data, row_labels, column_labels)


def along(*labels: Iterable[int]) -> np.ndarray:
    """Labels of a map with one part: (k, 1, n), from k lists."""
    return np.array([[list(own)] for own in labels], np.int64)


def labelled(count: int) -> LabelMap:
    """A map of labels 1 … count."""
    return label_map(count + 1)


def alone(count: int) -> Groups:
    """Groups of one unit each."""
    return Groups.solve(labelled(count))


def is_gone(labels: Labels, gone: set[int], part: int, position: int) -> bool:
    return any(set(factor[:, part, position].tolist()) <= gone for factor in labels)


def left(labels: Labels, gone: set[int], part: int, size: int) -> np.ndarray:
    return np.array([not is_gone(labels, gone, part, p) for p in range(size)])


def error(one: Map, gone: set[int], counted: set[int], ridge: float) -> float:
    """How much the outputs that are left miss at least without some labels, in shares of their variance.

    The shares are summed, and divided by the root of how many outputs there are.

    Args:
        gone: labels whose rows are at 0.
        counted: labels whose columns do not count.
    """
    parts, rows, columns = one.shape
    whole = 0.0
    for part in range(parts):
        x, w = one.data[part], one.values[part]
        variance = ((x @ w) ** 2).mean(axis=0)
        # The ridge as rows of data: every weight is pulled to its old value.
        pull = np.diag(np.sqrt(ridge * (x**2).mean(axis=0)))
        system = np.vstack([x / np.sqrt(len(x)), pull])
        stay = left(one.row_labels, gone, part, rows)
        refitted = np.linalg.lstsq(system[:, stay], system @ w, rcond=None)[0]
        missed = ((system @ w - system[:, stay] @ refitted) ** 2).sum(axis=0) / variance
        whole += float(missed[left(one.column_labels, counted, part, columns)].sum())
    return whole / float(np.sqrt(parts * columns))


def cost(maps: Iterable[Map], before: set[int], unit: set[int], ridge: float) -> float:
    """What removing some labels costs where others are gone already."""
    after = before | unit
    return sum(error(one, after, after, ridge) - error(one, before, after, ridge) for one in maps)


def labelled_rows(weight: Weight) -> tuple[Labels, Labels]:
    """The labels along the rows and the columns of the kernel of a Dense or a convolution."""
    *window, _ = (axis.size or 1 for axis in weight.axes[:-1])
    times = int(np.prod(window))
    none = (np.zeros((1, times * (weight.axes[-2].size or 1)), np.int64),)
    rows = tuple(np.tile(factor, (1, times)) for factor in weight.axes[-2].factors) or none
    return tuple(row[:, None] for row in rows), tuple(f[:, None] for f in weight.axes[-1].factors)


def maps_of(model: Analysis, tensors: dict[str, np.ndarray], samples: int = 200) -> list[Map]:
    """A map for each kernel of a model of dense and convolutional layers, on random data."""
    found = []
    for number, weight in enumerate(model.weights):
        if len(weight.axes) > 1:
            one = made(number, *labelled_rows(weight), samples=samples, name=weight.path)
            one.values = tensors[weight.path].reshape(one.shape).astype(np.float64)
            found.append(one)
    return found
