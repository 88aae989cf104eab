# SPDX-License-Identifier: Apache-2.0
"""How rows of a linear solve end that have no answer, or none that can be found."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import BiCGSTAB, Status
from support.problems import matvec

LINEAR = ["gmres", "bicgstab", "direct"]


def residual_of(A, b, x):
    A, b, x = (array.astype(float) for array in (A, b, x))
    return np.linalg.norm(b - matvec(x, A), axis=1)


@pytest.mark.parametrize("method", LINEAR)
class TestWithoutAnAnswer:
    def test_a_singular_system_with_solutions_is_solved_or_given_up(self, method, dtype, rng):
        """b = A x for a random x: a residual of zero exists."""
        left, right = (np.linalg.qr(rng.standard_normal((6, 9, 9)))[0] for _ in range(2))
        A = (left @ (np.linspace(0, 1, 9)[:, None] * right)).astype(dtype)
        b = matvec(rng.standard_normal((6, 9)).astype(dtype), A)
        solution = deqcore.linear_solve(matvec, b, row_args=(A,), method=method, rtol=1e-4, on_failure="return")
        converged = solution.status == Status.converged
        assert (residual_of(A, b, solution.value) <= 1.05e-4 * solution.scale)[converged].all()
        assert np.isfinite(solution.value).all()
        if method == "gmres":
            assert converged.any()

    def test_a_singular_system_without_solutions_is_never_called_solved(self, method, dtype, rng):
        Q = np.linalg.qr(rng.standard_normal((6, 9, 9)))[0]
        A = (Q @ (np.linspace(0, 1, 9)[:, None] * np.swapaxes(Q, 1, 2))).astype(dtype)
        b = (Q[:, :, 0] + 0.1 * Q[:, :, 4]).astype(dtype)  # most of it outside the range
        for rtol in (1e-2, 1e-6):
            solution = deqcore.linear_solve(matvec, b, row_args=(A,), method=method, rtol=rtol, on_failure="return")
            assert (solution.status < 0).all()
            assert np.isfinite(solution.value).all()

    def test_a_zero_matrix_breaks_down(self, method, dtype):
        b = np.ones((3, 4), dtype)
        solution = deqcore.linear_solve(lambda v: 0 * v, b, method=method, on_failure="return")
        assert (solution.status == Status.breakdown).all()
        assert "breakdown" in solution.explain()
        with pytest.raises(deqcore.ConvergenceError, match="3 breakdown"):
            deqcore.linear_solve(lambda v: 0 * v, b, method=method)

    def test_a_tolerance_below_the_noise_stalls(self, method, dtype, rng):
        """Rounding of A x is eps |A| |x|, far above rtol |b| where the solution is long."""
        left, right = (np.linalg.qr(rng.standard_normal((4, 20, 20)))[0] for _ in range(2))
        A = (left @ (np.logspace(0, -4, 20)[:, None] * right)).astype(dtype)
        b = rng.standard_normal((4, 20)).astype(dtype)
        rtol = 5 * np.finfo(dtype).eps
        solution = deqcore.linear_solve(
            matvec, b, row_args=(A,), method=method, rtol=rtol, max_steps=2000, on_failure="return"
        )
        assert (solution.status != Status.converged).all()
        assert (solution.status == Status.stalled).all() or method == "bicgstab"
        noise = np.finfo(dtype).eps * np.linalg.norm(solution.value, axis=1)
        if method != "bicgstab":
            assert (solution.residual <= 50 * noise).all()
        assert "rounding noise" in solution.explain() or method == "bicgstab"


def test_bicgstab_gives_up_on_a_skew_matrix_where_gmres_does_not(rng):
    S = rng.standard_normal((6, 6))
    S, b = S - S.T, rng.standard_normal((2, 6))
    solution = deqcore.linear_solve(lambda v: v @ S.T, b, method=BiCGSTAB(), on_failure="return")
    assert (solution.status == Status.breakdown).all()
    assert "use GMRES" in solution.explain()
    x = deqcore.linear_solve(lambda v: v @ S.T, b).value
    np.testing.assert_allclose(x, np.linalg.solve(S, b.T).T, rtol=1e-7)


def test_a_row_whose_residual_grew_before_its_steps_ran_out_is_out_of_steps(rng):
    """BiCGSTAB's residual does not fall at every step; cut off above |b|, the method could still go on."""
    A = np.eye(13) + 0.3 * rng.standard_normal((200, 13, 13))
    b = rng.standard_normal((200, 13))
    more = deqcore.linear_solve(matvec, b, row_args=(A,), method="bicgstab", max_steps=200, on_failure="return")
    for max_steps in (3, 8):
        cut = deqcore.linear_solve(
            matvec, b, row_args=(A,), method="bicgstab", max_steps=max_steps, on_failure="return"
        )
        went_on = (more.status == Status.converged) & (more.steps > max_steps)
        assert went_on.sum() > 50
        assert (cut.status[went_on] == Status.out_of_steps).all()


@pytest.mark.parametrize("method", LINEAR)
def test_each_row_ends_in_its_own_way(method, rng):
    width = 6
    good = np.eye(width) + 0.1 * rng.standard_normal((width, width))
    singular, unknown = good.copy(), good.copy()
    singular[:, 0] = singular[0] = 0
    unknown[2, 3] = np.nan
    A = np.stack([good, singular, unknown, np.zeros_like(good), 2 * np.eye(width), 3 * good.T, good])
    b = rng.standard_normal((7, width))
    b[6] = 0
    solution = deqcore.linear_solve(
        matvec, b, row_args=(A,), method=method, max_steps=width + 2 if method == "direct" else 5, on_failure="return"
    )
    names = [Status(code).name for code in solution.status]
    assert names[2:5] == ["not_finite", "breakdown", "converged"]
    assert names[6] == "converged"
    if method == "direct":
        assert names == ["converged", "breakdown", "not_finite", "breakdown", "converged", "converged", "converged"]
    else:
        assert names[5] == "out_of_steps"
        assert names[1] != "converged"
    assert np.isfinite(solution.value).all()
    np.testing.assert_allclose(solution.value[4], b[4] / 2, rtol=1e-9)
    assert not solution.value[6].any()
    failed = [name for name in names if name != "converged"]
    assert f"{len(failed)} of 7 rows did not converge" in solution.message
    assert all(f"{failed.count(name)} {name} (row" in solution.message for name in failed)
