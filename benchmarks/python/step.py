# SPDX-License-Identifier: Apache-2.0
"""One step of the Python dialogue beyond the map: (long solve - short solve) / steps - the bare loop over the same map.

The map costs nearly nothing: its answers are ready, random and more than the window holds, so that no solve converges
and every window stays full.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case

SHAPES = [(1, 64), (1, 1024), (32, 128), (64, 512)]
QUICK = [(1, 8)]
LONG, SHORT = 4200, 200
ANSWERS = 9


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in QUICK if plan.quick else SHAPES:
        for dtype in (np.float32, np.float64):
            yield measure(plan, deqcore.Picard(), rows, width, dtype)
            yield measure(plan, deqcore.Anderson(growth=math.inf), rows, width, dtype)


def measure(plan: Plan, method: deqcore.Method, rows: int, width: int, dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    answers = [rng.uniform(-1, 1, (rows, width)).astype(dtype) for _ in range(ANSWERS)]
    z0 = np.zeros((rows, width), dtype)
    long, short = (60, 20) if plan.quick else (LONG, SHORT)

    def free_map() -> Callable[[np.ndarray], np.ndarray]:
        following = itertools.cycle(answers).__next__
        return lambda z: following()

    def solve(steps: int) -> float:
        f = free_map()
        start = time.thread_time()
        solution = deqcore.fixed_point(f, z0, method=method, max_steps=steps, threads=1, on_failure="return")
        seconds = time.thread_time() - start
        if solution.nfe != steps:
            raise RuntimeError(f"the map was called {solution.nfe} times and not {steps}: {solution.message}")
        return seconds

    def bare(calls: int) -> float:
        f = free_map()
        start = time.thread_time()
        for _ in range(calls):
            f(z0)
        return time.thread_time() - start

    solve(short)
    rounds = np.array([(solve(long), solve(short), bare(long - short)) for _ in range(plan.repeats)])
    steps = long - short
    map_alone = rounds[:, 2] / steps
    return case(
        "one step of the Python dialogue beyond the map",
        method.name,
        dtype,
        rows,
        width,
        1,
        counts={"nfe": long},
        samples=(rounds[:, 0] - rounds[:, 1]) / steps - map_alone,
        parts={"map and bare loop": float(np.median(map_alone)), "short solve": float(np.median(rounds[:, 1]))},
    )
