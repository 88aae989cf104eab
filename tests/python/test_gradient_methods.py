# SPDX-License-Identifier: Apache-2.0
"""Gradients that are approximate by name against their formulas."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import JacobianFree, Neumann, Phantom, Status
from support.problems import SHAPES, dense_adjoint, dense_jacobians, relative_error, weights


def case(rng, shape, dtype=np.float64, norm=0.8):
    """W, c, z, g of a tanh map; z is no fixed point."""
    return tuple(array.astype(dtype) for array in (weights(rng, shape[-1], norm), *rng.standard_normal((3, *shape))))


def value(z, c, W):
    return np.tanh(z @ W.T + c)


def vjp(z, v, c, W):
    return ((1 - np.tanh(z @ W.T + c) ** 2) * v) @ W


def neumann(J, g, k, tau):
    """tau sum over i < k of (tau J' + (1 - tau) I)^i g, by powers of the matrix."""
    step = tau * np.swapaxes(J, 1, 2) + (1 - tau) * np.eye(J.shape[-1])
    terms = [np.einsum("rij,rj->ri", np.linalg.matrix_power(step, i), g) for i in range(k)]
    return tau * sum(terms)


def phantom(W, c, z, g, k, tau):
    """Back through k steps of the unrolled map, at float64."""
    W, c, h, a = (array.astype(float) for array in (W, c, z, g))
    states = [h]
    for _ in range(k - 1):
        states.append((1 - tau) * states[-1] + tau * value(states[-1], c, W))
    u = tau * a
    for h in states[:0:-1]:
        a = (1 - tau) * a + tau * vjp(h, a, c, W)
        u = u + tau * a
    return u


def both(W, c, z, g, method, **options):
    """The same by the native map and by a callable."""
    f = (lambda z, c: value(z, c, W)) if isinstance(method, Phantom) else None
    return (
        deqcore.adjoint(deqcore.maps.Dense(W), z, g, row_args=(c,), method=method, **options),
        deqcore.adjoint(lambda *at: vjp(*at, W), z, g, row_args=(c,), method=method, f=f, **options),
    )


class TestFormulas:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize(("k", "tau"), [(1, 1.0), (1, 0.3), (2, 1.0), (5, 0.5), (5, 1.7), (10, 1.0)])
    def test_of_the_neumann_series(self, k, tau, shape, dtype, rng):
        W, c, z, g = case(rng, shape, dtype)
        J = dense_jacobians("tanh", W.astype(float), z.astype(float), c.astype(float))
        for solution in both(W, c, z, g, Neumann(k, tau)):
            assert relative_error(solution.value, neumann(J, g.astype(float), k, tau)) < 200 * np.finfo(dtype).eps
            assert solution.value.dtype == dtype
            assert solution.nfe == k - 1
            assert solution.rows_asked == (k - 1) * shape[0]

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize(("k", "tau"), [(1, 1.0), (1, 0.3), (2, 1.0), (5, 0.5), (5, 1.7), (10, 1.0)])
    def test_of_the_phantom_gradient(self, k, tau, shape, dtype, rng):
        W, c, z, g = case(rng, shape, dtype)
        expected = phantom(W, c, z, g, k, tau)
        for solution in both(W, c, z, g, Phantom(k, tau)):
            assert relative_error(solution.value, expected) < 500 * np.finfo(dtype).eps
            assert solution.value.dtype == dtype
            assert solution.nfe == k - 1
            assert solution.rows_asked == (k - 1) * shape[0]

    def test_the_phantom_gradient_differentiates_the_unrolled_map(self, rng):
        """f = tanh(W z) + c, whose df/dc is the identity: u is the gradient of g . h_k by c."""
        W, c, z, g = case(rng, (3, 7))
        f = lambda z, c: np.tanh(z @ W.T) + c  # noqa: E731

        def unrolled(c, k, tau):
            h = z
            for _ in range(k):
                h = (1 - tau) * h + tau * f(h, c)
            return (g * h).sum()

        direction = rng.standard_normal(c.shape)
        for k, tau in ((1, 1.0), (3, 1.0), (6, 0.4)):
            u = deqcore.adjoint(
                lambda z, v, c: ((1 - np.tanh(z @ W.T) ** 2) * v) @ W, z, g, row_args=(c,), f=f, method=Phantom(k, tau)
            ).value
            h = 1e-6
            slope = (unrolled(c + h * direction, k, tau) - unrolled(c - h * direction, k, tau)) / (2 * h)
            assert (u * direction).sum() == pytest.approx(slope, rel=1e-7)

    def test_the_jacobian_free_gradient_is_g_and_asks_nothing(self, dtype, rng):
        W, c, z, g = case(rng, (5, 9), dtype)
        for method in (JacobianFree(), Neumann(1), Phantom(1), "jacobian_free"):
            for solution in both(W, c, z, g, method):
                np.testing.assert_array_equal(solution.value, g)
                assert not np.shares_memory(solution.value, g)
                assert (solution.nfe, solution.rows_asked) == (0, 0)

    def test_at_a_fixed_point_phantom_is_neumann(self, rng):
        W, c, _, g = case(rng, (4, 11))
        z = deqcore.fixed_point(deqcore.maps.Dense(W), 0 * c, row_args=(c,), rtol=1e-14, max_steps=2000).value
        for k, tau in ((2, 1.0), (7, 0.6)):
            for one, other in zip(both(W, c, z, g, Neumann(k, tau)), both(W, c, z, g, Phantom(k, tau)), strict=True):
                assert relative_error(one.value, other.value) < 1e-11

    @given(k=st.integers(1, 30), tau=st.floats(0.05, 1.95), seed=st.integers(0, 2**32 - 1))
    def test_more_terms_are_the_picard_iteration(self, k, tau, seed):
        """w_k is what k damped steps from 0 give: k - 1 from tau g."""
        W, c, z, g = case(np.random.default_rng(seed), (2, 5), norm=0.5)
        w = np.zeros_like(g)
        for _ in range(k):
            w = w + tau * (vjp(z, w, c, W) + g - w)
        for solution in both(W, c, z, g, Neumann(k, tau)):
            assert relative_error(solution.value, w) < 1e-11


APPROXIMATE = [JacobianFree(), Neumann(4), Neumann(3, 0.5), Phantom(4), Phantom(3, 0.5)]


@pytest.mark.parametrize("method", APPROXIMATE, ids=repr)
class TestWhatIsSaid:
    def test_rows_end_as_approximate_and_nothing_raises_or_warns(self, method, dtype, rng):
        W, c, z, g = case(rng, (5, 9), dtype, norm=30)  # far from any truth
        for on_failure in ("raise", "warn", "return"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for solution in both(W, c, z, g, method, on_failure=on_failure):
                    assert (solution.status == Status.approximate).all()
                    assert not solution.success
                    assert np.isnan(solution.residual).all()
                    assert solution.error is None
                    assert (solution.steps == solution.nfe).all()
                    assert set(solution.method) == {method.name}
                    np.testing.assert_allclose(solution.scale, np.linalg.norm(g.astype(float), axis=1), rtol=1e-6)
                    assert f"5 rows approximate by name ({method.name})" in solution.message
                    assert "check_gradient()" in solution.explain()

    def test_a_trace_holds_nothing_because_nothing_is_measured(self, method, dtype, rng):
        for solution in both(*case(rng, (5, 9), dtype), method, trace=True):
            assert solution.trace.shape == (solution.nfe, 5)
            assert np.isnan(solution.trace).all()

    def test_the_error_is_estimated_if_asked_for(self, method, rng):
        W, c, z, g = case(rng, (5, 9))
        exact = dense_adjoint("tanh", W, z, c, g)
        for plain, solution in zip(
            both(W, c, z, g, method), both(W, c, z, g, method, estimate_error=True), strict=True
        ):
            u = solution.value
            np.testing.assert_array_equal(u, plain.value)
            np.testing.assert_allclose(solution.residual, np.linalg.norm(vjp(z, u, c, W) + g - u, axis=1), rtol=1e-12)
            true = np.linalg.norm(u - exact, axis=1) / np.linalg.norm(u, axis=1)
            np.testing.assert_allclose(solution.error, true, rtol=0.02)
            assert solution.nfe > plain.nfe
            assert (solution.status == Status.approximate).all()
        worst = solution.error.max()
        for solution in both(W, c, z, g, method, max_error=worst * 0.999, on_failure="return"):
            expected = np.where(solution.error < worst * 0.999, Status.approximate, Status.ill_conditioned)
            np.testing.assert_array_equal(solution.status, expected)
        with pytest.raises(deqcore.ConvergenceError, match="ill_conditioned"):
            both(W, c, z, g, method, max_error=worst * 0.999)

    def test_one_axis_and_more_axes(self, method, rng):
        W, c, z, g = case(rng, (4, 6))
        expected = both(W, c, z, g, method)[0].value
        f = (lambda z, c: value(z, c, W)) if isinstance(method, Phantom) else None
        one = deqcore.adjoint(lambda *at: vjp(*at, W), z[0], g[0], row_args=(c[0],), method=method, f=f)
        assert one.value.shape == (6,)
        np.testing.assert_allclose(one.value, expected[0], rtol=1e-12, atol=1e-14)

        def flat(function):
            return lambda *at: function(*(a.reshape(4, 6) for a in at), W).reshape(4, 2, 3)

        z3, g3, c3 = (array.reshape(4, 2, 3) for array in (z, g, c))
        cube = deqcore.adjoint(flat(vjp), z3, g3, row_args=(c3,), method=method, f=f and flat(value))
        np.testing.assert_allclose(cube.value.reshape(4, 6), expected, rtol=1e-12, atol=1e-14)

    def test_nan_from_the_product_ends_its_row_as_not_finite(self, method, dtype, rng):
        W, c, z, g = case(rng, (4, 6), dtype)
        bad = np.array([False, False, True, False])

        def product(z, v, c, bad):
            return np.where(bad[:, None], dtype(np.nan), vjp(z, v, c, W))

        options = {"row_args": (c, bad), "method": method}
        if isinstance(method, Phantom):
            options["f"] = lambda z, c, bad: value(z, c, W)
        solution = deqcore.adjoint(product, z, g, on_failure="return", **options)
        good = both(W, c, z, g, method)[1]
        if isinstance(method, JacobianFree):  # which asks for no product
            assert (solution.status == Status.approximate).all()
            return
        assert solution.status.tolist() == [1, 1, Status.not_finite, 1]
        np.testing.assert_array_equal(solution.value[~bad], good.value[~bad])
        with pytest.raises(deqcore.ConvergenceError, match="1 not_finite"):
            deqcore.adjoint(product, z, g, **options)

    def test_arguments_and_rows_reach_the_calls(self, method, rng):
        W, c, z, g = case(rng, (4, 6))
        labels = np.arange(4)

        def check(extra, label, rows):
            assert extra == "whole"
            np.testing.assert_array_equal(label, rows)
            assert rows.tolist() == [0, 1, 2, 3]

        def product(z, v, extra, c, label, rows):
            check(extra, label, rows)
            return vjp(z, v, c, W)

        def f(z, extra, c, label, rows):
            check(extra, label, rows)
            return value(z, c, W)

        solution = deqcore.adjoint(
            product, z, g, args=("whole",), row_args=(c, labels), pass_rows=True, method=method,
            f=f if isinstance(method, Phantom) else None,
        )  # fmt: skip
        np.testing.assert_allclose(solution.value, both(W, c, z, g, method)[0].value, rtol=1e-12, atol=1e-14)


def test_a_series_that_overflows_is_not_finite(dtype, rng):
    g = rng.standard_normal((3, 4)).astype(dtype)
    rates = np.array([0.5, 10.0, 0.9], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for method, f in ((Neumann(2000), None), (Phantom(2000), lambda z, rates: rates[:, None] * z)):
            solution = deqcore.adjoint(
                lambda z, v, rates: rates[:, None] * v, np.zeros_like(g), g, row_args=(rates,), method=method, f=f,
                max_steps=2000, on_failure="return",
            )  # fmt: skip
            assert solution.status.tolist() == [1, Status.not_finite, 1]
            np.testing.assert_allclose(solution.value[[0, 2]], g[[0, 2]] / (1 - rates[[0, 2], None]), rtol=1e-4)
