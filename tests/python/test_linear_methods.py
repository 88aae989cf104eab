# SPDX-License-Identifier: Apache-2.0
"""The exact linear methods against NumPy's dense solves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deqcore
from deqcore import GMRES, Direct, Status
from support.problems import dense_jacobians, matvec, relative_error

LINEAR = ["gmres", "bicgstab", "direct"]
EXACT = [*LINEAR, "anderson", "picard"]
MANY = {"max_steps": 3000}


def solved(A, b):
    return np.linalg.solve(A.astype(float), b.astype(float)[..., None])[..., 0]


def residual_of(A, b, x):
    A, b, x = (array.astype(float) for array in (A, b, x))
    return np.linalg.norm(b - matvec(x, A), axis=1)


def tanh_case(rng, gain, width, rows=2):
    """A Gaussian tanh map at its fixed points, or near them where there is more than one: W, c, z, g, J."""
    W = rng.standard_normal((width, width)) * gain / np.sqrt(width)
    c, g = rng.standard_normal((2, rows, width))
    z = deqcore.fixed_point(deqcore.maps.Dense(W), np.zeros_like(c), row_args=(c,), on_failure="return").value
    return W, c, z, g, dense_jacobians("tanh", W, z, c)


def vjp(z, v, c, W):
    return ((1 - np.tanh(z @ W.T + c) ** 2) * v) @ W


def errors(u, exact):
    return np.linalg.norm(u - exact, axis=1) / np.linalg.norm(exact, axis=1)


class TestOnTanhMaps:
    @pytest.mark.parametrize("method", EXACT)
    @pytest.mark.parametrize("gain", [0.5, 0.9, 1.2])
    @pytest.mark.parametrize("width", [1, 2, 7, 64, 400])
    def test_agree_with_dense_solves(self, width, gain, method, rng):
        W, c, z, g, J = tanh_case(rng, gain, width)
        radius = max(abs(np.linalg.eigvals(matrix)).max() for matrix in J)
        if method == "picard" and radius > 0.98:
            return
        A = np.eye(width) - np.swapaxes(J, 1, 2)
        exact = solved(A, g)
        inverse = 1 / np.linalg.svd(A, compute_uv=False)[:, -1]
        allowed = inverse * np.linalg.norm(g, axis=1) / np.linalg.norm(exact, axis=1)  # error for a residual of 1
        layer = deqcore.maps.Dense(W)
        layer32 = deqcore.maps.Dense(W.astype(np.float32))
        z32, g32, c32, W32 = (array.astype(np.float32) for array in (z, g, c, W))
        for solution in (
            deqcore.adjoint(layer, z, g, row_args=(c,), method=method, rtol=1e-10, **MANY),
            deqcore.adjoint(lambda *given: vjp(*given, W), z, g, row_args=(c,), method=method, rtol=1e-10, **MANY),
        ):
            assert (errors(solution.value, exact) <= np.maximum(1e-8, 1e-10 * allowed)).all()
        for solution in (
            deqcore.adjoint(layer32, z32, g32, row_args=(c32,), method=method, **MANY),
            deqcore.adjoint(lambda *given: vjp(*given, W32), z32, g32, row_args=(c32,), method=method, **MANY),
        ):
            assert (errors(solution.value, exact) <= np.maximum(1e-3, 1e-4 * allowed)).all()


@pytest.mark.parametrize("method", LINEAR)
class TestOnGeneralMatrices:
    @pytest.mark.parametrize("shape", [(1, 1), (5, 2), (3, 9), (4, 33), (1, 64)], ids=str)
    def test_agree_with_numpy(self, shape, method, dtype, rng):
        rows, width = shape
        A = (np.eye(width) + 0.4 / np.sqrt(width) * rng.standard_normal((rows, width, width))).astype(dtype)
        A *= 10.0 ** rng.integers(-3, 4, (rows, 1, 1)).astype(dtype)
        b = (rng.standard_normal(shape) * 10.0 ** rng.integers(-5, 6, (rows, 1))).astype(dtype)
        solution = deqcore.linear_solve(matvec, b, row_args=(A,), method=method)
        rtol = {np.float32: 1e-5, np.float64: 1e-10}[dtype]
        assert (errors(solution.value, solved(A, b)) <= 100 * rtol).all()
        assert (solution.residual <= rtol * solution.scale).all()
        np.testing.assert_allclose(solution.scale, np.linalg.norm(b.astype(float), axis=1), rtol=1e-6)

    @pytest.mark.parametrize("max_steps", [3, 8, 200])
    @pytest.mark.parametrize("norm", [2, np.inf])
    def test_the_residual_reported_is_that_of_the_value(self, norm, max_steps, method, dtype, rng):
        A = (np.eye(13) + 0.15 * rng.standard_normal((6, 13, 13)) * rng.uniform(0, 1, (6, 1, 1))).astype(dtype)
        b = rng.standard_normal((6, 13)).astype(dtype)
        if method == "direct" and max_steps < 14:
            max_steps = 14
        solution = deqcore.linear_solve(
            matvec, b, row_args=(A,), method=method, norm=norm, max_steps=max_steps, on_failure="return"
        )
        difference = b.astype(float) - matvec(solution.value.astype(float), A.astype(float))
        true = np.linalg.norm(difference, norm, axis=1)
        sizes = np.linalg.norm(A, 2, axis=(1, 2)) * np.linalg.norm(solution.value, axis=1) + solution.scale
        assert (abs(solution.residual - true) <= 20 * np.finfo(dtype).eps * sizes).all()
        ended = solution.status == Status.converged
        assert (solution.residual[ended] <= solution.tolerances.rtol * solution.scale[ended]).all()
        assert (solution.status[~ended] == Status.out_of_steps).all() or method == "bicgstab"
        assert (solution.steps <= max_steps).all()

    @given(rows=st.integers(1, 5), width=st.integers(1, 25), seed=st.integers(0, 2**32 - 1), single=st.booleans())
    def test_of_any_size(self, method, rows, width, seed, single):
        rng = np.random.default_rng(seed)
        dtype = np.float32 if single else np.float64
        A = (2 * np.eye(width) + rng.standard_normal((rows, width, width)) / np.sqrt(2 * width)).astype(dtype)
        b, x0 = rng.standard_normal((2, rows, width)).astype(dtype)
        for start in (None, x0):
            solution = deqcore.linear_solve(
                matvec, b, row_args=(A,), method=method, x0=start, max_steps=500, on_failure="return"
            )
            threshold = solution.tolerances.rtol * np.linalg.norm(b, axis=1)
            converged = solution.status == Status.converged
            assert converged.all() or method == "bicgstab"
            true = residual_of(A, b, solution.value)
            assert (true <= 1.05 * threshold)[converged].all()


class TestGMRES:
    def test_takes_no_more_products_than_the_width_and_one_to_measure(self, dtype, rng):
        for width in (1, 2, 7, 30):
            A = np.eye(width) + rng.standard_normal((3, width, width)) / np.sqrt(width)
            b = rng.standard_normal((3, width))
            solution = deqcore.linear_solve(
                matvec, b.astype(dtype), row_args=(A.astype(dtype),), rtol=1e-4, method=GMRES(restart=width)
            )
            assert (solution.steps <= width + 1).all()

    def test_restarts_where_the_basis_is_short(self, rng):
        A = 2 * np.eye(50) + rng.standard_normal((4, 50, 50)) / np.sqrt(50)
        b = rng.standard_normal((4, 50))
        steps = []
        for restart in (1, 5, 20, 50, 500):
            solution = deqcore.linear_solve(matvec, b, row_args=(A,), method=GMRES(restart=restart))
            assert relative_error(solution.value, solved(A, b)) < 1e-8
            steps.append(solution.steps.max())
        assert steps[0] > steps[1] >= steps[2] >= steps[3] == steps[4]
        short, long = (
            deqcore.linear_solve(matvec, b, row_args=(A,), method=GMRES(restart=m)).scratch_bytes for m in (5, 45)
        )
        assert long - short >= 40 * b.nbytes

    def test_of_a_permutation_needs_every_vector(self, rng):
        """The residual does not fall before the last step: a shorter basis learns nothing, and says so."""
        b = np.eye(1, 20)
        shift = lambda v: np.roll(v, 1, axis=1)  # noqa: E731
        solution = deqcore.linear_solve(shift, b, method=GMRES(restart=20))
        assert solution.steps.tolist() == [21]
        np.testing.assert_allclose(solution.value, np.roll(b, -1, axis=1), atol=1e-14)
        short = deqcore.linear_solve(shift, b, method=GMRES(restart=19), on_failure="return")
        assert short.status.tolist() == [Status.breakdown]
        assert "raise restart=" in short.explain()


class TestDirect:
    def test_takes_a_product_per_column_and_one_for_the_residual(self, dtype, rng):
        A = (np.eye(12) + 0.1 * rng.standard_normal((5, 12, 12))).astype(dtype)
        b = rng.standard_normal((5, 12)).astype(dtype)
        solution = deqcore.linear_solve(matvec, b, row_args=(A,), method=Direct(), max_steps=13)
        assert solution.steps.tolist() == [13] * 5
        assert solution.nfe == 13
        assert solution.rows_asked == 65

    def test_pivots(self, rng):
        A = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
        b = rng.standard_normal((2, 3))
        x = deqcore.linear_solve(lambda v: v @ A.T, b, method="direct").value
        np.testing.assert_allclose(x, np.linalg.solve(A, b.T).T, rtol=1e-14)

    def test_refuses_wide_rows_few_steps_and_preconditioners(self):
        b = np.ones((2, 9))
        for call in (
            lambda **given: deqcore.linear_solve(lambda v: v, b, **given),
            lambda **given: deqcore.adjoint(lambda z, v: v / 2, b, b, **given),
            lambda **given: deqcore.tangent(deqcore.maps.Dense(np.eye(9) / 2), b, b, row_args=(b,), **given),
        ):
            with pytest.raises(ValueError, match=r"width: 9 given; Direct factors rows of at most 8 \(max_width\)"):
                call(method=Direct(max_width=8))
            with pytest.raises(ValueError, match=r"^max_steps: 9 given; Direct\(\) on rows of width 9 needs at least"):
                call(method=Direct(), max_steps=9)
            assert call(method=Direct(max_width=9), max_steps=10).success
        with pytest.raises(ValueError, match="preconditioner: Direct takes none"):
            deqcore.linear_solve(lambda v: v, b, preconditioner=lambda v: v, method=Direct())
