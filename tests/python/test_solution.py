# SPDX-License-Identifier: Apache-2.0
"""What a solve returns, and how it speaks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import deqcore
from deqcore import Status


def solved(rows=5, width=4, dtype=np.float64, **options):
    return deqcore.fixed_point(np.cos, np.zeros((rows, width), dtype), **options)


def mixed():
    """Rows that end in four ways."""
    rates = np.array([0.5, 2.0, 0.999999, np.nan, 0.5, 1.7])

    return deqcore.fixed_point(
        lambda z, rate: rate[:, None] * z + 1,
        np.ones((6, 3)),
        row_args=(rates,),
        method="picard",
        max_steps=60,
        on_failure="return",
    )


class TestFields:
    def test_have_the_documented_types_and_shapes(self, dtype):
        solution = solved(dtype=dtype, trace=True)
        per_row = {
            "residual": np.float64,
            "scale": np.float64,
            "status": np.int8,
            "steps": np.int32,
            "rejected": np.int32,
            "singular": np.int32,
        }
        for name, kind in per_row.items():
            field = getattr(solution, name)
            assert type(field) is np.ndarray, name
            assert field.dtype == kind, name
            assert field.shape == (5,), name
        assert solution.value.dtype == dtype
        assert solution.value.shape == (5, 4)
        assert solution.trace.dtype == np.float64
        assert type(solution.nfe) is int
        assert type(solution.rows_asked) is int
        assert type(solution.copies) is int
        assert type(solution.scratch_bytes) is int
        assert type(solution.success) is bool
        assert type(solution.message) is str
        assert solution.retire in ("on", "off", "halve")

    def test_are_the_same_for_a_native_solve(self, dtype):
        layer = deqcore.maps.Dense(np.eye(4, dtype=dtype) * dtype(0.5))
        native = deqcore.fixed_point(layer, np.zeros((5, 4), dtype), row_args=(np.ones(4, dtype),))
        plain = solved(dtype=dtype)
        for field in dataclasses.fields(native):
            assert type(getattr(native, field.name)) is type(getattr(plain, field.name)), field.name

    def test_success_is_a_plain_bool_in_every_case(self):
        assert solved().success is True
        assert mixed().success is False

    def test_aliases_are_scipys(self):
        solution = solved()
        assert solution.x is solution.value
        assert solution.nit is solution.steps
        assert solution.nfev == solution.nfe

    def test_method_names_each_row(self):
        assert solved(method="picard").method.tolist() == ["picard"] * 5

    def test_cannot_be_set(self):
        solution = solved()
        for name in ("value", "status", "success", "x", "nit", "nfev", "message", "method"):
            with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
                setattr(solution, name, None)

    def test_solutions_compare_by_identity(self):
        """Comparing arrays would be ambiguous."""
        solution = solved()
        assert solution == solution
        assert solution != solved()

    def test_tolerances_and_progress_are_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            solved().tolerances.rtol = 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            deqcore.Progress(1, 2, 3.0).steps = 4


class TestStatuses:
    def test_are_those_of_the_rows(self):
        assert [Status(s).name for s in mixed().status] == [
            "converged",
            "diverged",
            "out_of_steps",
            "not_finite",
            "converged",
            "diverged",
        ]

    def test_zero_is_success_and_failures_are_negative(self):
        assert Status.converged == 0
        no_failures = (Status.converged, Status.approximate, Status.finished)
        assert all(status >= 0 for status in no_failures)
        assert all(status < 0 for status in Status if status not in no_failures)


class TestWords:
    def test_message_of_a_success(self):
        assert solved().message == "fixed_point: all 5 rows converged"
        assert solved(rows=1).message == "fixed_point: converged"

    def test_message_of_a_failure_names_the_kinds_and_the_rows(self):
        message = mixed().message
        assert message.startswith("fixed_point: 4 of 6 rows did not converge: ")
        assert "1 not_finite (row 3)" in message
        assert "2 diverged (rows 1, 5)" in message
        assert "1 out_of_steps (row 2)" in message
        assert "method picard" in message
        assert "max_steps 60" in message
        assert "rtol 1.5e-08" in message
        assert "\n" not in message

    def test_message_lists_few_rows_of_many(self):
        solution = deqcore.fixed_point(lambda z: z + 1, np.zeros((5000, 1)), max_steps=2, on_failure="return")
        assert "5000 out_of_steps (rows 0, 1, 2, 3, 4, ...)" in solution.message
        assert len(solution.message) < 300

    def test_message_names_the_solver(self):
        one = np.ones((1, 2))
        assert deqcore.adjoint(lambda z, v: v * 0.5, one, one).message == "adjoint: converged"

    def test_repr_is_short_and_says_what_is_inside(self):
        for solution in (solved(rows=500, width=50), mixed()):
            text = repr(solution)
            assert text.startswith("<Solution fixed_point: ")
            assert len(text) < 400
            assert "\n" not in text
        assert "float64 (500, 50)" in repr(solved(rows=500, width=50))

    def test_explain_says_what_to_try_for_every_status(self):
        text = mixed().explain()
        assert text.startswith(mixed().message)
        assert "out_of_steps: raise max_steps" in text
        assert "not_finite: " in text
        assert "Steps per row: 1 to 60" in text
        for status in Status:
            if status >= 0:
                continue
            made = dataclasses.replace(solved(), status=np.full(5, int(status), np.int8))
            assert f"{status.name}: " in made.explain(), status

    def test_explain_counts_the_steps_given_up(self):
        rng = np.random.default_rng(0)
        A = 1.5 * np.linalg.qr(rng.standard_normal((20, 20)))[0]
        solution = deqcore.fixed_point(
            lambda z: np.sin(3 * z @ A) + 1, np.ones((4, 20)), max_steps=60, on_failure="return",
            method=deqcore.Anderson(growth=1.01),
        )  # fmt: skip
        assert solution.rejected.sum() > 0
        assert f"{solution.rejected.sum()} because the residual grew" in solution.explain()

    def test_all_rows_not_finite_at_once_can_be_described(self):
        solution = deqcore.fixed_point(lambda z: z * np.nan, np.ones((2, 3)), on_failure="return")
        assert np.isnan(solution.residual).all()
        np.testing.assert_array_equal(solution.value, np.ones((2, 3)))
        assert "2 not_finite" in repr(solution)
        assert "not_finite" in solution.explain()

    def test_nothing_is_printed(self, capfd):
        mixed()
        solved(trace=True, callback=lambda progress: None)
        with pytest.raises(deqcore.ConvergenceError):
            deqcore.fixed_point(lambda z: z + 1, np.zeros((1, 1)), max_steps=2)
        assert capfd.readouterr() == ("", "")


class TestTheError:
    def test_says_the_message_where_the_solution_is_and_what_else_to_do(self):
        with pytest.raises(deqcore.ConvergenceError) as caught:
            deqcore.fixed_point(lambda z: z + 1, np.zeros((1, 3)), max_steps=4)
        text = str(caught.value)
        assert text.startswith(caught.value.solution.message)
        for word in (".solution", ".explain()", "on_failure="):
            assert word in text
        assert math.isclose(caught.value.solution.residual[0], math.sqrt(3))
