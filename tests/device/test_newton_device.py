# SPDX-License-Identifier: Apache-2.0
"""Newton's methods and roots on CuPy arrays: the answers, statuses and counts of NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import Newton, NewtonKrylov, Status
from support.problems import weights

ROWS, WIDTH = 7, 30
METHODS = [NewtonKrylov(), NewtonKrylov(restart=4, forcing=1e-3), Newton()]
RIGHT = {np.float32: 2e-3, np.float64: 1e-7}


@pytest.fixture
def problem(rng, dtype):
    """W and x of tanh(W z + x), with rows of different speed."""
    W = weights(rng, WIDTH, 0.95)
    x = rng.standard_normal((ROWS, WIDTH)) * rng.choice([0.1, 1, 10], (ROWS, 1))
    return W.astype(dtype), x.astype(dtype)


def layer(xp, W):
    """The map and its product."""

    def f(z, x):
        return xp.tanh(z @ W.T + x)

    def jvp(z, v, x):
        return (1 - xp.tanh(z @ W.T + x) ** 2) * (v @ W.T)

    return f, jvp


def on_both(cp, problem, given=True, **options):
    """The solve on the host and on the device."""
    solved = []
    for xp in (np, cp):
        W, x = map(xp.asarray, problem)
        f, jvp = layer(xp, W)
        chosen = {"row_args": (x,), "jvp": jvp if given else None, **options}
        solved.append(deqcore.fixed_point(f, xp.zeros(x.shape, x.dtype), **chosen))
    return solved


@pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_solves_are_those_of_numpy(cp, problem, dtype, method, given):
    host, device = on_both(cp, problem, given, method=method)
    assert device.success
    for name in ("value", "residual", "scale", "status", "steps", "rejected"):
        assert isinstance(getattr(device, name), cp.ndarray), name
    np.testing.assert_allclose(device.value.get(), host.value, atol=RIGHT[dtype])
    assert (device.products > 0) == given
    assert set(device.method) == set(host.method)
    if dtype == np.float64:
        assert abs(int(device.steps.sum()) - int(host.steps.sum())) <= 0.1 * host.steps.sum()


@pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_looking_and_retiring_change_no_bit(cp, rng, dtype, method, given):
    slopes = cp.asarray(rng.uniform(-0.9, 0.9, (ROWS, 35)).astype(dtype))
    x = cp.asarray((rng.standard_normal((ROWS, 35)) * np.array([[0], [0.1], [1], [1], [3], [10], [30]])).astype(dtype))

    def f(z, slopes, x):
        return slopes * z / (1 + z * z) + x

    def jvp(z, v, slopes, x):
        one = 1 + z * z
        return slopes * (1 - z * z) / (one * one) * v

    def solve(rows=slice(None), **options):
        data = (slopes[rows], x[rows])
        shared = {"row_args": data, "method": method, "jvp": jvp if given else None, "on_failure": "return"}
        return deqcore.fixed_point(f, cp.zeros(x[rows].shape, dtype), **shared, **options)

    together = solve()
    assert bool((together.status == 0).any())
    for look_every, retire in ((1, True), (3, False), (7, "halve")):
        other = solve(look_every=look_every, retire=retire)
        for name in ("value", "steps", "residual", "status", "rejected"):
            np.testing.assert_array_equal(getattr(other, name).get(), getattr(together, name).get())
    for i in range(ROWS):
        alone = solve(slice(i, i + 1))
        np.testing.assert_array_equal(alone.value.get()[0], together.value.get()[i])
        assert int(alone.steps[0]) == int(together.steps[i])


@pytest.mark.parametrize("retire", [True, False])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_counts_and_row_data_are_those_of_the_calls(cp, problem, method, retire):
    W, x = map(cp.asarray, problem)
    f, jvp = layer(cp, W)
    calls = {"f": 0, "jvp": 0, "rows": 0}

    def counted(name, function):
        def call(*data, rows):
            calls[name] += 1
            calls["rows"] += len(rows)
            np.testing.assert_array_equal(data[-1].get(), x[rows].get())
            return function(*data)

        return call

    solution = deqcore.fixed_point(
        counted("f", f), cp.zeros(x.shape, x.dtype), row_args=(x,), pass_rows=True, jvp=counted("jvp", jvp),
        method=method, retire=retire,
    )  # fmt: skip
    assert (solution.nfe, solution.products, solution.rows_asked) == (calls["f"], calls["jvp"], calls["rows"])


@pytest.mark.parametrize("method", [*METHODS, "broyden", None, ["picard", "newton"]], ids=str)
def test_roots_are_those_of_numpy(cp, rng, dtype, method):
    x = rng.standard_normal((ROWS, 9)).astype(dtype)

    def F(z, x):
        return z * z * z / (1 + z * z) + z * dtype(0.75) - x

    host = deqcore.root(F, np.zeros_like(x), row_args=(x,), method=method, max_steps=400)
    device = deqcore.root(F, cp.zeros(x.shape, dtype), row_args=(cp.asarray(x),), method=method, max_steps=400)
    assert device.success
    np.testing.assert_allclose(device.value.get(), host.value, atol=RIGHT[dtype])
    np.testing.assert_allclose(device.scale.get(), np.linalg.norm(x.astype(float), axis=1), rtol=1e-6)
    if method == "broyden":
        assert device.products == 0


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_failures_are_those_of_numpy(cp, dtype, method):
    z0 = np.linspace(0.5, 2, 5).astype(dtype)[:, None]
    wrong = np.arange(5)[:, None] == 2

    def F(xp, bad):
        return lambda z, bad: xp.where(bad, xp.asarray(np.nan, dtype), z * z + 1)

    host = deqcore.root(F(np, wrong), z0, row_args=(wrong,), method=method, on_failure="return")
    device = deqcore.root(
        F(cp, wrong), cp.asarray(z0), row_args=(cp.asarray(wrong),), method=method, on_failure="return"
    )
    assert device.status.get().tolist() == host.status.tolist()
    assert device.status.get()[2] == Status.not_finite
    assert (host.status[[0, 1, 3, 4]] == Status.breakdown).all()
    with pytest.raises(deqcore.ConvergenceError, match="breakdown"):
        deqcore.root(lambda z: z * z + 1, cp.asarray(z0), method=method)


def test_exceptions_come_out_and_the_next_solve_works(cp, rng):
    x = cp.asarray(rng.standard_normal((3, 5)))
    error = RuntimeError("mine")

    def jvp(z, v, x):
        raise error

    for method in METHODS:
        with pytest.raises(RuntimeError) as caught:
            deqcore.fixed_point(lambda z, x: 0.5 * z + x, 0 * x, row_args=(x,), jvp=jvp, method=method)
        assert caught.value is error
        with pytest.raises(TypeError, match=r"^jvp .*dtype float32 .*expected dtype float64"):
            deqcore.fixed_point(
                lambda z, x: 0.5 * z + x, 0 * x, row_args=(x,), jvp=lambda z, v, x: v.astype(np.float32), method=method
            )
        assert deqcore.fixed_point(lambda z, x: 0.5 * z + x, 0 * x, row_args=(x,), method=method).success
