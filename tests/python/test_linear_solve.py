# SPDX-License-Identifier: Apache-2.0
"""linear_solve: what the products are asked, starting points, traces, and early ends."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import GMRES, Status
from support.problems import Asked, matvec, relative_error, systems

LINEAR = ["gmres", "bicgstab", "direct"]


@pytest.mark.parametrize("method", LINEAR)
class TestStart:
    def test_from_the_solution_takes_a_product_for_the_size_of_A_and_one_to_measure(self, method, rng):
        A, b, x = systems(rng, 4, 9)
        asked = Asked(matvec)
        solution = deqcore.linear_solve(asked, b, row_args=(A,), x0=x, method=method)
        assert solution.nfe == 2
        np.testing.assert_array_equal(asked.seen[1], x)
        assert solution.value.tobytes() == x.tobytes()

    def test_a_start_where_A_is_nearly_singular_is_not_believed(self, method):
        A = np.array([[-0.8383885622024536, 0.6431299448013306], [-1.4571253061294556, 1.1177643537521362]], np.float32)
        b, x0 = np.array([[1, 0]], np.float32), np.array([[16371203.0, 21341612.0]], np.float32)
        solution = deqcore.linear_solve(lambda v: v @ A.T, b, x0=x0, method=method, on_failure="return")
        assert solution.status[0] < 0

    def test_from_nearby_takes_fewer(self, method, rng):
        A, b, x = systems(rng, 4, 60)
        cold = deqcore.linear_solve(matvec, b, row_args=(A,), method=method)
        warm = deqcore.linear_solve(matvec, b, row_args=(A,), x0=x * (1 + 1e-6), method=method)
        assert relative_error(warm.value, x) < 1e-8
        assert warm.nfe < cold.nfe or method == "direct"

    def test_a_zero_right_side_is_zero_exactly(self, method, dtype, rng):
        A, b, _ = systems(rng, 5, 6, dtype=dtype)
        b[[1, 3]] = 0
        for x0 in (None, rng.standard_normal((5, 6)).astype(dtype)):
            solution = deqcore.linear_solve(matvec, b, row_args=(A,), x0=x0, method=method)
            assert solution.success
            assert not solution.value[[1, 3]].any()
            assert solution.residual[[1, 3]].tolist() == [0, 0]
            assert solution.scale[[1, 3]].tolist() == [0, 0]
            assert solution.steps[[1, 3]].tolist() == ([1, 1] if x0 is None else [2, 2])

    def test_inputs_are_never_written_and_any_layout_will_do(self, method, dtype, rng):
        A, b, _ = systems(rng, 5, 6, dtype=dtype)
        x0 = rng.standard_normal((5, 6)).astype(dtype)
        expected = deqcore.linear_solve(matvec, b, row_args=(A,), x0=x0, method=method)
        other, start = np.asfortranarray(b), np.asfortranarray(x0)
        for array in (other, start):
            array.flags.writeable = False
        solution = deqcore.linear_solve(matvec, other, row_args=(A,), x0=start, method=method)
        assert solution.value.tobytes() == expected.value.tobytes()
        assert not np.shares_memory(solution.value, other)


@pytest.mark.parametrize("method", LINEAR)
class TestQuestions:
    @pytest.mark.parametrize("retire", [None, True, False, "halve"])
    @pytest.mark.parametrize("with_preconditioner", [False, True])
    def test_row_args_are_gathered_to_the_rows_asked_about(self, with_preconditioner, retire, method, rng):
        rows, width = 40, 8
        A, b, x = systems(rng, rows, width, spread=rng.uniform(0, 1, (rows, 1, 1)))
        x0 = np.where(np.arange(rows)[:, None] % 2, x, 0)  # every second row is done at once
        counts = []

        def product(v, extra, A_now, label_now, rows):
            assert extra == "whole"
            assert not v.flags.writeable
            assert rows.dtype == np.int32
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(label_now, rows)
            np.testing.assert_array_equal(A_now, A[rows])
            counts.append(len(v))
            return matvec(v, A_now)

        def identity(v, extra, A_now, label_now, rows):
            np.testing.assert_array_equal(label_now, rows)
            return v.copy()

        if with_preconditioner and method == "direct":
            return
        solution = deqcore.linear_solve(
            product, b, args=("whole",), row_args=(A, np.arange(rows)), pass_rows=True, x0=x0, retire=retire,
            preconditioner=identity if with_preconditioner else None, method=method,
        )  # fmt: skip
        np.testing.assert_allclose(solution.value, x, rtol=1e-7, atol=1e-9)
        assert solution.nfe == len(counts) == solution.steps.max()
        assert solution.rows_asked == sum(counts)
        assert (min(counts) < rows) == (retire is not False)

    def test_one_axis_is_one_row_and_more_axes_are_seen_as_they_are(self, method, dtype, rng):
        A, b, x = systems(rng, 1, 6, dtype=dtype)
        solution = deqcore.linear_solve(lambda v: A[0] @ v, b[0], method=method)
        assert solution.value.shape == (6,)
        assert relative_error(solution.value, x[0]) < 1e-4
        shapes = set()

        def product(v):
            shapes.add(v.shape)
            return (v.reshape(-1, 6) @ A[0].T).reshape(v.shape)

        b = rng.standard_normal((4, 2, 3)).astype(dtype)
        solution = deqcore.linear_solve(product, b, method=method)
        assert shapes == {(4, 2, 3)}
        exact = np.linalg.solve(A[0], b.reshape(4, 6).T.astype(float)).T
        assert relative_error(solution.value, exact.reshape(4, 2, 3)) < 1e-4

    def test_the_trace_ends_with_the_residual(self, method, rng):
        A, b, _ = systems(rng, 6, 20, spread=rng.uniform(0, 1, (6, 1, 1)))
        solution = deqcore.linear_solve(matvec, b, row_args=(A,), method=method, trace=True)
        assert solution.trace.shape == (solution.steps.max(), 6)
        for i, steps in enumerate(solution.steps):
            assert solution.trace[steps - 1, i] == solution.residual[i]
            assert np.isnan(solution.trace[steps:, i]).all()
        if method == "gmres":
            assert not (solution.trace[1:] > 1.01 * solution.trace[:-1] + 1e-13).any()
            assert (solution.trace[0] <= solution.scale).all()

    @pytest.mark.parametrize("look_every", [1, 3])
    def test_the_callback_hears_of_looks_and_can_stop(self, look_every, method, rng):
        A, b, _ = systems(rng, 4, 15, spread=0.9)
        asked, looks = Asked(matvec), []

        def callback(progress):
            looks.append(progress)
            if len(looks) == 2:
                raise StopIteration

        solution = deqcore.linear_solve(
            asked, b, row_args=(A,), method=method, callback=callback, look_every=look_every, rtol=1e-14
        )
        assert (solution.status == Status.cancelled).all()
        assert [look.steps for look in looks] == [look_every, 2 * look_every]
        assert all(look.running == 4 for look in looks)
        assert solution.nfe == len(asked.seen) == 2 * look_every
        np.testing.assert_array_equal(solution.residual, solution.scale)  # nothing was measured since 0
        assert not solution.value.any()

    def test_the_step_limit_is_exact(self, method, rng):
        A, b, _ = systems(rng, 4, 10, spread=0.9)
        for max_steps in (11,) if method == "direct" else (1, 2, 5):
            for look_every in (1, 4):
                asked = Asked(matvec)
                solution = deqcore.linear_solve(
                    asked, b, row_args=(A,), method=method, max_steps=max_steps, look_every=look_every,
                    rtol=1e-15, on_failure="return",
                )  # fmt: skip
                assert solution.nfe == len(asked.seen) == max_steps
                assert (solution.steps <= max_steps).all()
                assert (solution.residual <= solution.scale).all()


def test_gmres_cut_off_returns_the_best_it_measured(rng):
    A, b, _ = systems(rng, 4, 30, spread=0.9)
    before = np.inf
    for max_steps in (2, 5, 9, 14):
        solution = deqcore.linear_solve(
            matvec, b, row_args=(A,), max_steps=max_steps, method=GMRES(), on_failure="return"
        )
        np.testing.assert_allclose(solution.residual, np.linalg.norm(b - matvec(solution.value, A), axis=1))
        assert (solution.residual < before).all()
        before = solution.residual
