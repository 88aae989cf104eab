# SPDX-License-Identifier: Apache-2.0
"""Backward solves against dense ones, and gradients through a fixed point against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import GMRES, Anderson, AndersonTypeI, BiCGSTAB, Direct, Picard, Status
from support.problems import (
    ACTIVATIONS,
    SHAPES,
    Recorder,
    dense_adjoint,
    dense_fixed_point,
    dense_jacobians,
    relative_error,
    weights,
)

METHODS = [
    GMRES(),
    GMRES(restart=9),
    BiCGSTAB(),
    Direct(),
    Picard(),
    Picard(beta=0.6),
    Anderson(),
    Anderson(history=3),
    Anderson(history=12, beta=0.9),
    AndersonTypeI(),
]
TIGHT = {"rtol": 1e-12, "max_steps": 2000}
DEFAULT_RTOL = {np.float32: 1e-5, np.float64: 1e-10}


def linear(A, rows=1):
    """vjp of f(z) = A z + x."""
    return lambda z, v: v @ A


def dense_case(rng, activation, rows, width, norm=0.8, one_row=False):
    """A solved dense map at float64: layer, W, injection, fixed points, a gradient."""
    W, c = weights(rng, width, norm), rng.standard_normal((1 if one_row else rows, width))
    c_rows = np.broadcast_to(c, (rows, width))
    z = dense_fixed_point(activation, W, c_rows)
    return deqcore.maps.Dense(W, activation), W, c, z, rng.standard_normal((rows, width))


class TestAgainstDenseSolves:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_of_a_native_map(self, shape, activation, rng):
        for one_row in (False, True):
            layer, W, c, z, g = dense_case(rng, activation, *shape, one_row=one_row)
            solution = deqcore.adjoint(layer, z, g, row_args=(c,), **TIGHT)
            assert solution.success
            assert relative_error(solution.value, dense_adjoint(activation, W, z, c, g)) <= 1e-9

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_of_a_callable(self, method, rng):
        _, W, c, z, g = dense_case(rng, "tanh", 9, 21)

        def vjp(z, v, c):
            return ((1 - np.tanh(z @ W.T + c) ** 2) * v) @ W

        solution = deqcore.adjoint(vjp, z, g, row_args=(c,), method=method, **TIGHT)
        assert solution.success
        assert relative_error(solution.value, dense_adjoint("tanh", W, z, c, g)) <= 1e-9

    @pytest.mark.parametrize("method", METHODS, ids=repr)
    def test_at_the_default_tolerance_of_each_dtype(self, method, dtype, rng):
        layer64, W, c, z, g = dense_case(rng, "tanh", 9, 21)
        layer = deqcore.maps.Dense(W.astype(dtype))
        u = deqcore.adjoint(layer, z.astype(dtype), g.astype(dtype), row_args=(c.astype(dtype),), method=method).value
        rtol = DEFAULT_RTOL[dtype]
        assert u.dtype == dtype
        assert relative_error(u, dense_adjoint("tanh", W, z, c, g)) <= 5 * rtol + 50 * np.finfo(dtype).eps
        del layer64

    @pytest.mark.parametrize("norm", [0.9, 0.99, 0.999])
    def test_of_maps_that_contract_slowly(self, norm, rng):
        A, g = weights(rng, 30, norm, symmetric=True), rng.standard_normal((5, 30))
        solution = deqcore.adjoint(linear(A), np.zeros((5, 30)), g, **TIGHT)
        expected = np.linalg.solve((np.eye(30) - A).T, g.T).T
        assert relative_error(solution.value, expected) <= 1e-12 / (1 - norm) * 2

    @given(
        rows=st.integers(1, 6),
        width=st.integers(1, 20),
        norm=st.floats(0, 0.95),
        seed=st.integers(0, 2**32 - 1),
        method=st.sampled_from(METHODS),
        activation=st.sampled_from(sorted(ACTIVATIONS)),
    )
    def test_of_any_size(self, rows, width, norm, seed, method, activation):
        rng = np.random.default_rng(seed)
        W = weights(rng, width, norm * 0.85)
        c, z, g = (rng.standard_normal((rows, width)) for _ in range(3))  # z need not be a fixed point
        layer = deqcore.maps.Dense(W, activation)
        solution = deqcore.adjoint(layer, z, g, row_args=(c,), method=method, **TIGHT)
        assert relative_error(solution.value, dense_adjoint(activation, W, z, c, g)) <= 1e-9


class TestTheEquation:
    @pytest.mark.parametrize(
        "method", ["gmres", "bicgstab", "direct", "anderson", "anderson_type_i", "picard", "broyden"]
    )
    def test_a_gradient_of_zero_is_zero_whatever_the_start(self, method, rng):
        A = rng.standard_normal((4, 4)) * 0.2
        g = rng.standard_normal((3, 4))
        g[1] = 0
        solution = deqcore.adjoint(lambda z, v: v @ A, g, g, u0=10 + g, method=method)
        assert not solution.value[1].any()
        assert solution.scale[1] == 0
        np.testing.assert_allclose(solution.value, np.linalg.solve((np.eye(4) - A).T, g.T).T, atol=1e-8)

    def test_the_residual_is_that_of_the_value_and_scale_is_the_norm_of_g(self, dtype, rng):
        A = weights(rng, 13, 0.8).astype(dtype)
        g = (rng.standard_normal((7, 13)) * 10.0 ** rng.integers(-3, 3, (7, 1))).astype(dtype)
        for order, norm in ((2, 2), (np.inf, np.inf)):
            for max_steps in (1, 3, 200):
                solution = deqcore.adjoint(
                    linear(A), np.zeros_like(g), g, norm=norm, max_steps=max_steps, on_failure="return"
                )
                u = solution.value.astype(float)
                residual = np.linalg.norm(u @ A.astype(float) + g - u, order, axis=1)
                noise = 20 * np.finfo(dtype).eps * solution.scale
                assert (abs(solution.residual - residual) <= 1e-5 * residual + noise).all()
                np.testing.assert_allclose(solution.scale, np.linalg.norm(g.astype(float), order, axis=1), rtol=1e-6)
                converged = solution.status == 0
                assert (solution.residual <= solution.tolerances.rtol * solution.scale)[converged].all()
                assert converged.all() == (max_steps == 200)

    def test_tolerances_say_relative_to_scale(self, dtype):
        one = np.ones((1, 2), dtype)
        solution = deqcore.adjoint(lambda z, v: v * dtype(0.5), one, one)
        assert solution.tolerances == deqcore.Tolerances(DEFAULT_RTOL[dtype], 0.0, 200, "two", "scale")

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "direct", "anderson", "picard"])
    def test_the_start_is_zero_or_g_and_u0_if_given(self, method, rng):
        """Linear methods start from 0, whose residual is g without a product; fixed-point methods start from g."""
        A, g, u0 = weights(rng, 6, 0.5), rng.standard_normal((3, 6)), rng.standard_normal((3, 6))
        seen = []
        first = {
            "gmres": g / np.linalg.norm(g, axis=1, keepdims=True),
            "direct": np.broadcast_to(np.eye(6)[0], (3, 6)),
        }.get(method, g)

        def vjp(z, v):
            seen.append(v.copy())
            return v @ A

        deqcore.adjoint(vjp, np.zeros((3, 6)), g, method=method)
        np.testing.assert_allclose(seen[0], first, rtol=1e-15)
        seen.clear()
        solution = deqcore.adjoint(vjp, np.zeros((3, 6)), g, u0=u0, method=method)
        np.testing.assert_array_equal(seen[0], u0)
        np.testing.assert_allclose(solution.value, np.linalg.solve((np.eye(6) - A).T, g.T).T, rtol=1e-8)
        # from the solution it ends at once, native too
        exact = np.linalg.solve((np.eye(6) - A).T, g.T).T
        assert deqcore.adjoint(vjp, np.zeros((3, 6)), g, u0=exact, method=method).nfe == 1
        layer = deqcore.maps.Dense(A, "identity")
        again = deqcore.adjoint(layer, np.zeros((3, 6)), g, u0=exact, row_args=(np.zeros(6),), method=method)
        assert again.nfe == 1

    def test_a_row_without_gradient_is_zero_at_once(self, dtype, rng):
        A = weights(rng, 6, 0.9).astype(dtype)
        g = rng.standard_normal((5, 6)).astype(dtype)
        g[[1, 3]] = 0
        layer = deqcore.maps.Dense(A, "identity")
        for solution in (
            deqcore.adjoint(linear(A), np.zeros_like(g), g),
            deqcore.adjoint(layer, np.zeros_like(g), g, row_args=(np.zeros(6, dtype),)),
        ):
            assert solution.success
            assert not solution.value[[1, 3]].any()
            assert solution.steps[[1, 3]].tolist() == [1, 1]
            assert solution.scale[[1, 3]].tolist() == [0, 0]
            assert solution.value[[0, 2, 4]].all()

    def test_a_row_without_gradient_started_elsewhere_returns_to_zero(self, rng):
        A, g = weights(rng, 6, 0.5), np.zeros((2, 6))
        solution = deqcore.adjoint(linear(A), np.zeros((2, 6)), g, u0=rng.standard_normal((2, 6)))
        assert solution.success
        assert np.abs(solution.value).max() < 1e-8

    def test_one_axis_is_one_row(self, rng):
        A, g = weights(rng, 6, 0.5), rng.standard_normal(6)
        shapes = set()

        def vjp(z, v):
            shapes.add((z.shape, v.shape))
            return v @ A

        solution = deqcore.adjoint(vjp, np.zeros(6), g)
        assert shapes == {((6,), (6,))}
        assert solution.value.shape == (6,)
        np.testing.assert_allclose(solution.value, np.linalg.solve((np.eye(6) - A).T, g), rtol=1e-8)

    def test_more_axes_are_seen_as_they_are(self, rng):
        z, g = np.zeros((4, 2, 3)), rng.standard_normal((4, 2, 3))

        def vjp(z, v):
            assert z.shape == v.shape
            assert v.shape[1:] == (2, 3)
            return 0.5 * v

        np.testing.assert_allclose(deqcore.adjoint(vjp, z, g, retire=True).value, 2 * g, rtol=1e-9)

    def test_inputs_are_never_written_and_any_layout_will_do(self, dtype, rng):
        A = weights(rng, 6, 0.5).astype(dtype)
        z, g, u0 = (np.asfortranarray(rng.standard_normal((5, 6)).astype(dtype)) for _ in range(3))
        before = [a.copy() for a in (z, g, u0)]
        expected = deqcore.adjoint(linear(A), *(a.copy("C") for a in (z, g)), u0=u0.copy("C"))
        solution = deqcore.adjoint(linear(A), z, g, u0=u0)
        assert solution.value.tobytes() == expected.value.tobytes()
        for array, kept in zip((z, g, u0), before, strict=True):
            np.testing.assert_array_equal(array, kept)
        assert not any(np.shares_memory(solution.value, a) for a in (z, g, u0))


class TestRowData:
    @pytest.mark.parametrize("retire", [None, True, False, "halve"])
    def test_z_and_row_args_are_gathered_to_the_rows_asked_about(self, retire, rng):
        rows, width = 40, 5
        z = rng.standard_normal((rows, width))
        slopes = rng.uniform(0, 0.97, rows)
        label = np.arange(rows)
        g = rng.standard_normal((rows, width))
        counts = []

        def vjp(points, v, extra, slopes_now, label_now, rows):
            assert extra == "whole"
            assert not v.flags.writeable
            assert not points.flags.writeable
            np.testing.assert_array_equal(label_now, rows)
            np.testing.assert_array_equal(points, z[rows])
            np.testing.assert_array_equal(slopes_now, slopes[rows])
            counts.append(len(v))
            return slopes_now[:, None] * v

        solution = deqcore.adjoint(
            vjp, z, g, args=("whole",), row_args=(slopes, label), pass_rows=True, retire=retire,
            method="picard", max_steps=3000,
        )  # fmt: skip
        np.testing.assert_allclose(solution.value, g / (1 - slopes[:, None]), rtol=1e-7)
        assert solution.nfe == len(counts)
        assert solution.rows_asked == sum(counts)
        assert (min(counts) < rows) == (retire is not False)

    def test_counts_copies_of_answers_that_are_not_contiguous(self, rng):
        A, g = weights(rng, 6, 0.5), rng.standard_normal((5, 6))
        solution = deqcore.adjoint(lambda z, v: (A.T @ v.T).T, np.zeros((5, 6)), g)
        assert solution.copies == solution.nfe
        with pytest.raises(TypeError, match="vjp returned None"):
            deqcore.adjoint(lambda z, v: None, np.zeros((5, 6)), g)

    @pytest.mark.parametrize("method", ["gmres", "bicgstab", "anderson", "picard"])
    def test_trace_callback_looks_and_max_steps_are_as_forward(self, method, rng):
        A, g = weights(rng, 16, 0.9), rng.standard_normal((5, 16))
        seen = Recorder(lambda v: v @ A)
        looks = []
        solution = deqcore.adjoint(
            lambda z, v: seen(v), np.zeros((5, 16)), g, trace=True, callback=looks.append, look_every=2, max_steps=7,
            method=method, on_failure="return",
        )  # fmt: skip
        assert (solution.status == Status.out_of_steps).all()
        assert [p.steps for p in looks] == [2, 4, 6, 7]
        assert solution.nfe == len(seen.counts) == 7
        assert solution.trace.shape == (7, 5)
        image = g - g @ A
        # u0 = g: J' g. GMRES: the smallest residual along g. BiCGSTAB: the residual with the first alpha.
        along = {"gmres": image, "bicgstab": g}.get(method)
        step = 0 if along is None else ((g * along).sum(1) / (image * along).sum(1))[:, None]
        first = g @ A if along is None else g - step * image
        np.testing.assert_allclose(solution.trace[0], np.linalg.norm(first, axis=1), rtol=1e-12)


class TestFailure:
    def test_a_neumann_series_that_diverges_says_so(self, dtype, rng):
        g = rng.standard_normal((3, 4)).astype(dtype)
        options = {"method": "picard", "max_steps": 500}
        with pytest.raises(deqcore.ConvergenceError, match=r"adjoint: 3 of 3 rows did not converge: 3 diverged") as e:
            deqcore.adjoint(lambda z, v: v * dtype(1.5), np.zeros_like(g), g, **options)
        assert (e.value.solution.status == Status.diverged).all()
        layer = deqcore.maps.Dense(np.eye(4, dtype=dtype) * dtype(1.5), "identity")
        solution = deqcore.adjoint(
            layer, np.zeros_like(g), g, row_args=(np.zeros(4, dtype),), on_failure="return", **options
        )
        assert (solution.status == Status.diverged).all()

    def test_each_row_ends_in_its_own_way(self, rng):
        rates = np.array([0.5, 1.5, 0.999999, np.nan, 0.0, 0.9])
        g = rng.standard_normal((6, 3))
        solution = deqcore.adjoint(
            lambda z, v, rates: rates[:, None] * v,
            np.zeros((6, 3)), g, row_args=(rates,), method="picard", max_steps=300, on_failure="return",
        )  # fmt: skip
        assert [Status(s).name for s in solution.status] == [
            "converged",
            "diverged",
            "out_of_steps",
            "not_finite",
            "converged",
            "converged",
        ]
        good = [0, 4, 5]
        np.testing.assert_allclose(solution.value[good], g[good] / (1 - rates[good, None]), rtol=1e-8)
        assert np.isfinite(solution.value).all()

    def test_a_singular_system_is_never_called_solved(self, rng):
        """Eigenvalue 1 of J, and a right-hand side outside the range of I - J'."""
        Q, _ = np.linalg.qr(rng.standard_normal((8, 8)))
        A = (Q * np.array([1, 0.9, -0.9, 0.5, 0.1, 0, -0.3, 0.7])) @ Q.T
        g = np.tile(Q[:, 0] + 0.1 * Q[:, 3], (4, 1))
        for method in METHODS:
            for rtol in (1e-3, 1e-6, 1e-10):
                solution = deqcore.adjoint(
                    linear(A), np.zeros((4, 8)), g, method=method, rtol=rtol, max_steps=2000, on_failure="return"
                )
                assert (solution.status < 0).all()

    def test_anderson_solves_where_the_neumann_series_diverges(self, rng):
        A, g = 3 * weights(rng, 5, 1.0, symmetric=True), rng.standard_normal((2, 5))
        solution = deqcore.adjoint(linear(A), np.zeros((2, 5)), g, method=Anderson(history=10, growth=np.inf))
        np.testing.assert_allclose(solution.value, np.linalg.solve((np.eye(5) - A).T, g.T).T, rtol=1e-6)


