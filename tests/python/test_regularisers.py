# SPDX-License-Identifier: Apache-2.0
"""Radius, cap and penalty against dense eigenvalues, singular values and differences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from deqcore import JacobianPenalty, jacobian_penalty, spectral_cap, spectral_radius
from deqcore.maps import Dense
from support.problems import ACTIVATIONS, SHAPES, dense_jacobians, weights


def with_spectrum(rng, width, leading):
    """A non-normal matrix: the leading eigenvalues, alone or as a pair of an angle, and the others at most 0.85."""
    D = np.diag(rng.uniform(-0.85, 0.85, width))
    if leading == "pair":
        angle = rng.uniform(0.1, math.pi - 0.1)
        c, s, skew = math.cos(angle), math.sin(angle), rng.uniform(1, 3)
        D[:2, :2] = [[c, -s * skew], [s / skew, c]]
    else:
        D[0, 0] = {"positive": 1, "negative": -1, "both": 1}[leading]
        if leading == "both":
            D[1, 1] = -1
    S = np.linalg.qr(rng.standard_normal((width, width)))[0] + 0.3 * rng.standard_normal((width, width)) / width**0.5
    return rng.uniform(0.1, 3) * S @ D @ np.linalg.inv(S)


def dense_radius(J):
    return np.abs(np.linalg.eigvals(J)).max(axis=-1)


class TestSpectralRadius:
    @pytest.mark.parametrize("leading", ["positive", "negative", "both", "pair"])
    def test_of_matrices_with_a_gap(self, leading, dtype, rng):
        for rows, width in ((1, 2), (3, 5), (5, 17), (2, 40)):
            J = np.stack([with_spectrum(rng, width, leading) for _ in range(rows)]).astype(dtype)
            for product in ("rij,rj->ri", "rij,ri->rj"):
                radius = spectral_radius(
                    lambda z, v, J, p=product: np.einsum(p, J, v), np.zeros((rows, width), dtype), row_args=(J,)
                )
                assert (radius.dtype, radius.shape) == (np.float64, (rows,))
                np.testing.assert_allclose(radius, dense_radius(J), rtol=0.01)

    @pytest.mark.parametrize("shape", [(1, 30), (4, 61)], ids=str)
    def test_of_a_native_map_whose_spectrum_fills_a_disc(self, shape, rng):
        W, z, c = rng.standard_normal((shape[1],) * 2) / shape[1] ** 0.5, *rng.standard_normal((2, *shape))
        radius = spectral_radius(Dense(W), z, row_args=(c,), steps=2000)
        np.testing.assert_allclose(radius, dense_radius(dense_jacobians("tanh", W, z, c)), rtol=0.01)

    @pytest.mark.parametrize("shape", [(6,), (2, 3, 2)], ids=str)
    def test_shapes(self, shape, rng):
        slopes = rng.uniform(-1, 1, shape)
        radius = spectral_radius(lambda z, v: slopes * v, np.zeros(shape), steps=4000)
        rows = slopes.reshape(1 if len(shape) == 1 else len(slopes), -1)
        np.testing.assert_allclose(radius, np.abs(rows).max(axis=1), rtol=0.01)

    def test_rows_without_a_radius_do_not_touch_the_others(self, rng):
        J = np.stack(
            [np.eye(3), np.triu(np.ones((3, 3)), 1), np.zeros((3, 3)), np.full((3, 3), np.nan), -2 * np.eye(3)]
        )
        radius = spectral_radius(lambda z, v, J: (J @ v[:, :, None])[:, :, 0], np.zeros((5, 3)), row_args=(J,))
        np.testing.assert_allclose(radius, [1, 0, 0, np.nan, 2], rtol=1e-12)
        alone = spectral_radius(lambda z, v: -2 * v, np.zeros((1, 3)))
        assert alone[0] == radius[4]

    @pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
    def test_sizes_at_the_ends_of_the_range(self, size):
        np.testing.assert_allclose(spectral_radius(lambda z, v: size * v, np.zeros((2, 3))), size, rtol=1e-10)

    def test_the_seed_decides_the_start(self, rng):
        W, x = weights(rng, 9), rng.standard_normal(9)
        first, again, other = (spectral_radius(Dense(W), x, row_args=(x,), steps=10, seed=s)[0] for s in (1, 1, 2))
        assert first == again != other


class TestSpectralCap:
    @pytest.mark.parametrize("shape", [(1, 1), (7, 7), (3, 20), (33, 31)], ids=str)
    def test_against_singular_values(self, shape, dtype, rng):
        for size in (1e-30, 1e-3, 1.0, 1e30):
            W = (size * rng.standard_normal(shape)).astype(dtype)
            kept, norm = W.copy(), np.linalg.norm(W.astype(np.float64), 2)
            for cap in (0.3 * norm, 0.999 * norm, 1.5 * norm):
                capped = spectral_cap(W, cap)
                assert (capped.dtype, capped.shape) == (dtype, shape)
                assert np.linalg.norm(capped.astype(np.float64), 2) <= cap * (1 + 4 * np.finfo(dtype).eps)
                np.testing.assert_allclose(capped, W * min(1, cap / norm), rtol=8 * np.finfo(dtype).eps)
            within = spectral_cap(W, 1.5 * norm)
            assert within.tobytes() == W.tobytes() == kept.tobytes()
            assert not np.shares_memory(within, W)

    def test_the_ends_of_the_range_and_zero(self):
        np.testing.assert_allclose(spectral_cap(np.full((2, 2), 1.7e308), 1.0), 0.5, rtol=1e-14)
        np.testing.assert_allclose(spectral_cap(1e-300 * np.eye(2), 1e-305), 1e-305 * np.eye(2), rtol=1e-14)
        assert not spectral_cap(np.zeros((2, 3)), 1e-5).any()

    def test_any_layout(self, rng):
        W = rng.standard_normal((8, 10))
        np.testing.assert_array_equal(spectral_cap(W[::2, ::-1].T, 0.5), spectral_cap(W[::2, ::-1].T.copy(), 0.5))


def estimate(activation, W, z, c, **options):
    return jacobian_penalty(Dense(W, activation), z, c, **options)


class TestJacobianPenalty:
    def test_the_mean_of_many_draws_is_the_norm(self, rng):
        W, c, z = weights(rng, 40), *rng.standard_normal((2, 4, 40))
        for activation in ACTIVATIONS:
            exact = (dense_jacobians(activation, W, z, c) ** 2).sum(axis=(1, 2)) / 40
            draws = [estimate(activation, W, z, c, seed=seed) for seed in range(200)]
            assert np.mean([draw.value for draw in draws]) == pytest.approx(exact.mean(), rel=0.03)
            np.testing.assert_allclose(np.mean([draw.per_row for draw in draws], axis=0), exact, rtol=0.1)
            np.testing.assert_allclose(estimate(activation, W, z, c, probes=2000).per_row, exact, rtol=0.03)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("injections", [(3, 5), (1, 5), (5,)], ids=str)
    def test_gradients_against_differences(self, activation, injections, rng):
        W, z, c = weights(rng, 5), rng.standard_normal((3, 5)), rng.standard_normal(injections)
        options = {"probes": 2, "seed": 7}
        got = estimate(activation, W, z, c, **options)
        for which, gradient in ((0, got.dW), (1, got.dz), (2, got.dinjection)):
            arrays = [W, z, c]
            assert gradient.shape == arrays[which].shape
            expected = np.zeros_like(gradient)
            for i in np.ndindex(gradient.shape):
                sides = []
                for h in (1e-5, -1e-5):
                    moved = arrays.copy()
                    moved[which] = arrays[which].copy()
                    moved[which][i] += h
                    sides.append(estimate(activation, *moved, **options).value)
                expected[i] = (sides[0] - sides[1]) / 2e-5
            np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6 * np.abs(got.dW).max())

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_float32_agrees_with_float64(self, activation, rng):
        for rows, width in SHAPES:
            W, z, c = (a.astype(np.float32) for a in (weights(rng, width), *rng.standard_normal((2, rows, width))))
            single = estimate(activation, W, z, c)
            double = estimate(activation, *(a.astype(np.float64) for a in (W, z, c)))
            for field in dataclasses.fields(JacobianPenalty)[1:]:
                got, expected = getattr(single, field.name), getattr(double, field.name)
                assert got.dtype == (np.float64 if field.name == "per_row" else np.float32)
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * (1 + np.abs(expected).max()))
            assert single.value == pytest.approx(double.value, rel=1e-4, abs=1e-6)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_far_from_zero_everything_stays_finite(self, activation, dtype):
        x = np.array([[-1e30, -800, -90, -40, 0, 40, 90, 800, 1e30]], dtype)
        got = estimate(activation, np.eye(9, dtype=dtype), np.zeros_like(x), x)
        assert all(np.isfinite(getattr(got, field.name)).all() for field in dataclasses.fields(got))

    def test_new_weights_are_seen(self, rng):
        old, new, z, c = (rng.standard_normal((4, 4)) for _ in range(4))
        layer = Dense(old)
        layer.update(new)
        assert jacobian_penalty(layer, z, c).value == estimate("tanh", new, z, c).value

    def test_one_axis_is_one_row(self, dtype, rng):
        W, z, c = (a.astype(dtype) for a in (weights(rng, 6), *rng.standard_normal((2, 6))))
        got, rows = estimate("tanh", W, z, c), estimate("tanh", W, z[None], c[None])
        assert (got.value, got.dz.shape, got.dinjection.shape) == (rows.value, (6,), (6,))
        np.testing.assert_array_equal(got.dW, rows.dW)


z, x, W = np.zeros((3, 4)), np.ones((3, 4)), 0.5 * np.eye(4)
layer = Dense(W)


def half(z, v, *args):
    return 0.5 * v


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spectral_radius(1, z), TypeError, r"^map_or_jvp: int given; expected jvp\(z, v, \.\.\.\)"),
        (lambda: spectral_radius(half, [0.0]), TypeError, "^z: list given; expected a NumPy array"),
        (lambda: spectral_radius(half, z + np.inf), ValueError, r"^z: inf at index \(0, 0\)"),
        (lambda: spectral_radius(half, z.astype(int)), TypeError, "^z: .*int64 given; expected dtype float32"),
        (lambda: spectral_radius(half, z, args=x), TypeError, "^args: .*expected a tuple"),
        (lambda: spectral_radius(half, z, row_args=(x[:2],)), ValueError, r"^row_args\[0\]: .*expected 3 rows"),
        (lambda: spectral_radius(layer, z), TypeError, "^row_args: 0 arrays given"),
        (lambda: spectral_radius(layer, z[:, :3], row_args=(x,)), ValueError, "^z: .*expected rows of width 4"),
        (lambda: spectral_radius(lambda z, v: None, z), TypeError, "^jvp returned None; expected an array"),
        (lambda: spectral_radius(half, z, steps=1), ValueError, "^steps: 1 given; expected at least 2"),
        (lambda: spectral_radius(half, z, steps=2.5), TypeError, r"^steps: 2\.5 given; expected an integer"),
        (lambda: spectral_radius(half, z, seed=-1), ValueError, "^seed: -1 given; expected at least 0"),
        (lambda: spectral_radius(half, z, step=9), TypeError, "has no option 'step'; did you mean 'steps'"),
        (lambda: spectral_cap([[1.0]], 1.0), TypeError, "^W: list given; expected a NumPy array"),
        (lambda: spectral_cap(W.astype(int), 1.0), TypeError, "^W: .*int64 given; expected dtype"),
        (lambda: spectral_cap(x[0], 1.0), ValueError, r"^W: array of shape \(4,\).*expected a matrix"),
        (lambda: spectral_cap(x[:0], 1.0), ValueError, r"^W: array of shape \(0, 4\)"),
        (lambda: spectral_cap(W * np.nan, 1.0), ValueError, r"^W: nan at index \(0, 0\)"),
        (lambda: spectral_cap(W, 0.0), ValueError, "^cap: 0 given; expected a finite number > 0"),
        (lambda: spectral_cap(W, math.inf), ValueError, "^cap: inf given; expected a finite number > 0"),
        (lambda: spectral_cap(W, "1"), TypeError, "^cap: '1' given; expected a real number"),
        (lambda: spectral_cap(W, 1.0, kap=1), TypeError, "has no option 'kap'; did you mean 'cap'"),
        (lambda: jacobian_penalty(half, z, x), TypeError, r"^layer: function given; expected a deqcore\.maps\.Dense"),
        (lambda: jacobian_penalty(layer, z.tolist(), x), TypeError, "^z: list given; expected a NumPy array"),
        (lambda: jacobian_penalty(layer, z.astype(np.float32), x), TypeError, "^z: dtype float32 given"),
        (lambda: jacobian_penalty(layer, z, x[:2]), ValueError, r"^injection: array of shape \(2, 4\)"),
        (lambda: jacobian_penalty(layer, z, x * np.nan), ValueError, r"^injection: nan at index \(0, 0\)"),
        (lambda: jacobian_penalty(layer, z, x, probes=0), ValueError, "^probes: 0 given; expected at least 1"),
        (lambda: jacobian_penalty(layer, z, x, probes=True), TypeError, "^probes: True given; expected an integer"),
        (lambda: jacobian_penalty(layer, z, x, seeds=1), TypeError, "has no option 'seeds'; did you mean 'seed'"),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
