# SPDX-License-Identifier: Apache-2.0
"""Rows of very different speed: z = s_i tanh(W z) + x_i, W symmetric of norm 1, s_i uniform in 0.1..0.999.

A batch should cost what its rows need, not rows x the slowest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, in_turn

ROWS, WIDTH = 256, 128


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    rows, width = (6, 12) if plan.quick else (ROWS, WIDTH)
    for dtype in (np.float32, np.float64):
        for method in ("picard", "anderson"):
            yield measure(plan, method, rows, width, dtype)


def measure(plan: Plan, method: str, rows: int, width: int, dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((width, width))
    W = ((A + A.T) / np.linalg.norm(A + A.T, 2)).astype(dtype)
    s = rng.uniform(0.1, 0.999, (rows, 1)).astype(dtype)
    x = (0.1 * rng.standard_normal((rows, width))).astype(dtype)
    z0 = np.zeros_like(x)

    def f(z: np.ndarray, s: np.ndarray, x: np.ndarray) -> np.ndarray:
        return s * np.tanh(z @ W) + x

    def solve(members: slice, retire: bool) -> deqcore.Solution:
        return deqcore.fixed_point(
            f,
            z0[members],
            row_args=(s[members], x[members]),
            method=method,
            rtol=1e-6,
            max_steps=20_000,
            retire=retire,
            threads=1,
            on_failure="return",  # rows that stall at float32's noise are reported below
        )

    everyone = slice(None)
    on, off = solve(everyone, True), solve(everyone, False)
    alone = [solve(slice(i, i + 1), True).nfe for i in range(rows)]
    times = in_turn(plan, 1, [lambda: solve(everyone, True), lambda: solve(everyone, False)])
    return case(
        "skewed batch, rtol 1e-6",
        method,
        dtype,
        rows,
        width,
        1,
        counts={
            "rows_asked": on.rows_asked,
            "sum_of_rows_alone": sum(alone),
            "rows_x_slowest": rows * max(alone),
            "rows_asked_without_retiring": off.rows_asked,
            "converged": int((on.status == 0).sum()),
        },
        samples=times[:, 0],
        parts={"without retiring": float(np.median(times[:, 1]))},
    )
