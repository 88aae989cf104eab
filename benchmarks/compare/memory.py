# SPDX-License-Identifier: Apache-2.0
"""What a solve holds against plan(): the solver's scratch and the results counted, and the peak that Python traces.

The map writes into one array that is there before, so that all memory a solve asks for is the solver's. The peak has
some kilobytes more: Python's own objects.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case

SHAPES = ((1, 64), (64, 512), (256, 4096), (10_000, 64), (8, 100_000))
QUICK = ((3, 20),)


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in QUICK if plan.quick else SHAPES:
        for method in (deqcore.Picard(), *(deqcore.Anderson(history=h) for h in (3, 6, 12)), deqcore.Broyden()):
            yield measure(rows, width, method)


def measure(rows: int, width: int, method: Any) -> dict[str, Any]:
    z0, image = np.ones((rows, width), np.float32), np.empty((rows, width), np.float32)

    def solve() -> deqcore.Solution:
        return deqcore.fixed_point(lambda z: np.cos(z, out=image), z0, method=method, threads=1)

    planned = deqcore.plan(rows, width, np.float32, method=method)
    solve()  # what is made once for all solves
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    solution = solve()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    report = (solution.status, solution.steps, solution.residual, solution.scale, solution.rejected, solution.singular)
    held = solution.scratch_bytes + sum(array.nbytes for array in (solution.value, *report))
    counts = {"planned": planned.bytes, "held": held}
    line = case("memory of a solve", str(method), np.float32, rows, width, 1, counts=counts)
    return line | {"library": "deqcore", "good": held == planned.bytes, "traced_peak": peak}
