# SPDX-License-Identifier: Apache-2.0
"""Integration: orders, tolerances, times between steps, rows and batches, failures, and what is refused."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import deqcore
from deqcore import RK4, BogackiShampine, DormandPrince, Euler, Midpoint, odeint
from support.problems import weights

FIXED = [(Euler, 1), (Midpoint, 2), (RK4, 4), (BogackiShampine, 3), (DormandPrince, 5)]
PAIRS = ["dormand_prince", "bogacki_shampine"]


def network(rng, rows=6, width=20, dtype=np.float64):
    W = weights(rng, width, 1.5).astype(dtype)
    x = rng.standard_normal((rows, width)).astype(dtype)
    return lambda t, z, x: np.tanh(z @ W.T + x + np.sin(t).astype(dtype) if np.ndim(t) else z @ W.T + x) - z, x


def reference(f, z0, times, **options):
    """Every row by SciPy, tightly."""
    rows, width = z0.shape

    def flat(t, y):
        return f(np.full((rows, 1), t), y.reshape(rows, width)).ravel()

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13} | options
    return solve_ivp(flat, (times[0], times[-1]), z0.ravel(), t_eval=times, **options).y.T.reshape(-1, rows, width)


@pytest.mark.parametrize(("method", "order"), FIXED, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("times", [[0.0, 1.0, 3.0], [3.0, 1.5, 0.0]], ids=["forward", "backward"])
def test_fixed_steps_have_their_order(rng, method, order, times):
    f, x = network(rng)
    z0 = rng.standard_normal(x.shape)
    exact = reference(lambda t, z: f(t, z, x), z0, times)[-1]
    errors = []
    for steps in (16, 32, 64):
        solution = odeint(f, z0, times, row_args=(x,), method=method(steps))
        assert solution.nfe == 2 * steps * method.stages
        errors.append(abs(solution.value[-1] - exact).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize("method", PAIRS)
@pytest.mark.parametrize("control", ["rows", "batch"])
@pytest.mark.parametrize("times", [np.linspace(0, 5, 23), np.linspace(1, -1, 7)], ids=["forward", "backward"])
def test_values_at_all_times_are_as_good_as_the_tolerance(rng, method, control, times):
    f, x = network(rng)
    z0 = rng.standard_normal(x.shape)
    exact = reference(lambda t, z: np.tanh(f(0.0, z, x) + z) - z, z0, times)
    solution = odeint(
        lambda t, z, x: np.tanh(f(0.0, z, x) + z) - z,
        z0,
        times,
        row_args=(x,),
        method=method,
        rtol=1e-7,
        atol=1e-7,
        control=control,
    )
    assert solution.success
    assert (solution.status == deqcore.Status.finished).all()
    assert np.array_equal(solution.value[0], z0)
    errors = abs(solution.value - exact).max(axis=(1, 2))
    assert errors.max() < 3e-5
    assert np.array_equal(solution.reached, np.full(len(z0), times[-1]))


def test_a_batch_as_one_system_takes_as_many_evaluations_as_others(rng):
    f, x = network(rng)
    z0 = np.zeros_like(x)
    ours = odeint(lambda t, z: f(0.0, z, x), z0, [0, 10], rtol=1e-6, atol=1e-6, control="batch")
    theirs = solve_ivp(
        lambda t, y: f(0.0, y.reshape(z0.shape), x).ravel(), (0, 10), z0.ravel(), method="RK45", rtol=1e-6, atol=1e-6
    )
    assert ours.nfe <= theirs.nfev
    assert len(set(ours.evaluations)) == 1


def test_time_is_one_number_per_row_and_broadcasts(rng, dtype):
    z0 = rng.standard_normal((4, 2, 3)).astype(dtype)
    rates = np.array([1, 2, 30, 4], dtype).reshape(4, 1, 1)
    seen = []

    def f(t, z, k):
        seen.append((t.shape, t.dtype, z.shape))
        return np.cos(t) * k * np.ones_like(z)

    solution = odeint(f, z0, [0.0, 1.0], row_args=(rates,), rtol=1e-5)
    assert np.allclose(solution.value[-1], z0 + np.sin(1.0) * rates, atol=1e-3)
    assert all(t == (count, 1, 1) and kind == dtype and count == z[0] for (t, kind, z) in seen for count in [t[0]])
    one = odeint(lambda t, z: np.full_like(z, t), z0[0, 0], [0.0, 2.0])
    assert np.allclose(one.value[-1], z0[0, 0] + 2, atol=1e-3)
    odeint(lambda t, z: z * (0 if isinstance(t, float) else np.nan), z0, [0.0, 1.0], control="batch")


@pytest.mark.parametrize("method", [*PAIRS, RK4(40)], ids=str)
def test_a_row_alone_has_the_bits_of_the_row_in_the_batch(rng, dtype, method):
    rates = np.array([1, 60, 5, 0.1, 20], dtype)[:, None]
    z0 = rng.standard_normal((5, 17)).astype(dtype)

    def f(t, z, k):
        return np.sin(t) - k * z

    whole = odeint(f, z0, [0, 0.4, 1], row_args=(rates,), method=method)
    for options in ({"retire": False}, {"retire": "halve"}, {"threads": 2}):
        again = odeint(f, z0, [0, 0.4, 1], row_args=(rates,), method=method, **options)
        assert np.array_equal(again.value, whole.value)
    for row in range(5):
        alone = odeint(f, z0[row : row + 1], [0, 0.4, 1], row_args=(rates[row : row + 1],), method=method)
        assert np.array_equal(alone.value[:, 0], whole.value[:, row])
        assert alone.evaluations[0] == whole.evaluations[row]


def test_one_stiff_row_among_many_costs_the_others_nothing():
    rates = np.ones((256, 1))
    easy = odeint(lambda t, z, k: -k * z, np.ones((256, 4)), [0, 1], row_args=(rates,))
    rates[17] = 1000.0
    mixed = odeint(lambda t, z, k: -k * z, np.ones((256, 4)), [0, 1], row_args=(rates,))
    others = np.arange(256) != 17
    assert np.array_equal(mixed.evaluations[others], easy.evaluations[others])
    assert mixed.evaluations[17] > 20 * easy.evaluations[17]
    assert mixed.rows_asked == mixed.evaluations.sum()
    together = odeint(lambda t, z, k: -k * z, np.ones((256, 4)), [0, 1], row_args=(rates,), control="batch")
    assert together.rows_asked > 10 * mixed.rows_asked


def test_counts_are_those_of_the_calls(rng):
    calls, rows = [], []

    def f(t, z, k):
        calls.append(1)
        rows.append(len(z))
        return -k * z

    rates = np.array([1, 50, 3.0])[:, None]
    for options in ({}, {"control": "batch"}, {"method": RK4(7)}, {"first_step": 0.01}):
        calls.clear(), rows.clear()
        solution = odeint(f, np.ones((3, 2)), [0, 0.5, 1], row_args=(rates,), **options)
        assert solution.nfe == len(calls)
        assert solution.rows_asked == sum(rows)
        tried = solution.accepted + solution.rejected
        first = 0 if "method" in options else 1 if "first_step" in options else 2
        assert np.array_equal(solution.evaluations, first + tried * solution.method.stages)


def test_a_start_at_zero_wastes_no_steps():
    def f(t, z):
        return 1 - z

    for tiny in (0.0, 1e-9, 1e-7, 1e-4):
        z0 = np.full((1, 8), tiny)
        ours = odeint(f, z0, [0, 1])
        theirs = solve_ivp(lambda t, y: 1 - y, (0, 1), z0[0], rtol=1e-3, atol=1e-6)
        assert ours.nfe + 6 <= theirs.nfev
        assert ours.value[-1, 0, 0] == pytest.approx(1 - np.exp(-1), abs=2e-3)
    at_rest = odeint(f, np.ones((1, 8)), [0, 1])
    assert at_rest.nfe == 8


def test_relax_rests_at_fixed_points(rng, dtype):
    f, x = network(rng, dtype=dtype)
    z0 = np.zeros_like(x)

    def image(t, z, x):
        return f(0.0, z, x) + z

    for control in ("rows", "batch"):
        direct = odeint(lambda t, z, x: f(0.0, z, x), z0, [0, 4], row_args=(x,), control=control, rtol=1e-5)
        relaxed = odeint(image, z0, [0, 4], row_args=(x,), control=control, rtol=1e-5, relax=True)
        assert abs(direct.value - relaxed.value).max() < 1e-4
    W = weights(rng, 20)
    layer = deqcore.maps.Dense(W.astype(dtype))
    end = odeint(layer, z0, [0, 60], row_args=(x,), relax=True, rtol=1e-6).value[-1]
    assert abs(layer(end, x) - end).max() < 1e-4


@pytest.mark.parametrize("control", ["rows", "batch"])
@pytest.mark.parametrize("method", [None, RK4(20), "bogacki_shampine"], ids=str)
def test_a_dense_map_is_integrated_natively(rng, dtype, control, method):
    layer = deqcore.maps.Dense(weights(rng, 33, 1.2).astype(dtype))
    x = rng.standard_normal((70, 33)).astype(dtype)
    z0 = rng.standard_normal((70, 33)).astype(dtype)
    options = {"row_args": (x,), "control": control, "method": method, "rtol": 1e-4}
    called = odeint(lambda t, z, x: layer(z, x, threads=1), z0, [0, 1, 2.5], **options)
    for threads in (1, 2):
        native = odeint(layer, z0, [0, 1, 2.5], threads=threads, **options)
        assert np.array_equal(native.value, called.value)
        assert np.array_equal(native.evaluations, called.evaluations)
        assert native.nfe == called.nfe
    alone = odeint(layer, z0[3], [0, 1, 2.5], **options | {"row_args": (x[3],), "control": "rows"})
    if control == "rows":
        assert np.array_equal(alone.value, called.value[:, 3])


def test_rows_that_cannot_go_on_say_so():
    def f(t, z, kind):
        return np.where(kind == 0, -z, np.where(kind == 1, z * z, np.nan))

    kinds = np.array([[0.0], [1.0], [2.0]])
    solution = odeint(f, np.ones((3, 1)), [0, 0.5, 2.0], row_args=(kinds,), on_failure="return")
    assert [deqcore.Status(code).name for code in solution.status] == ["finished", "step_underflow", "not_finite"]
    assert np.isnan(solution.value[1:, 2]).all()
    assert np.isnan(solution.value[2, 1])
    assert solution.value[1, 1, 0] == pytest.approx(2, rel=1e-2)
    assert solution.reached[1] == pytest.approx(1, rel=1e-2)
    assert not solution.success
    assert "step_underflow" in solution.explain()
    with pytest.raises(deqcore.ConvergenceError, match="2 of 3 rows did not reach t = 2") as raised:
        odeint(f, np.ones((3, 1)), [0, 0.5, 2.0], row_args=(kinds,))
    assert pickle.loads(pickle.dumps(raised.value)).solution.status.tolist() == solution.status.tolist()
    with pytest.warns(deqcore.ConvergenceWarning, match="step_underflow"):
        odeint(f, np.ones((3, 1)), [0, 0.5, 2.0], row_args=(kinds,), on_failure="warn")
    short = odeint(lambda t, z: -1e4 * z, np.ones((1, 1)), [0, 1], max_steps=5, on_failure="return")
    assert short.status[0] == deqcore.Status.out_of_steps


def test_exceptions_come_out_unchanged():
    class Mine(Exception):
        pass

    calls = []

    def f(t, z):
        calls.append(1)
        if len(calls) == 9:
            raise Mine("here")
        return -z

    with pytest.raises(Mine, match="here"):
        odeint(f, np.ones((2, 2)), [0, 5])
    assert odeint(f, np.ones((2, 2)), [0, 5]).success


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"f": 3}, TypeError, "f: 3 given"),
        ({"z0": [1.0]}, TypeError, "z0"),
        ({"z0": np.ones((2, 2), int)}, TypeError, "z0"),
        ({"z0": np.full((2, 2), np.nan)}, ValueError, "z0"),
        ({"t": 1.0}, TypeError, "t: "),
        ({"t": "ab"}, TypeError, "t: "),
        ({"t": [0.0]}, ValueError, "t: 1 given"),
        ({"t": [0.0, 0.0]}, ValueError, "only rise or only fall"),
        ({"t": [0.0, 1.0, 0.5]}, ValueError, "only rise or only fall"),
        ({"t": [0.0, 1.0, 0.5]}, ValueError, "t: 1.0 at index 1 and then 0.5"),
        ({"t": [1.0, 0.5, 0.5]}, ValueError, "t: 0.5 at index 1 and then 0.5"),
        ({"t": [0.0, np.inf]}, ValueError, "t: inf at index 1; expected finite times"),
        ({"method": "rk4", "rtol": -1.0}, ValueError, "rtol"),
        ({"method": "rk4", "atol": np.nan}, ValueError, "atol"),
        ({"method": "rk4", "rtol": "a"}, TypeError, "rtol"),
        ({"args": 3}, TypeError, "args"),
        ({"row_args": (np.ones(3),)}, ValueError, r"row_args\[0\]"),
        ({"method": "heun"}, ValueError, "method: 'heun' given"),
        ({"method": deqcore.Anderson()}, TypeError, "method"),
        ({"rtol": 0.0}, ValueError, "rtol"),
        ({"rtol": "a"}, TypeError, "rtol"),
        ({"atol": -1.0}, ValueError, "atol"),
        ({"first_step": 0.0}, ValueError, "first_step"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"control": "all"}, ValueError, "control: 'all' given"),
        ({"relax": 2}, TypeError, "relax"),
        ({"retire": "no"}, ValueError, "retire"),
        ({"threads": 0}, ValueError, "threads"),
        ({"stream": 3}, ValueError, "stream"),
        ({"on_failure": "shout"}, ValueError, "on_failure"),
        ({"rtoll": 1e-3}, TypeError, "did you mean 'rtol'"),
        ({"f": lambda t, z: z[:1]}, ValueError, "f returned"),
        ({"f": lambda t, z: z.astype(np.float32)}, TypeError, "f returned"),
        ({"f": lambda t, z: None}, TypeError, "f returned"),
    ],
    ids=lambda part: ", ".join(part) if isinstance(part, dict) else None,  # no addresses: xdist compares the names
)
def test_bad_input_is_refused_by_name(change, error, words):
    given = {"f": lambda t, z: -z, "z0": np.ones((2, 2)), "t": [0.0, 1.0]} | change
    with pytest.raises(error, match=words):
        odeint(given.pop("f"), given.pop("z0"), given.pop("t"), **given)


@pytest.mark.parametrize(
    "times",
    [
        [1e6, 1e6 + 10],
        [1e6 + 10, 1e6],
        [-1e6, -1e6 + 10],
        [0.0, 1e6, 1e6 + 10],
        [0.0, 1e39],
        np.linspace(0, 1, 10**5),
    ],
    ids=str,
)
def test_times_that_float32_cannot_tell_apart_are_refused_where_f_gets_them_in_float32(times):
    def f(t, z):
        return np.float32(1) * np.cos(t, dtype=np.float32) + 0 * z

    z0 = np.zeros((2, 1), np.float32)
    with pytest.raises(ValueError, match=r"t: .* at index \d+ given with a float32 z0; .*control='batch'"):
        odeint(f, z0, times)
    fine = {"method": "euler", "on_failure": "return"}  # elsewhere the times are not what is asked about
    odeint(lambda t, z: 0 * z, z0, times, control="batch", **fine)
    odeint(lambda t, z: 0 * z, z0[0], times, **fine)
    odeint(lambda t, z: 0 * z, z0.astype(np.float64), times, **fine)
    odeint(deqcore.maps.Dense(np.eye(1, dtype=np.float32)), z0, times, row_args=(z0,), **fine)


@pytest.mark.parametrize(
    "times", [np.linspace(0, 1, 1001), np.linspace(1, 0, 5001), np.logspace(-6, 3, 50), [1e3, 1e3 + 10]], ids=str
)
def test_times_that_float32_resolves_are_good_enough(times):
    z0, rtol = np.zeros((2, 1), np.float32), 1e-4
    value = odeint(lambda t, z: np.cos(t) + 0 * z, z0, times, rtol=rtol, atol=rtol).value[:, 0, 0]
    assert np.abs(value - (np.sin(times) - np.sin(times[0]))).max() < 20 * rtol


def test_fixed_steps_ask_for_no_tolerance():
    z0 = np.ones((2, 3), np.float32)
    plain = odeint(lambda t, z: -z, z0, [0, 1], method=RK4(4))
    tight = odeint(lambda t, z: -z, z0, [0, 1], method=RK4(4), rtol=1e-8, atol=0.0)
    assert np.array_equal(plain.value, tight.value)
    with pytest.raises(ValueError, match="rtol"):
        odeint(lambda t, z: -z, z0, [0, 1], rtol=1e-8)


def test_a_time_for_the_batch_leaves_float32_as_it_is():
    """By the function that the docstring names; np.cos of a float is float64."""
    z0 = np.zeros((2, 1), np.float32)
    solution = odeint(lambda t, z: math.cos(t) + 0 * z, z0, [0, 1], control="batch", rtol=1e-5)
    assert solution.value.dtype == np.float32
    assert np.allclose(solution.value[-1], np.sin(1), atol=1e-4)


def test_methods_refuse_what_they_cannot_do():
    for method in (Euler, Midpoint, RK4, BogackiShampine, DormandPrince):
        with pytest.raises(ValueError, match="steps"):
            method(0)
        with pytest.raises(TypeError, match="steps"):
            method(1.5)
        with pytest.raises(TypeError, match="did you mean 'steps'"):
            method(step=1)
    with pytest.raises(TypeError):
        RK4(None)
    assert odeint(lambda t, z: -z, np.ones(2), [0, 1], method="RK45").method == DormandPrince()


def test_the_start_is_not_written_and_answers_may_have_any_layout(rng):
    z0 = rng.standard_normal((3, 4))
    before = z0.copy()
    W = weights(rng, 4)
    strided = odeint(lambda t, z: (W @ z.T).T, z0, [0, 1])
    assert strided.copies == strided.nfe
    assert np.array_equal(strided.value, odeint(lambda t, z: np.ascontiguousarray((W @ z.T).T), z0, [0, 1]).value)
    itself = odeint(lambda t, z: z, z0, [0, 1])  # the question as its own answer
    assert np.allclose(itself.value[-1], np.e * z0, rtol=1e-2)
    assert np.array_equal(z0, before)
    with pytest.raises(ValueError, match="read-only"):
        odeint(lambda t, z: z.__setitem__(0, 1.0), z0, [0, 1])


def test_rows_are_named_where_asked_for():
    seen = []

    def f(t, z, *, rows):
        seen.append(rows.tolist())
        return -np.array([[1.0], [80.0]])[rows] * z

    odeint(f, np.ones((2, 1)), [0, 1], pass_rows=True)
    assert seen[0] == [0, 1]
    assert seen[-1] == [1]


def test_a_step_that_float64_cannot_tell_from_none_is_no_step():
    """At t = 1e16 neighbours are 2 apart: steps by the error cannot be taken, and equal ones are taken as they are."""
    times = [1e16, 1e16 + 2]
    for control in ("rows", "batch"):
        solution = odeint(lambda t, z: -z, np.ones((2, 1)), times, control=control, on_failure="return")
        assert (solution.status == deqcore.Status.step_underflow).all()
        assert np.isnan(solution.value[-1]).all()
    equal = odeint(lambda t, z: -z, np.ones((2, 1)), times, method=RK4(16))
    assert np.allclose(equal.value[-1], np.exp(-2), rtol=1e-4)
    with pytest.raises(ValueError, match="t: from"):
        odeint(lambda t, z: -z, np.ones((2, 1)), [-1e308, 1e308])
