"""Sums over rows, and the least squares that they give.

A row x has D inputs, its target z has M outputs. With A = cov(x) and C = cov(x, z), or their
moments about 0 where no bias can take a constant up, the weights that come nearest to the targets,
and stay near those that are there where the data do not say, are

    W' = (A + L)^-1 (C + L W)        L_jj = ridge * A_jj

which does not depend on the scale of single inputs. Where there are fewer rows than inputs, the
rows themselves take less memory than A, and the same is solved in their space.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from msgspec import Struct

RIDGE = 1e-3
FEW_RIDGE, FEW = 1e-2, 100
"""The ridge with fewer samples than this."""

DEAD = 1e-6
"""An input that varies less than this share of the strongest one's standard deviation has no say."""


def ridge_for(samples: int) -> float:
    """How strongly weights are held where they are."""
    return FEW_RIDGE if samples < FEW else RIDGE


class Fit(Struct, frozen=True, eq=False):
    """Weights that come near to targets.

    Attributes:
        matrix: float64 (G, D, M).
        shift: float64 (G, M), what is added to what they make.
        before, after: the squared error of the weights that were there, and of these, relative to
            the variance of the targets.
    """

    matrix: np.ndarray
    shift: np.ndarray
    before: float
    after: float


class Sums(Protocol):
    """What is remembered of rows and targets."""

    def add(self, x: np.ndarray, z: np.ndarray) -> None:
        """Count rows in: float32 (G, R, D) and their targets (G, R, M)."""

    def fit(self, matrix: np.ndarray, shift: np.ndarray, *, ridge: float, free: bool) -> Fit:
        """The weights that come nearest to the targets.

        Args:
            matrix, shift: those that are there.
            ridge: how strongly they are held; infinite for the shift alone to change.
            free: whether the shift may change.
        """


def sums_for(shape: tuple[int, int, int], rows: int) -> Sums:
    """The sums that take less memory. shape: (G, D, M); rows: how many there will be of each part."""
    return Rows(shape) if rows < shape[1] else Moments(shape)


def bytes_for(shape: tuple[int, int, int], rows: int) -> int:
    """What the sums of `sums_for` take at most, and solving for one part after the other."""
    parts, inputs, outputs = shape
    if rows < inputs:
        return parts * rows * (inputs + outputs) * 4 + rows * (2 * inputs * 4 + 2 * rows * 8)
    return parts * inputs * (inputs + outputs) * 8 + inputs * (3 * inputs + 3 * outputs) * 8


class Moments:
    """Sums of products about the mean of the first rows, float64 (G, D, D) and (G, D, M).

    About 0, inputs with a large mean would lose their variance to rounding.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        parts, inputs, outputs = shape
        self.count = 0
        self.x0 = np.zeros((parts, 1, inputs), np.float32)
        self.z0 = np.zeros((parts, 1, outputs), np.float32)
        self.x, self.xx = np.zeros((parts, inputs)), np.zeros((parts, inputs, inputs))
        self.z, self.zz = np.zeros((parts, outputs)), np.zeros((parts, outputs))
        self.xz = np.zeros(shape)

    def add(self, x: np.ndarray, z: np.ndarray) -> None:
        if not x.shape[1]:
            return
        if not self.count:
            self.x0, self.z0 = x.mean(axis=1, keepdims=True), z.mean(axis=1, keepdims=True)
        self.count += x.shape[1]
        x, z = x - self.x0, z - self.z0
        self.x += x.sum(axis=1, dtype=np.float64)
        self.z += z.sum(axis=1, dtype=np.float64)
        turned = x.transpose(0, 2, 1)
        self.xx += turned @ x
        self.xz += turned @ z
        self.zz += np.einsum("grm,grm->gm", z, z, dtype=np.float64)

    def fit(self, matrix: np.ndarray, shift: np.ndarray, *, ridge: float, free: bool) -> Fit:
        found, shifts, errors = matrix.copy(), shift.copy(), np.zeros((3, *shift.shape))
        for part in range(len(matrix)):
            found[part], shifts[part], errors[:, part] = self._fit_part(
                part, matrix[part], shift[part], ridge, free
            )
        return Fit(found, shifts, *_relative(*errors))

    def _fit_part(
        self, part: int, matrix: np.ndarray, shift: np.ndarray, ridge: float, free: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, shift and squared errors of one part: (D, M), (M,), and (3, M) as `_relative` wants them."""
        n = max(self.count, 1)
        x, z = self.x[part] / n, self.z[part] / n
        xx = self.xx[part] / n
        xx -= np.outer(x, x)
        xz = self.xz[part] / n - np.outer(x, z)
        spread = np.maximum(self.zz[part] / n - z**2, 0.0)
        # Means about 0; what is wanted of the matrix is that without the shift that is there.
        x, z = x + self.x0[part, 0], z + self.z0[part, 0]
        moved, zz = z - x @ matrix - shift, spread
        if not free:
            xx += np.outer(x, x)
            xz = xz + np.outer(x, z - shift)
            zz, moved = spread + (z - shift) ** 2, np.zeros_like(shift)
        found = _solved(xx, xz, matrix, ridge)
        errors = _error(xx, xz, zz, matrix) + moved**2, _error(xx, xz, zz, found), spread
        return found, z - x @ found if free else shift, np.stack(errors)


