# SPDX-License-Identifier: Apache-2.0
"""One training step: forward, backward and the gradient to W of the sum of z^2; relu, Gaussian W of norm 0.99.

New weights at every step, so packing counts. Both solves to 1e-6; the gradient is held against float64's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from harness.measure import Plan

from . import peers, problems
from .contest import Verdict, contest

ERROR = 1e-5  # of dW, relative in the Frobenius norm: what solves to 1e-6 leave is below


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    for rows, width in problems.QUICK if plan.quick else problems.SIZES:
        yield from measure(plan, problems.gaussian(rows, width, "relu", 0.99))


def measure(plan: Plan, problem: problems.Problem) -> Iterator[dict[str, Any]]:
    exact = problems.gradient_of_squares(problem)
    limit = problems.RTOL * problems.SLACK

    def judge(answer: tuple[np.ndarray | None, np.ndarray]) -> Verdict:
        z, dW = answer
        converged = problem.rows if z is None else int((problem.residuals(z) <= limit).sum())
        error = float(np.linalg.norm(dW - exact) / np.linalg.norm(exact))
        good = converged == problem.rows and error <= ERROR
        return Verdict(
            good, {"converged": converged, "of": problem.rows}, error if np.isfinite(error) else float("inf")
        )

    yield from contest(
        plan,
        "training step, relu 0.99",
        list(peers.contestants("trainers", problem)),
        judge,
        problem.rows,
        problem.width,
        problem.threads,
    )
