# SPDX-License-Identifier: Apache-2.0
"""Preconditioners: fewer products with a good one, never a wrong answer with a bad one."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import Status
from support.problems import Asked, matvec, relative_error, systems


@pytest.mark.parametrize("method", ["gmres", "bicgstab"])
class TestAPreconditioner:
    def scaled(self, rng, rows=5, width=40):
        """D (I + small), D over six orders of magnitude: the inverse of D makes it easy."""
        easy, b, _ = systems(rng, rows, width)
        D = 10.0 ** rng.uniform(-3, 3, (rows, width))
        b *= D
        return D[:, :, None] * easy, b, D

    def test_makes_products_fall(self, method, rng):
        A, b, D = self.scaled(rng)
        options = {"row_args": (A, D), "method": method, "rtol": 1e-8, "max_steps": 400, "on_failure": "return"}
        plain = deqcore.linear_solve(lambda v, A, D: matvec(v, A), b, **options)
        asked = Asked(lambda v, A, D: v / D)
        solution = deqcore.linear_solve(lambda v, A, D: matvec(v, A), b, preconditioner=asked, **options)
        assert solution.success
        assert solution.nfe < 0.75 * plain.nfe
        assert abs(len(asked.seen) - solution.nfe) <= 1  # about once per product
        true = np.linalg.norm(b - matvec(solution.value, A), axis=1)
        np.testing.assert_allclose(solution.residual, true, atol=1e-12 * np.linalg.norm(b, axis=1).max())
        assert (true <= 1.001e-8 * np.linalg.norm(b, axis=1)).all()

    def test_the_inverse_itself_ends_after_one_step(self, method, dtype, rng):
        A, b, x = systems(rng, 4, 9, dtype=dtype)
        inverse = np.linalg.inv(A)
        solution = deqcore.linear_solve(
            lambda v, A, inverse: matvec(v, A), b, row_args=(A, inverse), method=method,
            preconditioner=lambda v, A, inverse: matvec(v, inverse), rtol=1e-5,
        )  # fmt: skip
        assert (solution.steps <= 3).all()
        assert relative_error(solution.value, x) < 1e-4

    @pytest.mark.parametrize("how", ["random", "negative", "rotating"])
    def test_a_bad_one_costs_products_and_no_truth(self, how, method, dtype, rng):
        A, b, x = systems(rng, 4, 12, dtype=dtype)
        Q = np.linalg.qr(rng.standard_normal((12, 12)))[0].astype(dtype)
        calls = [0]

        def bad(v, A):
            calls[0] += 1
            if how == "rotating":  # another one at each call
                return np.roll(v, calls[0], axis=1)
            return -3 * v if how == "negative" else v @ Q

        solution = deqcore.linear_solve(
            matvec, b, row_args=(A,), preconditioner=bad, method=method, rtol=1e-4, max_steps=300, on_failure="return"
        )
        converged = solution.status == Status.converged
        assert converged.all() or method == "bicgstab"
        assert relative_error(solution.value[converged], x[converged]) < 1e-3

    def test_that_answers_nan_ends_the_row_as_not_finite(self, method, dtype, rng):
        A, b, x = systems(rng, 4, 12, dtype=dtype)
        for wrong in (np.nan, np.inf):
            bad_row = np.arange(4) == 2

            def preconditioner(v, A, bad, wrong=wrong):
                return np.where(bad[:, None], dtype(wrong), v)

            with np.errstate(invalid="ignore"):
                solution = deqcore.linear_solve(
                    lambda v, A, bad: matvec(v, A), b, row_args=(A, bad_row), preconditioner=preconditioner,
                    method=method, on_failure="return",
                )  # fmt: skip
            assert solution.status.tolist() == [0, 0, Status.not_finite, 0]
            assert np.isfinite(solution.value).all()
            assert relative_error(solution.value[~bad_row], x[~bad_row]) < 1e-3

    def test_errors_in_it_come_out_unchanged_and_its_answers_are_checked(self, method, rng):
        A, b, _ = systems(rng, 4, 12)
        for error in (RuntimeError("mine"), StopIteration(3), KeyboardInterrupt()):

            def fails(v, A, error=error):
                raise error

            with pytest.raises(type(error)) as caught:
                deqcore.linear_solve(matvec, b, row_args=(A,), preconditioner=fails, method=method)
            assert caught.value is error
        for wrong, kind, message in (
            (lambda v, A: None, TypeError, r"^preconditioner returned None; expected an array of shape \(4, 12\)"),
            (lambda v, A: v[:2], ValueError, r"^preconditioner returned array of shape \(2, 12\)"),
            (lambda v, A: v.astype(np.float32), TypeError, r"^preconditioner .*float32; expected dtype float64"),
        ):
            with pytest.raises(kind, match=message):
                deqcore.linear_solve(matvec, b, row_args=(A,), preconditioner=wrong, method=method)
        # a copy where one is needed: the question itself, a transposed array
        for right in (lambda v, A: v, lambda v, A: np.asfortranarray(v)):
            solution = deqcore.linear_solve(matvec, b, row_args=(A,), preconditioner=right, method=method)
            assert solution.success
            assert solution.copies >= solution.nfe - 1

    def test_none_and_the_identity_give_the_same_steps(self, method, rng):
        A, b, _ = systems(rng, 4, 12)
        plain = deqcore.linear_solve(matvec, b, row_args=(A,), method=method)
        same = deqcore.linear_solve(matvec, b, row_args=(A,), preconditioner=lambda v, A: v.copy(), method=method)
        assert (plain.steps + 1).tolist() == same.steps.tolist()  # the first shows the size of A
        np.testing.assert_allclose(plain.value, same.value, rtol=1e-12)
