# SPDX-License-Identifier: Apache-2.0
"""Backward, forward-mode and linear solves on CuPy arrays: the same answers and statuses as on NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import GMRES, SHINE, Anderson, AndersonTypeI, Broyden, Direct, JacobianFree, Neumann, Phantom, Status
from support.problems import weights

ROWS, WIDTH = 7, 30
RIGHT = {np.float32: 2e-3, np.float64: 1e-8}
METHODS = ["gmres", GMRES(restart=5), "bicgstab", Direct(), "anderson", "picard", AndersonTypeI(), Broyden()]


@pytest.fixture
def system(rng, dtype):
    """A fixed point of tanh(W z + x), and a gradient there."""
    W = weights(rng, WIDTH, 0.9)
    x, g = rng.standard_normal((2, ROWS, WIDTH))
    z = deqcore.fixed_point(lambda z, x: np.tanh(z @ W.T + x), np.zeros_like(x), row_args=(x,), rtol=1e-14).value
    return [a.astype(dtype) for a in (W, z, g, x)]


def products(xp, W):
    """J' v and J v at z."""

    def slope(z, x):
        return 1 - xp.tanh(z @ W.T + x) ** 2

    return (lambda z, v, x: (slope(z, x) * v) @ W), (lambda z, v, x: slope(z, x) * (v @ W.T))


def on_both(cp, system, function, which, **options):
    """The solve on the host and on the device."""
    W, z, g, x = system
    host = function(products(np, W)[which], z, g, row_args=(x,), **options)
    W, z, g, x = map(cp.asarray, system)
    return host, function(products(cp, W)[which], z, g, row_args=(x,), **options)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("function", [deqcore.adjoint, deqcore.tangent])
def test_exact_solves_are_those_of_numpy(cp, system, dtype, function, method):
    host, device = on_both(cp, system, function, int(function is deqcore.tangent), method=method)
    assert device.success
    for name in ("value", "residual", "scale", "status", "steps"):
        assert isinstance(getattr(device, name), cp.ndarray), name
    scale = np.linalg.norm(host.value, axis=1, keepdims=True)
    np.testing.assert_allclose(device.value.get() / scale, host.value / scale, atol=RIGHT[dtype])
    assert abs(int(device.steps.max()) - int(host.steps.max())) <= 2
    assert set(device.method) == set(host.method)


@pytest.mark.parametrize("look_every", [1, 3, 7])
@pytest.mark.parametrize("retire", [True, False, "halve"])
def test_looking_and_retiring_change_no_bit(cp, rng, dtype, look_every, retire):
    rates = cp.asarray(rng.uniform(-0.9, 0.9, (ROWS, 133)).astype(dtype))
    g = cp.asarray(rng.standard_normal((ROWS, 133)).astype(dtype))

    def solve(rows=slice(None), **options):
        return deqcore.adjoint(lambda z, v, rates: rates * v, g[rows], g[rows], row_args=(rates[rows],), **options)

    together = solve()
    other = solve(look_every=look_every, retire=retire)
    np.testing.assert_array_equal(other.value.get(), together.value.get())
    np.testing.assert_array_equal(other.steps.get(), together.steps.get())
    np.testing.assert_array_equal(solve(slice(2, 3)).value.get()[0], together.value.get()[2])


@pytest.mark.parametrize("method", [JacobianFree(), Neumann(4, 0.7), Phantom(4, 0.7)], ids=str)
def test_approximate_gradients_are_those_of_numpy(cp, system, dtype, method):
    W = system[0]
    options = {"method": method, "estimate_error": True}
    on_host = {"f": lambda z, x: np.tanh(z @ W.T + x)} if isinstance(method, Phantom) else {}
    W_device = cp.asarray(W)
    on_device = {"f": lambda z, x: cp.tanh(z @ W_device.T + x)} if isinstance(method, Phantom) else {}
    host = deqcore.adjoint(products(np, W)[0], *system[1:3], row_args=(system[3],), **options, **on_host)
    z, g, x = map(cp.asarray, system[1:])
    device = deqcore.adjoint(products(cp, W_device)[0], z, g, row_args=(x,), **options, **on_device)
    assert set(device.status.get()) == {Status.approximate}
    np.testing.assert_allclose(device.value.get(), host.value, rtol=1e-3, atol=RIGHT[dtype])
    np.testing.assert_allclose(device.error.get(), host.error, rtol=0.05)
    np.testing.assert_allclose(device.residual.get(), host.residual, rtol=1e-3)
    assert device.nfe == pytest.approx(host.nfe, abs=12)
    assert "approximate by name" in device.message


def test_errors_are_estimated_and_bounded(cp, system, dtype):
    host, device = on_both(cp, system, deqcore.adjoint, 0, max_error=0.01)
    assert device.success
    assert float(device.error.max()) < 0.01
    assert host.success
    with pytest.raises(deqcore.ConvergenceError, match="ill_conditioned") as raised:
        on_both(cp, system, deqcore.adjoint, 0, max_error=1e-15)
    assert "ill_conditioned" in raised.value.solution.explain()


