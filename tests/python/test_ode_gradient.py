# SPDX-License-Identifier: Apache-2.0
"""Gradients of an integration: against differences, against each other, natively and by callables; memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import deqcore
from deqcore import RK4, Midpoint, odeint, odeint_adjoint


class Problem:
    """F(z, u, t) = A2 tanh(A1 z + u) + b2, with its products."""

    def __init__(self, rng, rows=5, width=64, hidden=64, dtype=np.float64, gain=0.5):
        self.A1 = (rng.standard_normal((hidden, width)) * gain / np.sqrt(width)).astype(dtype)
        self.A2 = (rng.standard_normal((width, hidden)) * gain / np.sqrt(hidden)).astype(dtype)
        self.b2 = (0.1 * rng.standard_normal(width)).astype(dtype)
        self.u = rng.standard_normal((rows, hidden)).astype(dtype)
        self.z0 = rng.standard_normal((rows, width)).astype(dtype)

    def f(self, t, z, u):
        return np.tanh(z @ self.A1.T + u) @ self.A2.T + self.b2

    def vjp(self, t, z, a, u):
        y = np.tanh(z @ self.A1.T + u)
        D = (a @ self.A2) * (1 - y * y)
        return D @ self.A1, (D,), (D.T @ z, a.T @ y, a.sum(0))

    def field(self):
        return deqcore.maps.Field(self.A1, self.A2, self.b2)


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def furthest(a, b):
    pairs = zip((a.z0, *a.row_args, *a.parameters), (b.z0, *b.row_args, *b.parameters), strict=True)
    return max(apart(x, y) for x, y in pairs)


def gradients(p, times, g, native=False, **options):
    solve = {key: value for key, value in options.items() if key != "gradient"}
    f, vjp = (p.field(), None) if native else (p.f, p.vjp)
    z = odeint(f, p.z0, times, row_args=(p.u,), **solve).value
    return odeint_adjoint(f, vjp, z, times, g, row_args=(p.u,), **options)


@pytest.mark.parametrize("native", [False, True], ids=["callable", "native"])
def test_the_adjoint_meets_the_gradient_through_the_solver(rng, native):
    p = Problem(rng)
    g = rng.standard_normal(p.z0.shape)
    found = []
    for steps in (1, 2, 4, 8, 16):
        both = [gradients(p, [0, 1], g, native, method=RK4(steps), gradient=kind) for kind in ("adjoint", "solver")]
        found.append(furthest(*both))
    assert found[2] < 1e-5
    assert found[4] < 1e-7
    assert np.log2(found[3] / found[4]) == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize("native", [False, True], ids=["callable", "native"])
@pytest.mark.parametrize("method", [RK4(3), Midpoint(5), deqcore.DormandPrince(2), deqcore.BogackiShampine(2)], ids=str)
@pytest.mark.parametrize("times", [[0.0, 1.0], [1.0, 0.7, 0.0]], ids=["forward", "backward"])
def test_the_gradient_through_the_solver_is_that_of_differences(rng, native, method, times):
    p = Problem(rng, rows=3, width=7, hidden=9)
    g = rng.standard_normal((len(times), *p.z0.shape))
    exact = gradients(p, times, g, native, method=method, gradient="solver")

    def loss():
        return float((odeint(p.f, p.z0, times, row_args=(p.u,), method=method).value * g).sum())

    inputs = (p.z0, p.u, p.A1, p.A2, p.b2)
    for array, gradient in zip(inputs, (exact.z0, *exact.row_args, *exact.parameters), strict=True):
        along, eps = rng.standard_normal(array.shape), 1e-6
        array += eps * along
        above = loss()
        array -= 2 * eps * along
        below = loss()
        array += eps * along
        assert (gradient * along).sum() == pytest.approx((above - below) / (2 * eps), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("method", ["dormand_prince", "bogacki_shampine"])
def test_the_adjoint_by_the_error_is_as_good_as_its_tolerance(rng, method):
    p = Problem(rng, rows=4, width=12, hidden=15, gain=1.0)
    times, g = [0.0, 0.4, 1.5], rng.standard_normal((3, *p.z0.shape))
    exact = gradients(p, times, g, method=RK4(100), gradient="solver")
    errors = []
    for rtol in (1e-3, 1e-5, 1e-8):
        for native in (False, True):
            adjoint = gradients(p, times, g, native, method=method, rtol=rtol, atol=rtol)
            errors.append(furthest(adjoint, exact))
            assert errors[-1] < 100 * rtol
    assert errors[4] < 1e-2 * errors[0]


def test_rejected_steps_leave_no_trace(rng):
    def f(t, z, u):
        return u * np.exp(-50 * (t - 0.5) ** 2) * z

    def vjp(t, z, a, u):
        bump = np.exp(-50 * (t - 0.5) ** 2)
        return u * bump * a, (bump * z * a,), ()

    u, z0 = np.array([[3.0]]), np.ones((1, 1))
    z = odeint(f, z0, [0, 1], row_args=(u,), rtol=1e-9, atol=1e-9)
    adjoint = odeint_adjoint(f, vjp, z.value, [0, 1], np.ones((1, 1)), row_args=(u,), rtol=1e-9, atol=1e-9)
    assert adjoint.rejected > 0
    growth = z.value[-1, 0, 0]
    area = np.log(growth) / 3
    assert adjoint.z0[0, 0] == pytest.approx(growth, rel=1e-6)
    assert adjoint.row_args[0][0, 0] == pytest.approx(area * growth, rel=1e-6)
    assert adjoint.parameters == ()


@pytest.mark.parametrize("rows", [1, 5, 70])
@pytest.mark.parametrize("gradient", ["adjoint", "solver", "frozen"])
def test_native_gradients_are_those_of_the_callable(rng, dtype, rows, gradient):
    p = Problem(rng, rows=rows, width=17, hidden=23, dtype=dtype)
    g = rng.standard_normal((2, *p.z0.shape)).astype(dtype)
    options = {"method": RK4(4), "gradient": gradient}
    called, native = (gradients(p, [0, 1], g, kind, **options) for kind in (False, True))
    assert furthest(native, called) < 100 * np.finfo(dtype).eps
    assert native.z0.dtype == dtype
    for threads in (1, 2):
        again = gradients(p, [0, 1], g, True, threads=threads, **options)
        assert all(np.array_equal(a, b) for a, b in zip(again.parameters, native.parameters, strict=True))
    shared = odeint_adjoint(
        p.field(),
        None,
        odeint(p.field(), p.z0, [0, 1], row_args=(p.u[0],), method=RK4(4)).value,
        [0, 1],
        g,
        row_args=(p.u[0],),
        **options,
    )
    p.u = np.repeat(p.u[:1], rows, axis=0)
    whole = gradients(p, [0, 1], g, True, **options)
    assert shared.row_args[0].shape == (23,)
    assert apart(shared.row_args[0], whole.row_args[0].sum(0)) < 1000 * np.finfo(dtype).eps


def test_the_frozen_adjoint_is_not_the_gradient(rng):
    p = Problem(rng, gain=1.0)
    g = rng.standard_normal(p.z0.shape)
    frozen, exact = (gradients(p, [0, 1], g, method=RK4(8), gradient=kind) for kind in ("frozen", "solver"))
    assert np.array_equal(frozen.z0, g)
    assert apart(frozen.parameters[0], exact.parameters[0]) > 1e-2


def test_memory_of_the_adjoint_does_not_grow_with_the_steps(rng):
    p = Problem(rng, rows=8, width=200, hidden=8)
    g = rng.standard_normal(p.z0.shape)
    z = odeint(p.f, p.z0, [0, 1], row_args=(p.u,), method=RK4(4)).value

    def peak(gradient, steps):
        tracemalloc.start()
        found = odeint_adjoint(p.f, p.vjp, z, [0, 1], g, row_args=(p.u,), method=RK4(steps), gradient=gradient)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest, found.scratch_bytes

    (few, planned), (many, planned_many) = peak("adjoint", 4), peak("adjoint", 64)
    assert many < 1.1 * few
    assert planned == planned_many
    (few, planned), (many, planned_many) = peak("solver", 4), peak("solver", 64)
    points = 60 * 4 * p.z0.nbytes
    assert planned_many - planned == points
    assert many - few == pytest.approx(points, rel=0.1)


@pytest.mark.parametrize("gradient", [None, "adjoint", "solver", "frozen"])
@pytest.mark.parametrize("method", [RK4(5), deqcore.DormandPrince(3), deqcore.DormandPrince()], ids=str)
def test_the_plan_is_what_is_held(rng, dtype, gradient, method):
    p = Problem(rng, rows=3, width=11, hidden=4, dtype=dtype)
    if gradient == "solver" and method.steps is None:
        with pytest.raises(ValueError, match="steps"):
            deqcore.plan(3, 11, dtype, method=method, gradient=gradient)
        return
    planned = deqcore.plan(3, 11, dtype, method=method, times=3, gradient=gradient)
    z = odeint(p.f, p.z0, [0, 0.5, 1], row_args=(p.u,), method=method)
    if gradient is None:
        assert planned.scratch_bytes == z.scratch_bytes
        report = (z.status, z.evaluations, z.accepted, z.rejected, z.reached)
        assert planned.result_bytes == z.value.nbytes + sum(array.nbytes for array in report)
    else:
        back = odeint_adjoint(p.f, p.vjp, z.value, [0, 0.5, 1], p.z0, row_args=(p.u,), method=method, gradient=gradient)
        assert planned.scratch_bytes == back.scratch_bytes
        assert planned.result_bytes == p.z0.nbytes


def test_a_field_has_the_products_of_its_formula(rng, dtype):
    p = Problem(rng, rows=40, width=9, hidden=13, dtype=dtype)
    field, a = p.field(), rng.standard_normal((40, 9)).astype(dtype)
    assert apart(field(p.z0, p.u), p.f(0, p.z0, p.u)) < 100 * np.finfo(dtype).eps
    dz, du, parameters = field.vjp(p.z0, a, p.u)
    expected = p.vjp(0, p.z0, a, p.u)
    for found, exact in zip((dz, du, *parameters), (expected[0], *expected[1], *expected[2]), strict=True):
        assert apart(found, exact) < 100 * np.finfo(dtype).eps
    assert repr(field) == f"Field(width=9, hidden=13, activation='tanh', dtype={np.dtype(dtype)})"


def test_fields_refuse_bad_weights_and_states(rng):
    A1, A2, b2 = rng.standard_normal((4, 3)), rng.standard_normal((3, 4)), rng.standard_normal(3)
    for given, error, words in [
        ((A1[0], A2), ValueError, "A1"),
        ((A1, A1), ValueError, "A2"),
        ((A1, A2.astype(np.float32)), TypeError, "A2"),
        ((A1, A2, b2[:2]), ValueError, "b2"),
        ((A1, A2, b2, "swish"), ValueError, "swish"),
        ((A1, A2, b2, 3), TypeError, "activation"),
        (([1], A2), TypeError, "A1"),
    ]:
        with pytest.raises(error, match=words):
            deqcore.maps.Field(*given)
    field, z0, u = deqcore.maps.Field(A1, A2, b2), np.zeros((2, 3)), np.zeros((2, 4))
    for state, row_args, words in [
        (z0, (), "row_args"),
        (z0, (u[:, :2],), "u: "),
        (np.zeros((2, 4)), (u,), "width 3"),
        (z0, (np.full((2, 4), np.nan),), "u: "),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            odeint(field, state, [0, 1], row_args=row_args)
    with pytest.raises(TypeError, match="pickle"):
        pickle_it(field)
    with pytest.raises(TypeError, match="subclass"):
        type("Mine", (deqcore.maps.Field,), {})


def pickle_it(thing):
    import pickle

    return pickle.dumps(thing)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"f": 1}, TypeError, "f: 1 given"),
        ({"vjp": None}, TypeError, "vjp: None given"),
        ({"vjp": lambda t, z, a, u: a}, TypeError, "vjp returned"),
        ({"vjp": lambda t, z, a, u: (a, a, ())}, TypeError, "a' dF/du"),
        ({"vjp": lambda t, z, a, u: (a, (a[:1],), ())}, ValueError, "expected 2 rows"),
        ({"vjp": lambda t, z, a, u: (a[:1], (), ())}, ValueError, "vjp returned"),
        ({"z": np.ones(2)}, ValueError, "z: "),
        ({"g": np.ones((3, 2))}, ValueError, "g: "),
        ({"g": np.full((2, 2), np.nan)}, ValueError, "g: "),
        ({"t": [0.0, 1.0, 2.0]}, ValueError, "z: "),
        ({"gradient": "exact"}, ValueError, "gradient: 'exact' given"),
        ({"gradient": "solver"}, ValueError, "needs a number of steps"),
        ({"row_args": (np.ones(3),)}, ValueError, r"row_args\[0\]"),
        ({"tol": 1e-3}, TypeError, "did you mean 'rtol'"),
    ],
    ids=lambda part: ", ".join(part) if isinstance(part, dict) else None,  # no addresses: xdist compares the names
)
def test_bad_input_is_refused_by_name(change, error, words):
    given = {
        "f": lambda t, z, u: -z,
        "vjp": lambda t, z, a, u: (-a, (), ()),
        "z": np.ones((2, 2, 2)),
        "t": [0.0, 1.0],
        "g": np.ones((2, 2)),
        "row_args": (np.ones((2, 1)),),
    } | change
    order = [given.pop(name) for name in ("f", "vjp", "z", "t", "g")]
    with pytest.raises(error, match=words):
        odeint_adjoint(*order, **given)


def test_failures_raise_and_exceptions_come_out():
    z, g = np.ones((2, 1, 1)), np.ones((1, 1))
    with pytest.raises(deqcore.ConvergenceError):
        odeint_adjoint(lambda t, z: np.nan * z, lambda t, z, a: (a, (), ()), z, [0, 1], g)

    def fails(t, z, a):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        odeint_adjoint(lambda t, z: -z, fails, z, [0, 1], g)
    with pytest.raises(ValueError, match="expected None"):
        odeint_adjoint(deqcore.maps.Field(np.ones((1, 1)), np.ones((1, 1))), fails, z, [0, 1], g)


@pytest.mark.parametrize("gradient", ["adjoint", "solver", "frozen"])
@pytest.mark.parametrize("native", [False, True])
def test_failures_tell_of_the_integration_that_failed(gradient, native):
    """Three times: the interval from 1 to 2 is crossed, that from 0 to 1 is not."""
    z, g, u = np.zeros((3, 2, 1)), np.ones((2, 1)), -np.ones((2, 1))
    f, vjp, method = deqcore.maps.Field(np.ones((1, 1)), np.full((1, 1), 1e200), activation="relu"), None, RK4(2)
    if native:
        z[1, 1] = z[2, 1] = 0.0 if gradient == "solver" else 1e250
        z[0, 1] = 1e250  # row 1 leaves the range from here
    else:
        f = lambda t, z, u: -z * (np.nan if t < 0.9 else 1.0)  # noqa: E731
        vjp = lambda t, z, a, u: (-a, (), ())  # noqa: E731
    with pytest.raises(deqcore.ConvergenceError) as raised:
        odeint_adjoint(f, vjp, z, [0, 1, 2], g, row_args=(u,), gradient=gradient, method=method)
    said, solution = str(raised.value), raised.value.solution
    assert said.startswith("odeint_adjoint: ")
    assert "on_failure" not in said
    forward = gradient == "solver"
    start, end = (0.0, 1.0) if forward else (1.0, 0.0)
    if native and not forward:
        start, end = 2.0, 1.0
    assert solution.times.tolist() == [start, end]
    assert f"did not reach t = {end:g}" in said
    assert solution.value.shape == (2, 2, 1)
    assert np.isfinite(solution.value[0]).all()
    assert np.isnan(solution.value[1, 1]).all()
    assert np.isfinite(solution.value[1, 0]).all() == native
    asked = "f answered" if forward else "f or its product answered" if native else "f or vjp answered"
    assert asked in solution.explain()


@pytest.mark.parametrize("gradient", ["adjoint", "solver", "frozen"])
def test_a_gradient_that_is_no_number_is_not_returned(gradient):
    z0, times, method = np.ones((2, 3)), [0.0, 1.0], RK4(4)
    z = odeint(lambda t, z: -z, z0, times, method=method).value
    shared = {"method": method, "gradient": gradient}

    def differentiate(vjp):
        return odeint_adjoint(lambda t, z: -z, vjp, z, times, z0, **shared)

    with pytest.raises(FloatingPointError, match=r"parameters\[1\]"):
        differentiate(lambda t, z, a: (-a, (a,), (a.sum(), a.sum(axis=0) * np.nan)))
    if gradient == "solver":  # the adjoint's integration ends where it is; the frozen one never looks
        with pytest.raises(FloatingPointError, match="z0"):
            differentiate(lambda t, z, a: (a * np.inf, (), ()))
    for wrong in (3, [1.0], "a", np.ones(3, int)):
        with pytest.raises(TypeError, match="vjp returned"):
            differentiate(lambda t, z, a, wrong=wrong: (-a, (), (wrong,)))


def test_a_native_gradient_beyond_the_range_is_not_returned():
    field = deqcore.maps.Field(np.full((4, 3), 0.1), np.full((3, 4), 1e160), activation="identity")
    z, g = np.zeros((2, 2, 3)), np.full((2, 3), 1e200)
    with pytest.raises(FloatingPointError, match="z0"):
        odeint_adjoint(field, None, z, [0, 1], g, row_args=(np.zeros(4),), method=RK4(2), gradient="solver")


@pytest.mark.parametrize("gradient", ["adjoint", "solver", "frozen"])
def test_a_row_has_the_same_gradient_alone_and_in_a_batch(rng, dtype, gradient):
    p = Problem(rng, rows=5, width=16, hidden=24, dtype=dtype, gain=3.0)
    field, times = p.field(), np.linspace(0, 2, 5)
    options = {"method": RK4(3)} if gradient == "solver" else {}
    g = rng.standard_normal((5, *p.z0.shape)).astype(dtype)

    def at(rows):
        z = odeint(field, p.z0[rows], times, row_args=(p.u[rows],), **options).value
        return odeint_adjoint(field, None, z, times, g[:, rows], row_args=(p.u[rows],), gradient=gradient, **options)

    together = at(slice(None))
    for row in range(5):
        alone = at(slice(row, row + 1))
        assert np.array_equal(alone.z0[0], together.z0[row])
        assert np.array_equal(alone.row_args[0][0], together.row_args[0][row])
