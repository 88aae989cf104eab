# SPDX-License-Identifier: Apache-2.0
"""The solve at 64 x 512 while another process loads every core, over the same solve on the machine as it was."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from harness import machine
from harness.measure import Plan, case, figures, in_turn

from . import peers, pools, problems
from .contest import Entry, by_rows, entered

NEIGHBOUR = "while True: pass"
CASE_SECONDS = 2.5


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    problem = problems.gaussian(*(problems.QUICK[0] if plan.quick else (64, 512)))
    judge = by_rows(problem.residuals, problems.RTOL * problems.SLACK)
    for method in ("anderson", "picard"):
        contestants = list(peers.contestants("solvers", problem, method))
        # the settings are those of the same problem in the group of solves
        name = f"solve tanh 0.9, {method}, {problem.rows} x {problem.width}, {problem.threads}"
        roles = entered(name, contestants, judge, plan.quick)
        entries = [entry for role, entry in roles if role != "default"]
        quiet = medians(plan, entries, problem.threads)
        with neighbours():
            busy = medians(plan, entries, problem.threads)
        for entry, before, during in zip(entries, quiet.T, busy.T, strict=True):
            line = case(
                f"busy neighbours, tanh 0.9, {method}", entry.contestant.name, np.float32, problem.rows,
                problem.width, problem.threads, clock="wall", counts=entry.verdict.counts, samples=during,
                parts={"quiet": float(np.median(before))},
            )  # fmt: skip
            yield line | {
                "library": entry.contestant.library,
                "good": entry.verdict.good,
                "error": figures(entry.verdict.error),
                "over_quiet": figures(float(np.median(during) / np.median(before))),
                "over_ours": figures(float(np.median(during) / np.median(busy[:, 0]))),
            }


def medians(plan: Plan, entries: list[Entry], threads: int) -> np.ndarray:
    bodies = [lambda e=entry: e.contestant.solve(e.tolerance) for entry in entries]
    before = [
        pools.before(entry.contestant.blas, entry.contestant.torch, body, entry.seconds)
        for entry, body in zip(entries, bodies, strict=True)
    ]
    return in_turn(plan, threads, bodies, before=before, wall=True, case_seconds=CASE_SECONDS)


@contextmanager
def neighbours() -> Iterator[None]:
    """One process per core that never stops computing."""
    running = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(machine.cores())]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
