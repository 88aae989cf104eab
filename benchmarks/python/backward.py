# SPDX-License-Identifier: Apache-2.0
"""Native backward solves of tanh(W z + x), norm of W 0.9, to 1e-5, beside as many evaluations of the map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, in_turn

SHAPES = [(1, 64), (1, 1024), (32, 128), (64, 512), (256, 1024), (1024, 256)]
METHODS = ("gmres", "bicgstab", "anderson", "picard")


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in [(3, 20)] if plan.quick else SHAPES:
        for dtype in (np.float32, np.float64):
            yield from measure(plan, rows, width, dtype)


def measure(plan: Plan, rows: int, width: int, dtype: Any) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((width, width))
    W = (W * (0.9 / np.linalg.norm(W, 2))).astype(dtype)
    x, g = rng.standard_normal((2, rows, width)).astype(dtype)
    layer = deqcore.maps.Dense(W)
    z = deqcore.fixed_point(layer, np.zeros_like(x), row_args=(x,)).value
    for method in METHODS:

        def solve(method: str = method) -> deqcore.Solution:
            return deqcore.adjoint(layer, z, g, row_args=(x,), method=method, rtol=1e-5, threads=1)

        solution = solve()

        def evaluations(count: int = solution.rows_asked // rows) -> None:
            for _ in range(count):
                layer(z, x, threads=1)

        times = in_turn(plan, 1, [solve, evaluations])
        yield case(
            "backward dense tanh, norm 0.9, rtol 1e-5",
            method,
            dtype,
            rows,
            width,
            1,
            counts={"nfe": solution.nfe, "rows_asked": solution.rows_asked, "steps": int(solution.steps.sum())},
            samples=times[:, 0],
            floor=(float(np.median(times[:, 1])), "its products"),
        )