class TestGradientsThroughASolve:
    """L = sum |z - target|^2 / 2 over the rows, z = a(W z + c)."""

    def gradients(self, layer, z0, c, target):
        z = deqcore.fixed_point(layer, z0, row_args=(c,), **TIGHT).value
        u = deqcore.adjoint(layer, z, z - target, row_args=(c,), **TIGHT).value
        return z, *layer.parameter_gradients(z, c, u)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("one_row", [False, True], ids=["per row", "one row"])
    @pytest.mark.parametrize("shape", [(1, 1), (7, 19), (33, 8)], ids=str)
    def test_agree_with_dense_solves_to_1e_9(self, shape, activation, one_row, rng):
        rows, width = shape
        W = weights(rng, width)
        c = rng.standard_normal((1 if one_row else rows, width)) + 0.5
        target = rng.standard_normal(shape)
        _, dW, dc = self.gradients(deqcore.maps.Dense(W, activation), np.zeros(shape), c, target)

        c_rows = np.broadcast_to(c, shape)
        z = dense_fixed_point(activation, W, c_rows)
        u = dense_adjoint(activation, W, z, c_rows, z - target)
        du = ACTIVATIONS[activation][1](z @ W.T + c_rows) * u
        assert relative_error(dW, du.T @ z) <= 1e-9
        assert dc.shape == c.shape
        assert relative_error(dc, du.sum(axis=0, keepdims=True) if one_row else du) <= 1e-9

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_agree_with_finite_differences(self, activation, rng):
        rows, width = 5, 11
        W, c, target = weights(rng, width), rng.standard_normal((rows, width)) + 0.5, rng.standard_normal((rows, width))
        _, dW, dc = self.gradients(deqcore.maps.Dense(W, activation), np.zeros((rows, width)), c, target)
        VW, Vc = rng.standard_normal(W.shape), rng.standard_normal(c.shape)

        def loss(h):
            layer = deqcore.maps.Dense(W + h * VW, activation)
            z = deqcore.fixed_point(
                layer, np.zeros((rows, width)), row_args=(c + h * Vc,), rtol=1e-14, max_steps=2000
            ).value
            return ((z - target) ** 2).sum() / 2

        h = 1e-5
        slope = (loss(h) - loss(-h)) / (2 * h)
        assert slope == pytest.approx((dW * VW).sum() + (dc * Vc).sum(), rel=1e-6, abs=1e-6)

    def test_of_a_callable_agree_with_the_native_ones(self, rng):
        W, c, target = weights(rng, 12), rng.standard_normal((6, 12)), rng.standard_normal((6, 12))
        layer = deqcore.maps.Dense(W)
        _, dW, dc = self.gradients(layer, np.zeros((6, 12)), c, target)
        z = deqcore.fixed_point(lambda z, c: np.tanh(z @ W.T + c), np.zeros((6, 12)), row_args=(c,), **TIGHT).value

        def vjp(z, v, c):
            return ((1 - np.tanh(z @ W.T + c) ** 2) * v) @ W

        u = deqcore.adjoint(vjp, z, z - target, row_args=(c,), **TIGHT).value
        du = (1 - z**2) * u
        assert relative_error(dW, du.T @ z) <= 1e-9
        assert relative_error(dc, du) <= 1e-9

    def test_in_float32_are_as_good_as_float32_allows(self, rng):
        W, c, target = weights(rng, 12), rng.standard_normal((6, 12)), rng.standard_normal((6, 12))
        W, c, target = (a.astype(np.float32) for a in (W, c, target))
        layer = deqcore.maps.Dense(W)
        z = deqcore.fixed_point(layer, np.zeros_like(c), row_args=(c,), rtol=1e-6).value
        u = deqcore.adjoint(layer, z, z - target, row_args=(c,), rtol=1e-6).value
        dW, _ = layer.parameter_gradients(z, c, u)
        _, dW64, _ = self.gradients(
            deqcore.maps.Dense(W.astype(float)), np.zeros((6, 12)), c.astype(float), target.astype(float)
        )
        assert relative_error(dW, dW64) <= 1e-4


def test_the_reference_jacobians_agree_with_finite_differences(rng):
    """The reference itself."""
    for activation, (a, _) in ACTIVATIONS.items():
        W, z, c, v = weights(rng, 9), *(rng.standard_normal((4, 9)) for _ in range(3))
        h = 1e-6
        difference = (a((z + h * v) @ W.T + c) - a((z - h * v) @ W.T + c)) / (2 * h)
        product = np.einsum("rij,rj->ri", dense_jacobians(activation, W, z, c), v)
        np.testing.assert_allclose(product, difference, rtol=1e-6, atol=1e-7)
