# SPDX-License-Identifier: Apache-2.0
"""z = tanh(W z + x), norm of W 0.9, per-row relative tolerance 1e-6, float32, two threads, by Anderson and Picard.

W is ready beforehand in every library's own form; what packing it costs deqcore is in its line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.measure import Plan

from . import peers, problems
from .contest import by_rows, contest


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in problems.QUICK if plan.quick else problems.SIZES:
        problem = problems.gaussian(rows, width)
        for method in ("anderson", "picard"):
            yield from measure(plan, f"solve tanh 0.9, {method}", problem, method)


def measure(plan: Plan, name: str, problem: problems.Problem, method: str) -> Iterator[dict[str, Any]]:
    yield from contest(
        plan,
        name,
        list(peers.contestants("solvers", problem, method)),
        by_rows(problem.residuals, problems.RTOL * problems.SLACK),
        problem.rows,
        problem.width,
        problem.threads,
        {"packing": packing_seconds(problem)},
    )


def packing_seconds(problem: problems.Problem) -> float:
    pack = peers.ours.packing(problem)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        pack()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
