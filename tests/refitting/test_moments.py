"""Least squares of moments and of rows, against `numpy.linalg.lstsq` on matrices that are written out."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from kprune.refitting.moments import Means, Moments, Rows, Sums, bytes_for, sums_for
from tests.refitting.making import least_squares

RIDGE = 1e-2


stated = partial(least_squares, ridge=RIDGE)


def problem(
    rows: int, inputs: int, *, parts: int = 2, mean: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows with means and correlations, targets that are not linear in them, weights and shifts."""
    rng = np.random.default_rng(rows + inputs)
    mixing = rng.normal(size=(inputs, inputs))
    x = rng.normal(size=(parts, rows, inputs)) @ mixing * np.exp(rng.normal(size=inputs)) + mean
    z = np.tanh(x @ rng.normal(size=(parts, inputs, 3))) * 2 + 1
    return (
        x.astype(np.float32),
        z.astype(np.float32),
        rng.normal(size=(parts, inputs, 3)),
        rng.normal(size=(parts, 3)),
    )


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", [Moments, Rows])
@pytest.mark.parametrize(("rows", "inputs"), [(60, 7), (9, 20)])
def test_both_sums_give_what_lstsq_gives(kind: type, rows: int, inputs: int, free: bool) -> None:
    x, z, prior, shift = problem(rows, inputs)
    sums: Sums = kind(prior.shape)
    for start in range(0, rows, 4):  # a few at a time
        sums.add(x[:, start : start + 4], z[:, start : start + 4])
    fit = sums.fit(prior, shift, ridge=RIDGE, free=free)
    for part in range(len(x)):
        matrix, constant = stated(x[part], z[part], prior[part], shift[part], free=free)
        np.testing.assert_allclose(fit.matrix[part], matrix, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(fit.shift[part], constant, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", [Moments, Rows])
@pytest.mark.parametrize("ridge", [RIDGE, np.inf])
def test_the_errors_are_those_of_what_the_weights_make(
    kind: type, free: bool, ridge: float
) -> None:
    x, z, prior, shift = problem(40, 6)
    sums: Sums = kind(prior.shape)
    sums.add(x, z)
    fit = sums.fit(prior, shift, ridge=ridge, free=free)
    spread = z.var(axis=1).sum()
    for found, matrix, constant in [
        (fit.before, prior, shift),
        (fit.after, fit.matrix, fit.shift),
    ]:
        made = x @ matrix + constant[:, None]
        assert found == pytest.approx(((made - z) ** 2).mean(axis=1).sum() / spread, rel=1e-3)


@pytest.mark.parametrize("kind", [Moments, Rows])
def test_an_infinite_ridge_moves_the_shift_alone(kind: type) -> None:
    x, z, prior, shift = problem(40, 6)
    sums: Sums = kind(prior.shape)
    sums.add(x, z)
    fit = sums.fit(prior, shift, ridge=np.inf, free=True)
    assert np.array_equal(fit.matrix, prior)
    np.testing.assert_allclose(fit.shift, (z - x @ prior).mean(axis=1), rtol=1e-4, atol=1e-4)
    assert fit.after < fit.before


@pytest.mark.parametrize("free", [True, False])
def test_means_give_what_moments_give_for_the_shift_alone(free: bool) -> None:
    x, z, prior, shift = problem(40, 6)
    means, moments = Means(prior, shift), Moments(prior.shape)
    for sums in (means, moments):
        sums.add(x[:, :25], z[:, :25])
        sums.add(x[:, 25:], z[:, 25:])
    fits = [sums.fit(prior, shift, ridge=np.inf, free=free) for sums in (means, moments)]
    np.testing.assert_allclose(fits[0].shift, fits[1].shift, rtol=1e-4, atol=1e-4)
    assert np.array_equal(fits[0].matrix, prior)
    for name in ("before", "after"):
        one, other = (getattr(fit, name) for fit in fits)
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("kind", [Moments, Rows])
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_inputs_that_never_vary_keep_their_weights(kind: type, free: bool, constant: float) -> None:
    x, z, prior, shift = problem(40, 6)
    x[:, :, 2] = constant
    sums: Sums = kind(prior.shape)
    sums.add(x[:, :25], z[:, :25])
    sums.add(x[:, 25:], z[:, 25:])
    fit = sums.fit(prior, shift, ridge=RIDGE, free=free)
    if free or not constant:
        np.testing.assert_allclose(fit.matrix[:, 2], prior[:, 2], rtol=1e-6)
    for part in range(len(x)):
        matrix, own = stated(x[part], z[part], prior[part], shift[part], free=free)
        alive = [row for row in range(6) if row != 2]
        np.testing.assert_allclose(fit.matrix[part][alive], matrix[alive], rtol=2e-3, atol=2e-4)
        made, wanted = x[part] @ fit.matrix[part] + fit.shift[part], x[part] @ matrix + own
        np.testing.assert_allclose(made, wanted, rtol=2e-2, atol=2e-2)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    """float32 products of numbers around 1000 would be wrong by more than a variance of 1."""
    x, z, prior, shift = problem(400, 5, mean=1000.0)
    x = (x - 1000) / x.std(axis=1, keepdims=True) + 1000
    sums = Moments(prior.shape)
    for start in range(0, 400, 50):
        sums.add(x[:, start : start + 50], z[:, start : start + 50])
    fit = sums.fit(prior, shift, ridge=RIDGE, free=True)
    matrix, _ = stated(x[0], z[0], prior[0], shift[0], free=True)
    np.testing.assert_allclose(fit.matrix[0], matrix, rtol=1e-3, atol=1e-3)


def test_the_fit_does_not_depend_on_the_scale_of_single_inputs() -> None:
    x, z, prior, shift = problem(60, 7)
    scale = np.float32([1e-2, 1, 100, 1, 10, 1, 0.1])
    fits = []
    for factor in (np.ones(7, np.float32), scale):
        sums = Moments(prior.shape)
        sums.add(x * factor, z)
        fits.append(sums.fit(prior / factor[:, None], shift, ridge=RIDGE, free=True))
    np.testing.assert_allclose(
        fits[1].matrix * scale[:, None], fits[0].matrix, rtol=1e-3, atol=1e-5
    )


def test_the_smaller_of_both_is_taken_and_fits_into_the_bytes_that_are_told() -> None:
    assert isinstance(sums_for((1, 10, 3), 9), Rows)
    assert isinstance(sums_for((1, 10, 3), 10), Moments)
    for rows in (9, 40):
        sums = sums_for((2, 10, 3), rows)
        x, z, *_ = problem(rows, 10)
        sums.add(x, z)
        arrays = vars(sums).values()
        flat = [
            part for array in arrays for part in (array if isinstance(array, list) else [array])
        ]
        held = sum(
            array.nbytes for array in flat if isinstance(array, np.ndarray) and array.size > 99
        )
        assert 0 < held <= bytes_for((2, 10, 3), rows)
