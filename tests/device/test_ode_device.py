# SPDX-License-Identifier: Apache-2.0
"""Integration on CuPy arrays: the values, statuses and counts of NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import RK4, SteadyState, odeint, odeint_adjoint
from support.problems import weights

ROWS, WIDTH = 7, 30


@pytest.fixture
def problem(rng, dtype):
    W = weights(rng, WIDTH, 0.95)
    return (
        W.astype(dtype),
        rng.standard_normal((ROWS, WIDTH)).astype(dtype),
        np.linspace(1, 9, ROWS, dtype=dtype)[:, None],
    )


def on_both(cp, problem, **options):
    solved = []
    for xp in (np, cp):
        W, x, rates = map(xp.asarray, problem)

        def f(t, z, x, rates, W=W, xp=xp):
            return rates * (xp.tanh(z @ W.T + x) - z) + 0 * t

        solved.append(odeint(f, xp.zeros(x.shape, x.dtype), [0, 0.4, 1], row_args=(x, rates), **options))
    return solved


@pytest.mark.parametrize(
    "options", [{}, {"method": "bogacki_shampine"}, {"method": RK4(9)}, {"control": "batch"}], ids=str
)
def test_integrations_are_those_of_numpy(cp, problem, options):
    host, device = on_both(cp, problem, rtol=1e-3, **options)
    for name in ("value", "status", "evaluations", "accepted", "rejected", "reached"):
        assert isinstance(getattr(device, name), cp.ndarray), name
    assert device.success
    np.testing.assert_allclose(device.value.get(), host.value, atol=1e-3)
    assert host.nfe <= device.nfe + 12  # rows that have ended are asked about until the next look
    assert device.nfe <= host.nfe + 3 * 6  # look_every 4: up to three steps of six stages


def test_failures_are_said(cp):
    solution = odeint(lambda t, z: z * z, cp.asarray(np.ones((2, 1))), [0, 0.5, 2], on_failure="return")
    assert not solution.success
    assert "step_underflow" in solution.explain()
    assert np.isnan(solution.value[2].get()).all()


def test_gradients_are_those_of_numpy(cp, problem):
    found = []
    for xp in (np, cp):
        W, x, _ = map(xp.asarray, problem)

        def f(t, z, x, W=W, xp=xp):
            return xp.tanh(z @ W.T + x)

        def vjp(t, z, a, x, W=W, xp=xp):
            D = a * (1 - xp.tanh(z @ W.T + x) ** 2)
            return D @ W, (D,), (D.T @ z,)

        z = odeint(f, xp.zeros(x.shape, x.dtype), [0, 1], row_args=(x,), method=RK4(4), control="batch").value
        options = {"row_args": (x,), "method": RK4(4)}
        found += [odeint_adjoint(f, vjp, z, [0, 1], x, gradient=kind, **options) for kind in ("adjoint", "solver")]
    for host, device in zip(found[:2], found[2:], strict=True):
        for a, b in ((host.z0, device.z0), (host.parameters[0], device.parameters[0])):
            assert isinstance(b, cp.ndarray)
            np.testing.assert_allclose(b.get(), a, atol=1e-4)


def test_a_steady_state_is_found(cp, problem):
    W, x, _ = map(cp.asarray, problem)
    solution = deqcore.fixed_point(
        lambda z, x: cp.tanh(z @ W.T + x),
        cp.zeros(x.shape, x.dtype),
        row_args=(x,),
        method=SteadyState(),
        max_steps=800,
    )
    assert solution.success
