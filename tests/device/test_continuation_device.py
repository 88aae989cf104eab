# SPDX-License-Identifier: Apache-2.0
"""Continuation on CuPy arrays: the ends, folds and records of NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from support.problems import weights

ROWS, WIDTH = 5, 12


@pytest.fixture
def problem(rng, dtype):
    """W and x of tanh(W z + x), which no iteration contracts."""
    W = weights(rng, WIDTH, 3.0)
    return W.astype(dtype), rng.standard_normal((ROWS, WIDTH)).astype(dtype)


def on_both(cp, problem, given, homotopy, **options):
    """The solve on the host and on the device."""
    solved = []
    for xp in (np, cp):
        W, x = map(xp.asarray, problem)

        def f(z, x, xp=xp, W=W):
            return xp.tanh(z @ W.T + x)

        def jvp(z, v, x, xp=xp, W=W):
            return (1 - xp.tanh(z @ W.T + x) ** 2) * (v @ W.T)

        def H(z, lam, x, f=f):
            return z - lam * f(z, x)

        chosen = H if homotopy == "own" else homotopy
        options["jvp"] = jvp if given and homotopy != "own" else None
        z0 = xp.zeros(x.shape, x.dtype)
        solved.append(deqcore.follow(f, z0, row_args=(x,), homotopy=chosen, on_failure="return", **options))
    return solved


@pytest.mark.parametrize("dense_width", [0, 64])
@pytest.mark.parametrize("homotopy", ["fixed_point", "own"])
@pytest.mark.parametrize("given", [True, False], ids=["jvp", "differences"])
def test_paths_are_those_of_numpy(cp, problem, dtype, given, homotopy, dense_width):
    tracker = deqcore.Tracker(dense_width=dense_width)
    host, device = on_both(cp, problem, given, homotopy, tracker=tracker, record=500, components=[0, 3])
    assert device.success
    assert host.success
    for name in ("end", "folds", "solves", "accepted", "lam", "verified", "entries"):
        assert isinstance(getattr(device.path, name), cp.ndarray), name
    assert device.path.verified.get().all()
    if dtype == np.float64:
        np.testing.assert_allclose(device.value.get(), host.value, atol=1e-6)
        assert device.path.folds.get().tolist() == host.path.folds.tolist()
        ours, theirs = host.path.points(2), device.path.points(2)
        np.testing.assert_allclose(theirs.lam[:10], ours.lam[:10], atol=1e-6)
        np.testing.assert_allclose(theirs.z[:10], ours.z[:10], atol=1e-6)


def test_the_field_is_that_of_numpy(cp, problem):
    W, x = problem
    fields = []
    for xp in (np, cp):
        own_W, own_x = xp.asarray(W), xp.asarray(x)
        field = deqcore.davidenko(
            lambda z, x, xp=xp, W=own_W: xp.tanh(0.2 * z @ W.T + x), xp.zeros(x.shape, x.dtype), row_args=(own_x,)
        )
        fields.append(field(0.5, 0.1 * own_x))
    np.testing.assert_allclose(fields[1].get(), fields[0], rtol=2e-2 if W.dtype == np.float32 else 1e-5)