class Rows:
    """The rows themselves, float32 (G, R, D), and their targets."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.x: list[np.ndarray] = []
        self.z: list[np.ndarray] = []

    def add(self, x: np.ndarray, z: np.ndarray) -> None:
        self.x.append(np.array(x, np.float32))
        self.z.append(np.array(z, np.float32))

    def fit(self, matrix: np.ndarray, shift: np.ndarray, *, ridge: float, free: bool) -> Fit:
        found, shifts, errors = matrix.copy(), shift.copy(), np.zeros((3, *shift.shape))
        for part in range(self.shape[0]):
            x = np.concatenate([rows[part] for rows in self.x])
            z = np.concatenate([rows[part] for rows in self.z]).astype(np.float64)
            wrong = z - x @ matrix[part] - shift[part]
            errors[0, part] = (wrong**2).mean(axis=0)
            errors[2, part] = z.var(axis=0)
            mean = x.mean(axis=0, dtype=np.float64) if free else np.zeros(x.shape[1])
            found[part] += _step(x - mean.astype(np.float32), wrong, ridge, free)
            if free:
                shifts[part] = (z - x @ found[part]).mean(axis=0)
            errors[1, part] = ((z - x @ found[part] - shifts[part]) ** 2).mean(axis=0)
        return Fit(found, shifts, *_relative(*errors))


class Means:
    """What is wrong on the average, for the shift alone to make up for.

    Args:
        matrix, shift: the weights that are there.
    """

    def __init__(self, matrix: np.ndarray, shift: np.ndarray) -> None:
        self.matrix, self.shift = matrix.astype(np.float32), shift
        self.count = 0
        self.z0 = np.zeros((len(matrix), 1, matrix.shape[2]), np.float32)
        self.sums = np.zeros((4, *shift.shape))  # of what is wrong and of z, and of their squares

    def add(self, x: np.ndarray, z: np.ndarray) -> None:
        if not x.shape[1]:
            return
        if not self.count:
            self.z0 = z.mean(axis=1, keepdims=True)
        self.count += x.shape[1]
        wrong = z - x @ self.matrix - self.shift[:, None]
        for number, array in enumerate((wrong, z - self.z0)):
            self.sums[number] += array.sum(axis=1, dtype=np.float64)
            self.sums[2 + number] += np.einsum("grm,grm->gm", array, array, dtype=np.float64)

    def fit(self, matrix: np.ndarray, shift: np.ndarray, *, ridge: float, free: bool) -> Fit:
        wrong, z, squares, spread = self.sums / max(self.count, 1)
        before = squares
        after = squares - wrong**2 if free else squares
        moved = wrong if free else np.zeros_like(wrong)
        return Fit(matrix, shift + moved, *_relative(before, after, spread - z**2))


def _step(x: np.ndarray, wrong: np.ndarray, ridge: float, free: bool) -> np.ndarray:
    """How weights change so that they make up for what is wrong: float64 (D, M)."""
    if not np.isfinite(ridge):
        return np.zeros((x.shape[1], wrong.shape[1]))
    wrong = wrong - wrong.mean(axis=0) if free else wrong
    scale = np.sqrt(np.einsum("rd,rd->d", x, x, dtype=np.float64) / len(x))
    alive = scale > DEAD * scale.max(initial=0.0)
    inverse = np.where(alive, 1 / np.where(alive, scale, 1.0), 0.0)
    scaled = x * inverse.astype(np.float32)
    products = (scaled @ scaled.T).astype(np.float64) / len(x)
    products[np.diag_indices_from(products)] += ridge
    moved = scaled.T @ (np.linalg.solve(products, wrong) / len(x))
    return np.asarray(inverse[:, None] * moved)


def _solved(xx: np.ndarray, xz: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """(A + L)^-1 (C + L W), float64 (D, M)."""
    found: np.ndarray = prior.copy()
    scale = np.sqrt(np.maximum(np.diag(xx), 0.0))
    alive = scale > DEAD * scale.max(initial=0.0)
    if not alive.any() or not np.isfinite(ridge):
        return found
    # Scaled to ones on the diagonal, the ridge is the same for every input.
    s = scale[alive][:, None]
    normal = xx[np.ix_(alive, alive)] / (s * s.T)
    normal[np.diag_indices_from(normal)] += ridge
    # What is asked of those that stay is what the dead ones, which are held, do not make already.
    wanted = xz[alive] - xx[np.ix_(alive, ~alive)] @ prior[~alive]
    found[alive] = np.linalg.solve(normal, wanted / s + ridge * s * prior[alive]) / s
    return found


def _error(xx: np.ndarray, xz: np.ndarray, zz: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Mean squared error of each output of one part, (M,), from moments."""
    square = np.einsum("dm,dm->m", matrix, xx @ matrix)
    error: np.ndarray = square - 2 * np.einsum("dm,dm->m", matrix, xz) + zz
    return np.maximum(error, 0.0)


def _relative(before: np.ndarray, after: np.ndarray, spread: np.ndarray) -> tuple[float, float]:
    whole = max(float(spread.sum()), 1e-30)
    return float(before.sum()) / whole, float(after.sum()) / whole
