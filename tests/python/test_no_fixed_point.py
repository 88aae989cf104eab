# SPDX-License-Identifier: Apache-2.0
"""A map without a fixed point is never called converged, and one whose fixed point is 0 ends."""

from __future__ import annotations

import numpy as np
import pytest

import deqcore
from deqcore import Anderson, AndersonTypeI, Newton, NewtonKrylov, Picard, Status

METHODS = [
    Picard(),
    Picard(beta=0.5),
    Anderson(),
    Anderson(history=2),
    Anderson(history=20, growth=np.inf),
    AndersonTypeI(),
    AndersonTypeI(beta=1, safeguard=np.inf),
    NewtonKrylov(),
    NewtonKrylov(descent=False),
    Newton(),
    Newton(descent=False),
]
ROWS, WIDTH = 24, 16


def drifting(rng, dtype):
    sign = np.sign(rng.standard_normal((ROWS, WIDTH))).astype(dtype)
    return lambda z: z + sign * (1 + dtype(0.1) * np.tanh(z))


def wavy(rng, dtype):
    return lambda z: z + dtype(1) + dtype(0.1) * np.sin(z)


def inconsistent(rng, dtype):
    """Linear, with eigenvalue 1 once, and a right-hand side that the singular equation cannot meet."""
    Q, _ = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))
    A = (Q * np.concatenate([[1.0], rng.uniform(-0.9, 0.9, WIDTH - 1)])) @ Q.T
    b = Q @ np.concatenate([[1.0], 0.3 * rng.standard_normal(WIDTH - 1)])
    A, b = A.astype(dtype), b.astype(dtype)
    return lambda z: z @ A + b


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("problem", [drifting, wavy, inconsistent])
def test_no_row_converges_without_a_fixed_point(problem, method, dtype, rng):
    for rtol in (1e-3, 1e-4, 1e-6):
        for max_steps in (60, 1500):
            f = problem(rng, dtype)
            # a third of the rows starts at 0, a third near it, a third farther off
            z0 = rng.standard_normal((ROWS, WIDTH)) * np.repeat([0, 1, 10], ROWS // 3)[:, None]
            solution = deqcore.fixed_point(
                f, z0.astype(dtype), method=method, rtol=rtol, max_steps=max_steps, on_failure="return"
            )
            assert not (solution.status == Status.converged).any(), (rtol, max_steps, solution.explain())
            assert not solution.success


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_no_row_converges_without_a_fixed_point_at_the_default_tolerance(method, dtype, rng):
    for problem in (drifting, wavy, inconsistent):
        z0 = rng.standard_normal((ROWS, WIDTH)).astype(dtype)
        with pytest.raises(deqcore.ConvergenceError) as caught:
            deqcore.fixed_point(problem(rng, dtype), z0, method=method, max_steps=400)
        assert (caught.value.solution.status < 0).all()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_drift_far_from_its_start_needs_a_scale(method, dtype, rng):
    z0 = np.full((ROWS, WIDTH), 1e3, dtype)
    solution = deqcore.fixed_point(wavy(rng, dtype), z0, scale=1.0, method=method, max_steps=400, on_failure="return")
    assert (solution.status < 0).all()


def test_an_iterate_that_runs_away_is_called_diverged(dtype, rng):
    z0 = rng.standard_normal((4, 9)).astype(dtype)
    solution = deqcore.fixed_point(lambda z: 3 * z, z0, method="picard", max_steps=100, on_failure="return")
    assert (solution.status == Status.diverged).all()
    limit = {np.float32: 1e4, np.float64: 1e8}[dtype]
    norm0 = np.linalg.norm(z0, axis=1)
    # |f| = 3^k |z0| and S0 = 3 |z0|: diverged at the first k with 3^k > 3 limit
    assert (solution.steps == int(np.floor(np.log(3 * limit) / np.log(3))) + 1).all()
    np.testing.assert_allclose(solution.scale, 3 * norm0, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_halving_ends_at_once_at_zero_and_soon_elsewhere(method, dtype, rng):
    def half(z):
        return z * dtype(0.5)

    at_zero = deqcore.fixed_point(half, np.zeros((3, 5), dtype), method=method)
    assert at_zero.success
    assert at_zero.steps.tolist() == [1, 1, 1]
    assert not at_zero.value.any()

    z0 = rng.standard_normal((20, 5)).astype(dtype)
    elsewhere = deqcore.fixed_point(half, z0, method=method)
    assert elsewhere.success
    # the floor 4 eps S0 ends it: plain halving from |z0| needs |z| / 2 <= 4 eps |z0|
    plain = -np.log2(4 * np.finfo(dtype).eps)
    beta = getattr(method, "beta", 1)
    assert elsewhere.steps.max() <= (plain + 1) / min(1, -np.log2(1 - beta / 2))
    assert (np.linalg.norm(elsewhere.value, axis=1) <= 10 * np.finfo(dtype).eps * np.linalg.norm(z0, axis=1)).all()


@pytest.mark.parametrize("factor", [0.9, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("kind", ["linear", "tanh"])
def test_contractions_up_to_0_9999_converge_in_float64(factor, kind, rng):
    width = 24
    Q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    spectrum = factor * np.linspace(-1, 1, width)
    W = (Q * spectrum) @ Q.T
    x = 0.1 * rng.standard_normal((6, width))
    a = np.tanh if kind == "tanh" else (lambda y: y)
    solution = deqcore.fixed_point(lambda z, x: a(z @ W + x), np.zeros((6, width)), row_args=(x,), max_steps=1000)
    assert solution.success
    expected = np.linalg.solve(np.eye(width) - W, x.T).T if kind == "linear" else None
    if expected is not None:  # the error is at most residual / (1 - factor)
        error = np.linalg.norm(solution.value - expected, axis=1)
        assert (error <= solution.residual / (1 - factor) * 1.01 + 1e-12).all()


@pytest.mark.parametrize("factor", [0.9, 0.99, 0.999, 0.9999])
def test_picard_takes_the_steps_that_the_contraction_factor_predicts(factor):
    z0 = np.zeros((1, 3))
    solution = deqcore.fixed_point(lambda z: factor * z + 1, z0, method="picard", rtol=1e-6, max_steps=10**6)
    assert solution.success
    # g after k steps is factor^k g0 with g0 = 1 per element, and f tends to 1 / (1 - factor), capped at 10 S0 = 10
    image = min(1 / (1 - factor), 10)
    predicted = np.log(1e-6 * image) / np.log(factor) + 1
    assert abs(int(solution.steps[0]) - predicted) <= 2
