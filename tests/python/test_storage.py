# SPDX-License-Identifier: Apache-2.0
"""Anderson with its history in 16 bits: the same answers, honestly judged, for about as many evaluations."""

from __future__ import annotations

import math

import numpy as np
import pytest

import deqcore
from deqcore import Anderson
from support.problems import independent_rows, weights
from support.same_bits import speeds

HALF = "bfloat16"
FAMILIES = {
    "tanh of norm 0.9": (np.tanh, 0.9),
    "tanh of norm 0.99": (np.tanh, 0.99),
    "tanh of norm 1.5": (np.tanh, 1.5),
    "relu of norm 0.9": (lambda x: np.maximum(x, 0), 0.9),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("history", [3, 6, 12])
def test_the_same_problems_are_solved_for_a_quarter_more_at_most(family, history, dtype, rng):
    activation, norm = FAMILIES[family]
    W = weights(rng, 200, norm).astype(dtype)
    x = rng.standard_normal((12, 200)).astype(dtype)
    rtol = 1e-5 if dtype == np.float32 else 1e-10

    def f(z, x):
        return activation(z @ W.T + x)

    full, half = (
        deqcore.fixed_point(
            f, np.zeros_like(x), row_args=(x,), method=Anderson(history=history, storage=storage), rtol=rtol
        )
        for storage in ("full", HALF)
    )
    assert full.success
    assert half.success
    assert half.rows_asked <= 1.25 * full.rows_asked
    residual = np.linalg.norm(f(half.value, x) - half.value, axis=1)
    np.testing.assert_allclose(half.residual, residual, rtol=1e-3, atol=1e-6 if dtype == np.float32 else 1e-12)
    assert (residual <= 1.01 * rtol * np.linalg.norm(half.value, axis=1) + 1e-6).all()
    assert half.value.tobytes() != full.value.tobytes()  # the option does something


@pytest.mark.parametrize("of", [deqcore.adjoint, deqcore.tangent])
def test_backward_solves_take_it(of, dtype, rng):
    A = weights(rng, 60, 0.9).astype(dtype)
    g = rng.standard_normal((5, 60)).astype(dtype)
    M = A if of is deqcore.tangent else A.T
    solution = of(lambda z, v: v @ M.T, np.zeros_like(g), g, method=Anderson(history=10, storage=HALF))
    exact = np.linalg.solve(np.eye(60) - M.astype(np.float64), g.T.astype(np.float64)).T
    assert solution.success
    np.testing.assert_allclose(solution.value, exact, atol=2e-3 if dtype == np.float32 else 1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_native_solves_and_callables_have_the_same_bits(threads, dtype, rng):
    W = weights(rng, 96, 0.9).astype(dtype)
    x = rng.standard_normal((40, 96)).astype(dtype)
    layer, z0 = deqcore.maps.Dense(W), np.zeros_like(x)
    method = Anderson(storage=HALF)
    native = deqcore.fixed_point(layer, z0, row_args=(x,), method=method, threads=threads)
    called = deqcore.fixed_point(layer.__call__, z0, row_args=(x,), method=method, threads=threads)
    assert native.value.tobytes() == called.value.tobytes()
    assert native.residual.tobytes() == called.residual.tobytes()


@pytest.mark.parametrize("beta", [1.0, 0.7])
def test_states_beyond_the_range_of_float32_forget_and_go_on(beta):
    """Differences of 1e50 fit no column: every window is forgotten, every step plain, and the report says so."""
    c = np.array([[1e60], [1.0]])
    method = Anderson(storage=HALF, beta=beta, growth=math.inf)
    rates = np.linspace(0.2, 0.5, 40)
    solution = deqcore.fixed_point(
        lambda z, c: rates * z + c, np.zeros((2, 40)), row_args=(c,), method=method, rtol=1e-10
    )
    plain = deqcore.fixed_point(
        lambda z, c: rates * z + c, np.zeros((2, 40)), row_args=(c,), method=deqcore.Picard(beta=beta), rtol=1e-10
    )
    assert solution.success
    assert solution.steps[0] == plain.steps[0]
    assert solution.singular[0] == solution.steps[0] - 2  # of the steps that had a difference to take and went on
    assert solution.steps[1] < plain.steps[1]
    assert solution.singular[1] == 0
    np.testing.assert_allclose(solution.value, c / (1 - rates), rtol=1e-8)


def test_states_below_it_still_converge(rng):
    """Differences that round to zero take no part; steps are plain."""
    rates = np.linspace(0.2, 0.5, 40)
    solution = deqcore.fixed_point(
        lambda z: rates * z + 1e-60, np.zeros((1, 40)), method=Anderson(storage=HALF), rtol=1e-10
    )
    assert solution.success
    np.testing.assert_allclose(solution.value[0], 1e-60 / (1 - rates), rtol=1e-8)


def test_a_row_that_never_converges_is_not_called_converged(dtype):
    solution = deqcore.fixed_point(
        lambda z: z + 1, np.zeros((3, 9), dtype), method=Anderson(storage=HALF), max_steps=200, on_failure="return"
    )
    assert (solution.status != 0).all()


def test_rows_alone_and_in_a_batch_through_other_widths(dtype, rng):
    for width in (1, 7, 31, 33, 513):
        W = weights(rng, width, 0.9).astype(dtype)
        z0, c = rng.standard_normal((6, width)).astype(dtype), speeds(rng, 6, width, dtype)
        options = {"method": Anderson(history=3, storage=HALF), "rtol": 1e-4}
        batch = deqcore.fixed_point(independent_rows(W), z0, row_args=(c,), **options)
        for i in (0, 5):
            piece = slice(i, i + 1)
            alone = deqcore.fixed_point(independent_rows(W), z0[piece], row_args=(c[piece],), **options)
            assert alone.value.tobytes() == batch.value[piece].tobytes()
