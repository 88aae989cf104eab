# SPDX-License-Identifier: Apache-2.0
"""Forward mode: against differences of fixed points, and against the adjoint, whose transpose it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import JacobianFree, Neumann, Phantom, Status
from support.problems import ACTIVATIONS, SHAPES, dense_jacobians, relative_error, weights

METHODS = ["gmres", "bicgstab", "direct", "anderson", "picard"]
TIGHT = {"rtol": 1e-12, "max_steps": 2000}


def case(rng, shape, dtype=np.float64, norm=0.8):
    """W, c, z, g, dz; z need not be a fixed point."""
    W = weights(rng, shape[-1], norm)
    return tuple(array.astype(dtype) for array in (W, *rng.standard_normal((4, *shape))))


def jvp(z, v, c, W):
    return (1 - np.tanh(z @ W.T + c) ** 2) * (v @ W.T)


class TestAgainstDenseSolves:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_native_and_callable(self, shape, method, dtype, rng):
        W, c, z, _, dz = case(rng, shape, dtype)
        J = dense_jacobians("tanh", *(array.astype(float) for array in (W, z, c)))
        exact = np.linalg.solve(np.eye(shape[1]) - J, dz[:, :, None].astype(float))[:, :, 0]
        tolerance = 1e-3 if dtype == np.float32 else 1e-8
        for solution in (
            deqcore.tangent(deqcore.maps.Dense(W), z, dz, row_args=(c,), method=method),
            deqcore.tangent(lambda *at: jvp(*at, W), z, dz, row_args=(c,), method=method),
        ):
            assert solution.success
            assert solution.value.dtype == dtype
            assert relative_error(solution.value, exact) <= tolerance
            np.testing.assert_allclose(solution.scale, np.linalg.norm(dz.astype(float), axis=1), rtol=1e-6)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_every_activation(self, activation, rng):
        W, c, z, _, dz = case(rng, (5, 17), norm=0.7)
        t = deqcore.tangent(deqcore.maps.Dense(W, activation), z, dz, row_args=(c,), **TIGHT).value
        J = dense_jacobians(activation, W, z, c)
        assert relative_error(t, np.linalg.solve(np.eye(17) - J, dz[:, :, None])[:, :, 0]) <= 1e-9


class TestAgainstDifferences:
    @pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus", "sin"])
    @pytest.mark.parametrize("shape", [(1, 1), (4, 9), (33, 12)], ids=str)
    def test_of_the_fixed_point_by_the_injection_and_the_weights(self, shape, activation, rng):
        W, c, _, dc, _ = case(rng, shape, norm=0.7)
        dW = rng.standard_normal(W.shape)

        def at(h):
            layer = deqcore.maps.Dense(W + h * dW, activation)
            return deqcore.fixed_point(
                layer, np.zeros(shape), row_args=(c + h * dc,), rtol=1e-14, max_steps=2000, on_failure="return"
            ).value

        z = at(0.0)
        df = ACTIVATIONS[activation][1](z @ W.T + c) * (z @ dW.T + dc)
        t = deqcore.tangent(deqcore.maps.Dense(W, activation), z, df, row_args=(c,), **TIGHT).value
        h = 1e-5 / np.linalg.norm(dW, 2)
        assert relative_error((at(h) - at(-h)) / (2 * h), t) <= 1e-6


class TestAgainstTheAdjoint:
    @given(
        rows=st.integers(1, 5),
        width=st.integers(1, 20),
        norm=st.floats(0, 0.95),
        method=st.sampled_from(METHODS),
        other=st.sampled_from(METHODS),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_g_t_is_u_dz(self, rows, width, norm, method, other, seed):
        W, c, z, g, dz = case(np.random.default_rng(seed), (rows, width), norm=norm)
        layer = deqcore.maps.Dense(W)
        t = deqcore.tangent(layer, z, dz, row_args=(c,), method=method, **TIGHT).value
        u = deqcore.adjoint(layer, z, g, row_args=(c,), method=other, **TIGHT).value
        sizes = np.linalg.norm(g, axis=1) * np.linalg.norm(t, axis=1) + np.linalg.norm(u * dz, axis=1)
        assert (abs((g * t).sum(1) - (u * dz).sum(1)) <= 1e-9 * sizes).all()

    def test_of_a_symmetric_jacobian_is_the_same(self, rng):
        A, g = weights(rng, 11, 0.9, symmetric=True), rng.standard_normal((4, 11))
        A = (A + A.T) / 2
        z = np.zeros_like(g)
        t, u = deqcore.tangent(lambda z, v: v @ A.T, z, g), deqcore.adjoint(lambda z, v: v @ A, z, g)
        assert relative_error(t.value, u.value) < 1e-12
        assert (t.nfe, t.rows_asked) == (u.nfe, u.rows_asked)


class TestOptions:
    def test_t0_is_the_start(self, rng):
        A, dz, t0 = weights(rng, 6, 0.5), rng.standard_normal((3, 6)), rng.standard_normal((3, 6))
        seen = []

        def product(z, v):
            seen.append(v.copy())
            return v @ A.T

        exact = np.linalg.solve(np.eye(6) - A, dz.T).T
        for method in METHODS:
            seen.clear()
            solution = deqcore.tangent(product, np.zeros_like(dz), dz, t0=t0, method=method)
            np.testing.assert_array_equal(seen[0], t0)
            assert relative_error(solution.value, exact) < 1e-9
            assert deqcore.tangent(product, np.zeros_like(dz), dz, t0=exact, method=method).nfe == 1

    def test_warm_handles_and_error_estimates(self, rng):
        W, c, z, _, dz = case(rng, (5, 30))
        layer = deqcore.maps.Dense(W)
        first = deqcore.tangent(layer, z, dz, row_args=(c,), keep="state", max_error=1e-6)
        assert (first.error < 1e-6).all()
        again = deqcore.tangent(layer, z, dz, row_args=(c,), warm=first.warm)
        assert (again.steps == 1).all()
        assert again.value.tobytes() == first.value.tobytes()

    def test_names_are_its_own_in_errors_and_messages(self, rng):
        W, c, z, _, dz = case(rng, (3, 5))
        singular = lambda z, v: v  # noqa: E731
        with pytest.raises(deqcore.ConvergenceError, match=r"^tangent: 3 of 3 rows did not converge"):
            deqcore.tangent(singular, z, dz)
        with pytest.raises(TypeError, match=r"^jvp returned None"):
            deqcore.tangent(lambda z, v: None, z, dz)
        for method in (JacobianFree(), Neumann(3), Phantom(3)):
            with pytest.raises(ValueError, match=r"^method: .* given; tangent\(\) takes one of 'picard', 'anderson'"):
                deqcore.tangent(deqcore.maps.Dense(W), z, dz, row_args=(c,), method=method)

    @pytest.mark.parametrize("retire", [None, True, False, "halve"])
    def test_z_and_row_args_are_gathered(self, retire, rng):
        rows = 30
        z, dz = rng.standard_normal((2, rows, 5))
        slopes = rng.uniform(-0.9, 0.9, (rows, 5)) * (rng.random((rows, 1)) < 0.5)

        def product(points, v, slopes_now, rows):
            np.testing.assert_array_equal(points, z[rows])
            np.testing.assert_array_equal(slopes_now, slopes[rows])
            return slopes_now * v

        solution = deqcore.tangent(product, z, dz, row_args=(slopes,), pass_rows=True, retire=retire, method="anderson")
        np.testing.assert_allclose(solution.value, dz / (1 - slopes), rtol=1e-7, atol=1e-9)
        assert (solution.rows_asked < rows * solution.nfe) == (retire is not False)

    def test_one_axis_and_more_axes(self, rng):
        W, c, z, _, dz = case(rng, (4, 6))
        layer = deqcore.maps.Dense(W)
        t = deqcore.tangent(layer, z, dz, row_args=(c,)).value
        one = deqcore.tangent(layer, z[0], dz[0], row_args=(c[0],)).value
        assert one.shape == (6,)
        assert one.tobytes() == t[0].tobytes()
        cube = deqcore.tangent(
            lambda z, v, c: jvp(*(a.reshape(-1, 6) for a in (z, v, c)), W).reshape(v.shape),
            *(array.reshape(4, 2, 3) for array in (z, dz)),
            row_args=(c.reshape(4, 2, 3),),
        )
        np.testing.assert_allclose(cube.value.reshape(4, 6), t, rtol=1e-9)

    def test_nan_and_singular_rows_end_in_their_own_way(self, dtype, rng):
        dz = rng.standard_normal((4, 6)).astype(dtype)
        rates = np.array([0.5, 1.0, np.nan, -3.0], dtype)
        for method in METHODS:
            solution = deqcore.tangent(
                lambda z, v, rates: rates[:, None] * v, np.zeros_like(dz), dz, row_args=(rates,), method=method,
                on_failure="return",
            )  # fmt: skip
            assert solution.status[0] == Status.converged
            assert solution.status[1] < 0
            assert solution.status[2] == Status.not_finite
            assert (solution.status[3] == Status.converged) == (method != "picard")
            assert np.isfinite(solution.value).all()
