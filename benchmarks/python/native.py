# SPDX-License-Identifier: Apache-2.0
"""Native solves of z = tanh(W z + x), |W|_2 = 0.9, rtol 1e-6, called from Python: what the call adds to C++."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from deqcore import _core
from deqcore._arrays import numpy_door
from deqcore._dialogue import Report
from deqcore._methods import native_of, resolve_method
from deqcore._options import stop_rule
from harness.measure import Plan, case, in_turn

SHAPES = [(1, 64), (1, 1024), (32, 128), (64, 512), (256, 1024), (1024, 256)]
QUICK = [(1, 8), (3, 20)]


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in QUICK if plan.quick else SHAPES:
        for method in ("picard", "anderson"):
            for threads in (1, 2):
                yield measure(plan, method, rows, width, threads)


def measure(plan: Plan, method: str, rows: int, width: int, threads: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((width, width))
    W = (W * (0.9 / np.linalg.norm(W, 2))).astype(np.float32)
    x = rng.standard_normal((rows, width)).astype(np.float32)
    z0 = np.zeros_like(x)
    layer = deqcore.maps.Dense(W)

    def call() -> deqcore.Solution:
        return deqcore.fixed_point(layer, z0, row_args=(x,), method=method, rtol=1e-6, max_steps=1000, threads=threads)

    # the same solve at the seam to C++, everything else made beforehand
    report, result = Report(numpy_door, rows, 0), np.empty_like(x)
    options = native_of(resolve_method(method, "fixed_point"))
    stop = stop_rule(rtol=1e-6, atol=0.0, max_steps=1000, norm=2, look_every=1, retire=_core.Retire.on)

    def inside() -> Any:
        return layer._native.solve(z0, x, result, report.native, None, options, stop, threads)

    solution = call()
    times = in_turn(plan, threads, [call, inside])
    return case(
        "dense tanh from Python, norm 0.9, rtol 1e-6",
        method,
        np.float32,
        rows,
        width,
        threads,
        counts={"nfe": solution.nfe, "rows_asked": solution.rows_asked, "steps": int(solution.steps.sum())},
        samples=times[:, 0],
        floor=(float(np.median(times[:, 1])), "the solve in C++"),
        parts={"call beyond the solve": float(np.median(times[:, 0] - times[:, 1]))},
    )