def test_a_warm_start_and_ids(cp, system):
    _, first = on_both(cp, system, deqcore.adjoint, 0, keep="state", ids=np.arange(ROWS))
    assert isinstance(first.warm.value, cp.ndarray)
    W, z, g, x = map(cp.asarray, system)
    order = np.random.default_rng(0).permutation(ROWS)
    there = cp.asarray(order)
    again = deqcore.adjoint(
        products(cp, W)[0], z[there], g[there], row_args=(x[there],), warm=first.warm, ids=order, rtol=1e-3
    )
    assert again.nfe <= 4  # one product, until the host looks
    with pytest.raises(TypeError, match="warm"):
        deqcore.adjoint(products(np, system[0])[0], *system[1:3], row_args=(system[3],), warm=first.warm, ids=order)


def test_linear_systems_with_a_preconditioner(cp, rng, dtype):
    A = np.eye(WIDTH) * np.linspace(1, 50, WIDTH) + 0.3 * rng.standard_normal((WIDTH, WIDTH))
    b = rng.standard_normal((ROWS, WIDTH)).astype(dtype)
    matrix, inverse = cp.asarray(A.astype(dtype)), cp.asarray((1 / np.diag(A)).astype(dtype))
    for method in ("gmres", "bicgstab"):
        plain = deqcore.linear_solve(lambda v: v @ matrix.T, cp.asarray(b), method=method)
        helped = deqcore.linear_solve(
            lambda v: v @ matrix.T, cp.asarray(b), method=method, preconditioner=lambda v: v * inverse
        )
        exact = np.linalg.solve(A, b.T.astype(np.float64)).T
        for solution in (plain, helped):
            np.testing.assert_allclose(solution.value.get(), exact, atol=100 * RIGHT[dtype] * abs(exact).max())
        assert int(helped.steps.max()) < int(plain.steps.max())


def test_a_ladder_goes_on_with_the_rows_that_failed(cp, rng):
    A = rng.standard_normal((WIDTH, WIDTH))
    W = -A @ A.T
    W *= 1.3 / np.linalg.norm(W, 2)
    x = rng.standard_normal((ROWS, WIDTH)) * np.linspace(0.05, 4, ROWS)[:, None]
    W_device = cp.asarray(W)
    options = {"method": ["picard", "anderson"], "max_steps": 400}
    host = deqcore.fixed_point(lambda z, x: np.tanh(z @ W.T + x), np.zeros_like(x), row_args=(x,), **options)
    device = deqcore.fixed_point(
        lambda z, x: cp.tanh(z @ W_device.T + x), cp.zeros(x.shape), row_args=(cp.asarray(x),), **options
    )
    assert device.success
    assert list(device.method) == list(host.method)
    np.testing.assert_allclose(device.value.get(), host.value, atol=1e-6)


@pytest.mark.parametrize("method", [Anderson(), Broyden(history=20)], ids=str)
def test_forward_solves_go_on_with_what_they_remember(cp, system, dtype, method):
    W, _, _, x = system
    ids = np.arange(ROWS)

    def solve(xp, x, **options):
        weights = xp.asarray(W)
        x = xp.asarray(x)
        return deqcore.fixed_point(
            lambda z, x: xp.tanh(z @ weights.T + x), 0 * x, row_args=(x,), method=method, rtol=1e-4, **options
        )

    first = {xp: solve(xp, x, keep="history", ids=ids) for xp in (np, cp)}
    later = x[2:] + dtype(0.02)
    after = {}
    for xp, solution in first.items():
        for options in ({"keep": "history"}, {"look_every": 5, "retire": False}):
            after[xp] = solve(xp, later, ids=ids[2:], warm=solution.warm, **options)
            assert after[xp].success
            assert int(after[xp].steps.max()) < int(solve(xp, later).steps.max())
        again = solve(xp, x, ids=ids, warm=solution.warm)
        assert again.nfe == 1 if xp is np else int(again.steps.max()) == 1
    assert isinstance(first[cp].warm.history.memory, cp.ndarray)
    assert abs(int(after[cp].steps.max()) - int(after[np].steps.max())) <= 2
    np.testing.assert_allclose(after[cp].value.get(), after[np].value, atol=1e-3)


def test_shine_is_that_of_numpy(cp, system, dtype):
    W, _, g, x = system
    ids = [3, 0, 99, 5]
    values = {}
    for xp in (np, cp):
        weights, given = xp.asarray(W), xp.asarray(x)
        forward = deqcore.fixed_point(
            lambda z, x, xp=xp, weights=weights: xp.tanh(z @ weights.T + x), 0 * given, row_args=(given,),
            method=Broyden(history=20), rtol=1e-4, keep="history", ids=np.arange(ROWS),
        )  # fmt: skip
        some = xp.asarray(np.ascontiguousarray(g[[3, 0, 1, 5]]))
        vjp = products(xp, weights)[0]
        solution = deqcore.adjoint(vjp, some, some, row_args=(some,), ids=ids, method=SHINE(forward.warm))
        assert isinstance(solution.value, xp.ndarray)
        values[xp] = solution
    host, device = values[np], values[cp]
    np.testing.assert_array_equal(device.rejected.get(), host.rejected)
    assert host.rejected[2] == 1
    np.testing.assert_allclose(device.value.get(), host.value, rtol=0, atol=0.02 * np.abs(host.value).max())
    assert set(device.status.get()) == {Status.approximate}
