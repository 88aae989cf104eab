# SPDX-License-Identifier: Apache-2.0
"""One step of a solve on CuPy arrays beyond a map that costs nothing, against the bytes it moves at copy bandwidth.

A step of Picard reads 4 blocks (z and f measured, f again, and the point written); one of Anderson with m full columns
moves 2 m + 12. The map's answers are ready, random and more than the window holds, as in ``step``.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case

SHAPES = [(64, 512), (1024, 2048), (4096, 2048), (16384, 1024), (1, 1 << 22)]
QUICK = [(3, 20)]
ANSWERS = 9


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    import cupy

    for rows, width in QUICK if plan.quick else SHAPES:
        for dtype in (np.float32, np.float64):
            yield measure(plan, cupy, deqcore.Picard(), 4, rows, width, dtype)
            anderson = deqcore.Anderson(growth=math.inf)
            yield measure(plan, cupy, anderson, 2 * anderson.history + 12, rows, width, dtype)


def measure(
    plan: Plan, cupy: Any, method: deqcore.Method, blocks: int, rows: int, width: int, dtype: Any
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    answers = [cupy.asarray(rng.uniform(-1, 1, (rows, width)).astype(dtype)) for _ in range(ANSWERS)]
    z0 = cupy.zeros((rows, width), dtype)
    long, short = (40, 20) if plan.quick else (220, 20)
    synchronize = cupy.cuda.get_current_stream().synchronize

    def solve(steps: int) -> float:
        following = itertools.cycle(answers).__next__
        synchronize()
        start = time.perf_counter()
        solution = deqcore.fixed_point(
            lambda z: following(), z0, method=method, max_steps=steps, retire=False, on_failure="return"
        )
        synchronize()
        seconds = time.perf_counter() - start
        if solution.nfe != steps:
            raise RuntimeError(f"the map was called {solution.nfe} times and not {steps}: {solution.message}")
        return seconds

    bytes_moved = blocks * rows * width * np.dtype(dtype).itemsize
    copy = copy_seconds(plan, cupy, bytes_moved)
    solve(short)
    rounds = np.array([(solve(long), solve(short), copy()) for _ in range(min(plan.repeats, 11))])
    return case(
        "one step on a device beyond the map",
        method.name,
        dtype,
        rows,
        width,
        1,
        queue="cuda",
        clock="wall",
        counts={"nfe": long, "bytes": bytes_moved},
        samples=(rounds[:, 0] - rounds[:, 1]) / (long - short),
        floor=(float(np.median(rounds[:, 2])), "its bytes at copy bandwidth"),
    )


def copy_seconds(plan: Plan, cupy: Any, bytes_moved: int) -> Any:
    """-> a function that times copies of so many bytes, half read and half written."""
    source = cupy.zeros(max(bytes_moved // 16, 1), np.float64)
    target = cupy.zeros(source.shape, np.float64)
    times = 1 if plan.quick else 50
    synchronize = cupy.cuda.get_current_stream().synchronize

    def seconds() -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(times):
            target[...] = source
        synchronize()
        return (time.perf_counter() - start) / times

    return seconds
