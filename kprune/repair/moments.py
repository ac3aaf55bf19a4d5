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


class Moments:
    """Sums of products, float64 (G, D, D) and (G, D, M)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        parts, inputs, outputs = shape
        self.count = 0
        self.x, self.xx = np.zeros((parts, inputs)), np.zeros((parts, inputs, inputs))
        self.z, self.zz = np.zeros((parts, outputs)), np.zeros((parts, outputs))
        self.xz = np.zeros(shape)

    def add(self, x: np.ndarray, z: np.ndarray) -> None:
        self.count += x.shape[1]
        self.x += x.sum(axis=1, dtype=np.float64)
        self.z += z.sum(axis=1, dtype=np.float64)
        turned = x.transpose(0, 2, 1)
        self.xx += turned @ x
        self.xz += turned @ z
        self.zz += np.einsum("grm,grm->gm", z, z, dtype=np.float64)

    def fit(self, matrix: np.ndarray, shift: np.ndarray, *, ridge: float, free: bool) -> Fit:
        n = max(self.count, 1)
        x, z = self.x / n, self.z / n
        # About the means, or about 0 with the constant that is there taken off the targets.
        x0, z0 = (x, z) if free else (np.zeros_like(x), shift)
        xx = self.xx / n - x0[:, :, None] * x0[:, None, :]
        xz = self.xz / n - (x[:, :, None] * z0[:, None, :])
        zz = self.zz / n - 2 * z0 * z + z0**2
        found = np.stack([_solved(*each, ridge) for each in zip(xx, xz, matrix, strict=True)])
        moved = z - np.einsum("gd,gdm->gm", x, matrix) - shift if free else np.zeros_like(shift)
        return Fit(
            found,
            z - np.einsum("gd,gdm->gm", x, found) if free else shift,
            *_relative(
                _error(xx, xz, zz, matrix) + moved**2,
                _error(xx, xz, zz, found),
                self.zz / n - z**2,
            ),
        )


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


def _step(x: np.ndarray, wrong: np.ndarray, ridge: float, free: bool) -> np.ndarray:
    """How weights change so that they make up for what is wrong: float64 (D, M)."""
    if not np.isfinite(ridge):
        return np.zeros((x.shape[1], wrong.shape[1]))
    wrong = wrong - wrong.mean(axis=0) if free else wrong
    scale = np.sqrt(np.einsum("rd,rd->d", x, x, dtype=np.float64) / len(x))
    alive = scale > DEAD * scale.max(initial=0.0)
    scaled = np.where(alive, x / np.where(alive, scale, 1.0), 0.0)
    products = scaled @ scaled.T / len(x)
    products[np.diag_indices_from(products)] += ridge
    moved = scaled.T @ (np.linalg.solve(products, wrong) / len(x))
    return np.asarray(np.where(alive, 1 / np.where(alive, scale, 1.0), 0.0)[:, None] * moved)


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
    found[alive] = np.linalg.solve(normal, xz[alive] / s + ridge * s * prior[alive]) / s
    return found


def _error(xx: np.ndarray, xz: np.ndarray, zz: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Mean squared error of each output, (G, M), from moments."""
    square = np.einsum("gdm,gdm->gm", matrix, xx @ matrix)
    error: np.ndarray = square - 2 * np.einsum("gdm,gdm->gm", matrix, xz) + zz
    return np.maximum(error, 0.0)


def _relative(before: np.ndarray, after: np.ndarray, spread: np.ndarray) -> tuple[float, float]:
    whole = max(float(spread.sum()), 1e-30)
    return float(before.sum()) / whole, float(after.sum()) / whole
