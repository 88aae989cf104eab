# SPDX-License-Identifier: Apache-2.0
"""Solves on CuPy arrays: the same answers, statuses and errors as on NumPy arrays, on the caller's stream."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import deqcore
from deqcore import Anderson, Picard, Status
from support.problems import weights

ROWS, WIDTH = 9, 40
CLOSE = {np.float32: 2e-3, np.float64: 1e-6}  # two solves to the default tolerance


@pytest.fixture
def problem(cp, rng, dtype):
    """W and x on both sides: z = tanh(W z + x), rows of different speed."""
    W = weights(rng, WIDTH, 0.9).astype(dtype)
    x = rng.standard_normal((ROWS, WIDTH)).astype(dtype)
    return W, x, cp.asarray(W), cp.asarray(x)


def layer(xp, W):
    return lambda z, x: xp.tanh(z @ W.T + x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"look_every": 1},
        {"look_every": 3, "retire": "halve"},
        {"retire": False},
        {"method": "picard"},
        {"method": Anderson(history=3, beta=0.8)},
        {"norm": np.inf},
        {"scale": 3.0},
        {"scale": np.linspace(1, 2, ROWS)},
        {"trace": True},
    ],
    ids=str,
)
def test_a_solve_is_that_of_numpy_to_rounding(cp, problem, dtype, options):
    W, x, W_device, x_device = problem
    host = deqcore.fixed_point(layer(np, W), np.zeros((ROWS, WIDTH), dtype), row_args=(x,), **options)
    device = deqcore.fixed_point(layer(cp, W_device), cp.zeros((ROWS, WIDTH), dtype), row_args=(x_device,), **options)
    assert device.success
    for name in ("value", "residual", "scale", "status", "steps", "rejected", "singular"):
        assert isinstance(getattr(device, name), cp.ndarray), name
    assert device.value.dtype == dtype
    np.testing.assert_allclose(device.value.get(), host.value, atol=CLOSE[dtype])
    assert abs(int(device.steps.max()) - int(host.steps.max())) <= 2
    true = np.linalg.norm(layer(np, W)(device.value.get(), x) - device.value.get(), axis=1)
    if options.get("norm") is None:
        np.testing.assert_allclose(device.residual.get(), true, rtol=0.05, atol=50 * np.finfo(dtype).eps)
    if "trace" in options:
        assert device.trace.shape == (int(device.steps.max()), ROWS)
        last = device.trace.get()[device.steps.get() - 1, np.arange(ROWS)]
        np.testing.assert_array_equal(last, device.residual.get())


def test_the_same_bits_alone_in_a_batch_and_however_it_is_looked_at(cp, rng, dtype):
    slopes = cp.asarray(rng.uniform(0.1, 0.97, (ROWS, 1)).astype(dtype))
    x = cp.asarray(rng.standard_normal((ROWS, 133)).astype(dtype))

    def f(z, slopes, x):  # element by element, so that a row's own bits do not depend on the batch
        return slopes * cp.tanh(z) + x

    def solve(rows=slice(None), **options):
        start = cp.zeros((len(x[rows]), 133), dtype)
        return deqcore.fixed_point(f, start, row_args=(slopes[rows], x[rows]), **options)

    together = solve()
    for other in (solve(), solve(look_every=1), solve(look_every=7), solve(retire=False), solve(retire="halve")):
        np.testing.assert_array_equal(other.value.get(), together.value.get())
        np.testing.assert_array_equal(other.steps.get(), together.steps.get())
        np.testing.assert_array_equal(other.residual.get(), together.residual.get())
    for row in (0, 4, ROWS - 1):
        alone = solve(slice(row, row + 1))
        np.testing.assert_array_equal(alone.value.get()[0], together.value.get()[row])


@pytest.mark.parametrize("shape", [(7,), (1, 1), (3, 2, 5), (33, 1), (2, 1025)], ids=str)
def test_any_shape_is_solved(cp, rng, dtype, shape):
    x = rng.standard_normal(shape).astype(dtype)
    x_device, half = cp.asarray(x), dtype(0.5)
    solution = deqcore.fixed_point(lambda z: z * half + x_device, cp.zeros(shape, dtype), retire=False)
    assert solution.value.shape == shape
    np.testing.assert_allclose(solution.value.get(), 2 * x, rtol=5e-3 if dtype is np.float32 else 1e-6, atol=1e-3)


def test_rows_leave_and_their_data_with_them(cp, rng):
    slopes = np.array([0.1, 0.95, 0.2, 0.9, 0.3])[:, None]
    x = cp.asarray(rng.standard_normal((5, 8)))
    asked = []

    def f(z, slopes, x, *, rows):
        asked.append(rows.get().tolist())
        assert rows.dtype == np.int32
        return slopes * z + x

    options = {"method": "picard", "look_every": 1, "max_steps": 1000, "rtol": 1e-6}
    solution = deqcore.fixed_point(f, cp.zeros((5, 8)), row_args=(cp.asarray(slopes), x), pass_rows=True, **options)
    assert asked[0] == [0, 1, 2, 3, 4]
    assert asked[-1] == [1]
    assert solution.rows_asked == sum(map(len, asked))
    np.testing.assert_allclose(solution.value.get(), x.get() / (1 - slopes), rtol=1e-4)


def test_the_backward_solve_is_that_of_a_dense_one(cp, rng, dtype):
    A = weights(rng, 23, 0.8)
    g = rng.standard_normal((5, 23))
    A_device = cp.asarray(A.astype(dtype))
    for method in (None, Picard()):
        solution = deqcore.adjoint(
            lambda z, v: v @ A_device, cp.zeros((5, 23), dtype), cp.asarray(g.astype(dtype)), method=method
        )
        expected = np.linalg.solve(np.eye(23) - A.T, g.T).T
        error = np.linalg.norm(solution.value.get() - expected) / np.linalg.norm(expected)
        assert error < (3e-4 if dtype is np.float32 else 1e-8)


@pytest.mark.parametrize("how", ["current", "object", "address"])
def test_the_solve_runs_on_the_callers_stream(cp, problem, dtype, how):
    W, x, W_device, x_device = problem
    stream = cp.cuda.Stream(non_blocking=True)
    cp.cuda.get_current_stream().synchronize()  # W and x are there
    start = cp.zeros((ROWS, WIDTH), dtype)
    cp.cuda.get_current_stream().synchronize()
    given = {"current": None, "object": stream, "address": stream.ptr}[how]
    seen = []

    def f(z, x):
        seen.append(cp.cuda.get_current_stream().ptr)
        return layer(cp, W_device)(z, x)

    if how == "current":
        with stream:
            solution = deqcore.fixed_point(f, start, row_args=(x_device,))
    else:
        solution = deqcore.fixed_point(f, start, row_args=(x_device,), stream=given)
    assert set(seen) == {stream.ptr}
    stream.synchronize()
    host = deqcore.fixed_point(layer(np, W), np.zeros((ROWS, WIDTH), dtype), row_args=(x,))
    np.testing.assert_allclose(solution.value.get(), host.value, atol=CLOSE[dtype])


def test_a_failure_is_told_as_on_the_cpu(cp, dtype):
    one = dtype(1)
    with pytest.raises(deqcore.ConvergenceError, match="did not converge") as caught:
        deqcore.fixed_point(lambda z: z + one, cp.zeros((3, 4), dtype), max_steps=30)
    solution = caught.value.solution
    assert (solution.status.get() < 0).all()
    assert "3 of 3 rows did not converge" in solution.message
    assert "what to try" in str(caught.value)
    assert "out_of_steps" in solution.explain() or "diverged" in solution.explain()
    assert "largest residual" in repr(solution)
    with pytest.warns(deqcore.ConvergenceWarning):
        deqcore.fixed_point(lambda z: z + one, cp.zeros((3, 4), dtype), max_steps=30, on_failure="warn")


def test_a_row_that_is_not_finite_touches_no_neighbour(cp, problem, dtype):
    _, x, W_device, x_device = problem
    healthy = deqcore.fixed_point(layer(cp, W_device), cp.zeros((ROWS, WIDTH), dtype), row_args=(x_device,))
    spoilt = x.copy()
    spoilt[2, 5] = np.nan
    solution = deqcore.fixed_point(
        layer(cp, W_device), cp.zeros((ROWS, WIDTH), dtype), row_args=(cp.asarray(spoilt),), on_failure="return"
    )
    status = solution.status.get()
    assert status[2] == Status.not_finite
    assert (np.delete(status, 2) == Status.converged).all()
    np.testing.assert_allclose(
        np.delete(solution.value.get(), 2, axis=0), np.delete(healthy.value.get(), 2, axis=0), atol=CLOSE[dtype]
    )


def test_an_exception_in_the_map_comes_out_unchanged(cp):
    mine = KeyError("mine")
    calls = []

    def f(z):
        calls.append(1)
        if len(calls) == 3:
            raise mine
        return z * 0.5 + 1

    with pytest.raises(KeyError) as caught:
        deqcore.fixed_point(f, cp.zeros((2, 3)))
    assert caught.value is mine
    assert deqcore.fixed_point(lambda z: z * 0.5 + 1, cp.zeros((2, 3))).success


def test_progress_is_told_and_a_solve_can_be_cancelled(cp):
    seen = []
    solution = deqcore.fixed_point(lambda z: z * 0.9 + 1, cp.zeros((2, 3)), method="picard", callback=seen.append)
    assert seen[-1].running == 0
    assert seen[0].steps == 4, "a device is looked at every fourth step"

    def stop(progress):
        raise StopIteration

    solution = deqcore.fixed_point(
        lambda z: z * 0.9 + 1, cp.zeros((2, 3)), method="picard", callback=stop, on_failure="return"
    )
    assert (solution.status.get() == Status.cancelled).all()


def test_an_answer_that_cannot_be_used_in_place_is_copied_and_counted(cp):
    x = cp.asarray(np.ones((4, 6)))
    strided = deqcore.fixed_point(lambda z: (z.T * 0.5).T + x, cp.zeros((4, 6)), retire=False)
    assert strided.success
    itself = deqcore.fixed_point(lambda z: z, cp.zeros((4, 6)), look_every=1)
    assert itself.success
    assert itself.copies == 1


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda z: None, TypeError, "f returned None"),
        (lambda z: z.get(), TypeError, "f returned array of shape .* expected a CuPy array"),
        (lambda z: z.astype(np.float32), TypeError, "expected dtype float64: nothing is converted silently"),
        (lambda z: z[:, :2], ValueError, r"expected shape \(3, 4\)"),
        (lambda z: 3.0, TypeError, "f returned float"),
    ],
    ids=["None", "NumPy", "float32", "narrow", "a number"],
)
def test_a_wrong_answer_is_refused_by_name(cp, answer, error, message):
    with pytest.raises(error, match=message):
        deqcore.fixed_point(answer, cp.zeros((3, 4)))


def test_arrays_of_two_libraries_are_refused_by_name(cp):
    z, x = cp.zeros((3, 4)), np.zeros((3, 4))
    for call, named in (
        (lambda: deqcore.fixed_point(lambda z, x: z, z, row_args=(x,)), r"row_args\[0\]: .*expected a CuPy array"),
        (lambda: deqcore.fixed_point(lambda z, x: z, x, row_args=(z,)), r"row_args\[0\]: .*expected a NumPy array"),
        (lambda: deqcore.adjoint(lambda z, v: v, z, x), "g: .*expected a CuPy array"),
        (lambda: deqcore.adjoint(lambda z, v: v, z, z, u0=x), "u0: .*expected a CuPy array"),
        (lambda: deqcore.maps.Dense(cp.zeros((4, 4))), "W: .*expected a NumPy array"),
        (lambda: deqcore.fixed_point(deqcore.maps.Dense(np.eye(4)), z, row_args=(x,)), "z0: a CuPy array given"),
        (lambda: deqcore.fixed_point(deqcore.maps.Dense(np.eye(4)), x, row_args=(z,)), "injection: .* NumPy array"),
    ):
        with pytest.raises(TypeError, match=named):
            call()


def test_wrong_states_and_options_are_refused_by_name(cp):
    z = cp.zeros((3, 4))
    for call, error, named in (
        (lambda: deqcore.fixed_point(lambda z: z, z.astype(np.int64)), TypeError, "z0: .*float32 or float64"),
        (lambda: deqcore.fixed_point(lambda z: z, cp.zeros((0, 4))), ValueError, "z0: .*at least one row"),
        (lambda: deqcore.fixed_point(lambda z: z, z, stream="x"), TypeError, "stream: 'x' given; expected the address"),
        (lambda: deqcore.fixed_point(lambda z: z, np.zeros(3), stream=3), ValueError, "stream: 3 given with NumPy"),
        (lambda: deqcore.fixed_point(lambda z: z, z, row_args=(z[:2],)), ValueError, r"row_args\[0\]: .*3 rows"),
        (lambda: deqcore.fixed_point(lambda z: z, z, scale=-1.0), ValueError, "scale: -1.0 given"),
        (lambda: deqcore.fixed_point(lambda z: z, z, scale=cp.zeros(3)), TypeError, "scale: .*expected a number"),
        (lambda: deqcore.adjoint(lambda z, v: v, z, cp.zeros((3, 5))), ValueError, "g: .*expected shape"),
    ):
        with pytest.raises(error, match=named):
            call()


def test_every_kernel_runs_at_odd_shapes(cp):
    """The solves that compute-sanitizer watches in benchmarks/gpu_check.sh."""
    runpy.run_path(str(Path(__file__).with_name("every_kernel.py")), run_name="__main__")
