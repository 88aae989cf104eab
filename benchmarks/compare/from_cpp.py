# SPDX-License-Identifier: Apache-2.0
"""The whole solve at 1 x 64 repeated from C++, beside the limit program called from the same loop; tanh, norm 0.9."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from harness.measure import Plan, case, figures, in_turn

from . import peers, pools, problems, products
from .contest import by_rows
from .problems import RTOL, SLACK, STEPS

HISTORY = 6
CASE_SECONDS = 2.0


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    library = products.load(plan.quick)
    for method in ("anderson", "picard"):
        yield from measure(plan, library, method, problems.gaussian(*(problems.QUICK[0] if plan.quick else (1, 64))))


def measure(plan: Plan, library: Any, method: str, problem: problems.Problem) -> Iterator[dict[str, Any]]:
    times = 1 if plan.quick else 20  # per timed call
    address, count = ctypes.c_void_p, ctypes.c_int64
    library.compare_solve_new.restype, library.compare_solve_delete.argtypes = address, [address]
    library.compare_solve_new.argtypes = [
        ctypes.c_char_p, count, count, ctypes.c_int, ctypes.c_double, ctypes.c_int, address, address,
    ]  # fmt: skip
    library.compare_solve_run.argtypes, library.compare_solve_run.restype = [address, address, count], None
    handle = library.compare_solve_new(
        method.encode(), problem.rows, problem.width, problem.threads, RTOL, STEPS, problem.W.ctypes.data,
        problem.x.ctypes.data,
    )  # fmt: skip
    answers = {"deqcore": np.empty_like(problem.x)}
    bodies: dict[str, Callable[[], Any]] = {
        "deqcore": partial(library.compare_solve_run, handle, answers["deqcore"].ctypes.data, times)
    }
    if peers.there("limit program"):
        z = answers["limit program"] = np.empty_like(problem.x)
        bodies["limit program"] = peers.limit.from_cpp(library, problem, method, HISTORY, z, times)
    before = [pools.before(1, 1, body, 0.0) for body in bodies.values()]
    taken = in_turn(plan, problem.threads, list(bodies.values()), before=before, wall=True, case_seconds=CASE_SECONDS)
    library.compare_solve_delete(handle)
    taken /= times
    judge, medians = by_rows(problem.residuals, RTOL * SLACK), np.median(taken, axis=0)
    for column, (name, z) in enumerate(answers.items()):
        verdict = judge(z)
        line = case(
            f"solve from C++, tanh 0.9, {method}", name, np.float32, problem.rows, problem.width, problem.threads,
            clock="wall", counts=verdict.counts, samples=taken[:, column],
        )  # fmt: skip
        line |= {"library": name, "good": verdict.good, "error": figures(verdict.error)}
        yield line | {"over_ours": figures(float(medians[column] / medians[0]))}
