# SPDX-License-Identifier: Apache-2.0
"""Newton's methods and ladders where numbers are far from 1, steps are few, and callers stop."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import Newton, Status, fixed_point, root


@pytest.mark.parametrize("method", ["newton", "newton_krylov", None])
@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_a_root_whose_squares_leave_the_range_of_double(size, method):
    solution = root(lambda z: size * (z - 1), np.zeros((1, 3)), method=method, on_failure="return")
    assert solution.scale[0] == pytest.approx(size * np.sqrt(3))
    assert solution.status[0] != Status.converged or abs(solution.value - 1).max() < 1e-6


def test_few_steps_are_no_error_of_a_ladder():
    with pytest.raises(deqcore.ConvergenceError):
        root(lambda z: z * z + 1, np.ones((1, 33)), max_steps=71)
    ladder = ["newton", "newton_krylov"]
    assert fixed_point(np.cos, np.ones((1, 10)), method=ladder, max_steps=13, on_failure="return").steps.max() <= 13


@pytest.mark.parametrize("method", ["newton", "newton_krylov", None])
@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-5), (np.float32, 1e-9), (np.float64, 1e-12)])
def test_differences_from_small_starts(dtype, size, method, rng):
    z0 = (size * rng.standard_normal((20, 20))).astype(dtype)
    x = rng.standard_normal((20, 20)).astype(dtype)
    assert root(lambda z, x: z**3 + z - x, z0, row_args=(x,), method=method).success
    assert fixed_point(lambda z, x: np.tanh(dtype(0.5) * z + x), z0, row_args=(x,), method=method).success


@pytest.mark.parametrize("c", [1e12, 1e18, 1e30])
def test_the_dogleg_has_no_unit_of_its_own_at_zero(c):
    assert (fixed_point(lambda z: 0.5 * z + c, np.zeros((1, 3)), method="newton").steps <= 8).all()


@pytest.mark.parametrize("c", [1e-20, 1e-16, 1e10, 1e100])
def test_the_units_of_a_root_change_nothing(c):
    plain = root(lambda z: np.arctan(z - 3), np.zeros((1, 1)), method="newton")
    assert root(lambda z: c * np.arctan(z - 3), np.zeros((1, 1)), method="newton").steps == plain.steps


@pytest.mark.parametrize("size", [1e-4, 1e-8])
def test_small_starts_take_few_jacobians(size, rng):
    W, x = 0.5 * rng.standard_normal((20, 20)) / np.sqrt(20), rng.standard_normal((10, 20))

    def f(z, x):
        return np.tanh(z @ W.T + x)

    def jvp(z, v, x):
        return (1 - np.tanh(z @ W.T + x) ** 2) * (v @ W.T)

    near_zero = size * rng.standard_normal(x.shape)
    zero = fixed_point(f, 0 * x, row_args=(x,), jvp=jvp, method="newton")
    small = fixed_point(f, near_zero, row_args=(x,), jvp=jvp, method="newton")
    assert small.steps.max() <= zero.steps.max() + 21


@pytest.mark.parametrize("method", ["picard", "broyden", "anderson"])
def test_roots_by_fixed_point_methods_from_good_starts(method):
    def F(z):
        return np.float32(0.5) * (z - np.float32(1000))

    assert root(F, np.full((1, 3), 999.9, np.float32), method=method, rtol=1e-2).success


@pytest.mark.parametrize("method", ["newton", "newton_krylov", None])
def test_a_start_far_from_what_the_scale_says(method):
    far = np.full((1, 3), 1e3, np.float32)
    assert root(lambda z: z * z - np.float32(2), far, method=method, scale=1.0).success


def test_the_last_step_is_used(rng):
    for _ in range(20):
        W = rng.standard_normal((6, 6))
        W *= 0.95 / np.linalg.norm(W, 2)
        x = rng.standard_normal((1, 6))

        def f(z, W=W, x=x):
            return np.tanh(z @ W.T + x)

        def jvp(z, v, W=W, x=x):
            return (1 - np.tanh(z @ W.T + x) ** 2) * (v @ W.T)

        given = {"method": "newton_krylov", "jvp": jvp}
        needed = int(fixed_point(f, 0 * x, **given).steps[0])
        assert fixed_point(f, 0 * x, **given, max_steps=needed).success


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("restart", "NewtonKrylov"),
        ("max_width", "Newton"),
        ("forcing", "NewtonKrylov"),
        ("jac", "jvp"),
        ("fprime", "jvp"),
    ],
)
def test_options_are_pointed_at(option, said):
    with pytest.raises(TypeError, match=said):
        root(np.cos, np.ones(2), **{option: 3})


def test_nothing_is_called_before_the_options_are_checked():
    called = []

    def F(z):
        called.append(1)
        return z

    for bad in ({"rtol": -1}, {"retire": "x"}, {"threads": 0}, {"method": Newton(max_width=1)}, {"max_steps": 0}):
        with pytest.raises((TypeError, ValueError)):
            root(F, np.ones((2, 3)), **bad)
    assert not called


@pytest.mark.parametrize("stop_at", [1, 150, 250, 402])
def test_a_callback_stops_a_ladder_in_any_rung(stop_at):
    calls = []

    def stop(progress):
        if len(calls) >= stop_at:
            raise StopIteration

    def f(z):
        calls.append(1)
        return z + 1

    solution = fixed_point(f, np.zeros((2, 3)), callback=stop, on_failure="return")
    assert len(calls) == stop_at
    assert (solution.status == Status.cancelled).all()


def test_a_limit_leaves_room_for_a_rescue():
    layer = deqcore.maps.Dense(-2.5 * np.eye(3) - 7 * np.ones((3, 3)), "relu")
    for max_steps in (None, 600, 2000):
        given = {"row_args": (np.ones((1, 3)),), "max_steps": max_steps}
        assert fixed_point(layer, np.ones((1, 3)), **given).method[0] != "anderson"


def test_a_handle_with_history_is_not_rescued():
    handle = fixed_point(np.cos, np.ones((2, 2)), ids=[1, 2], keep="history").warm
    solution = fixed_point(lambda z: z + 1, np.zeros((2, 2)), ids=[5, 6], warm=handle, on_failure="return")
    assert set(solution.method) == {"anderson"}
