# SPDX-License-Identifier: Apache-2.0
"""Anderson with its history in 16 bits beside the full one.

time         a step beyond the map, on a NumPy callable that costs nothing (as in step.py), in turns
evaluations  to rtol on z = tanh(W z + b) from zero, width 400, the families of evaluations.py
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
from python.evaluations import IID, OUTLIER, WIDTH, iid, outlier

SHAPES = {(64, 512): 400, (256, 4096): 20, (8, 100_000): 20}  # and steps
QUICK = {(2, 9): 12}
ANSWERS = 9
DRAWS = 10
STORED = ("full", "bfloat16")


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for (rows, width), steps in (QUICK if plan.quick else SHAPES).items():
        for dtype in (np.float32, np.float64):
            yield from times(plan, rows, width, steps, dtype)
    wide, draws = (16, 2) if plan.quick else (WIDTH, DRAWS)
    problems = {f"iid {gain}": [iid(gain, seed, wide) for seed in range(draws)] for gain in IID}
    for top, kind in OUTLIER:
        problems[f"outliers {top} {kind}"] = [outlier(top, kind, seed, wide) for seed in range(draws)]
    for name, drawn in problems.items():
        for dtype, rtol in ((np.float32, 1e-6), (np.float64, 1e-8)):
            for storage in STORED:
                yield evaluations(name, drawn, storage, wide, dtype, rtol)


def times(plan: Plan, rows: int, width: int, steps: int, dtype: Any) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    answers = [rng.uniform(-1, 1, (rows, width)).astype(dtype) for _ in range(ANSWERS)]
    z0 = np.zeros((rows, width), dtype)

    def solve(storage: str, steps: int) -> float:
        following = itertools.cycle(answers).__next__
        method = deqcore.Anderson(growth=math.inf, storage=storage)
        start = time.thread_time()
        solution = deqcore.fixed_point(
            lambda z: following(), z0, method=method, max_steps=steps, threads=1, on_failure="return"
        )
        seconds = time.thread_time() - start
        if solution.nfe != steps:
            raise RuntimeError(f"the map was called {solution.nfe} times and not {steps}: {solution.message}")
        return seconds

    def step(storage: str) -> float:
        return (solve(storage, steps + ANSWERS) - solve(storage, ANSWERS)) / steps

    rounds = np.array([[step(storage) for storage in STORED] for _ in range(plan.repeats)])
    for k, storage in enumerate(STORED):
        method = deqcore.Anderson(storage=storage)
        yield case(
            "one step beyond a free map, by storage",
            f"anderson, {storage}",
            dtype,
            rows,
            width,
            1,
            counts={"scratch_bytes": deqcore.scratch_bytes(rows, width, dtype, method=method)},
            samples=rounds[:, k],
            parts={"full": float(np.median(rounds[:, 0]))},
        )


def evaluations(name: str, drawn: list[Any], storage: str, width: int, dtype: Any, rtol: float) -> dict[str, Any]:
    solutions = [
        deqcore.fixed_point(
            deqcore.maps.Dense(W.astype(dtype)), np.zeros(width, dtype), row_args=(b.astype(dtype),), rtol=rtol,
            method=deqcore.Anderson(storage=storage), max_steps=500, threads=1, on_failure="return",
        )
        for W, b in drawn
    ]  # fmt: skip
    solved = [solution.nfe for solution in solutions if solution.success]
    return case(
        f"evaluations to {rtol:g} by storage, {name}",
        f"anderson, {storage}",
        dtype,
        1,
        width,
        1,
        counts={
            "solved": len(solved),
            "of": len(drawn),
            "median_evaluations": float(np.median(solved)) if solved else None,
            "singular": sum(int(solution.singular.sum()) for solution in solutions),
        },
    )
