# SPDX-License-Identifier: Apache-2.0
"""SciPy's Anderson on the whole batch as one vector, the map in float32 NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..contest import Contestant
from ..problems import STEPS, Problem
from .ours import in_numpy

NEEDS = ("scipy",)
INSTALL = "pip install scipy"


def solvers(problem: Problem, method: str) -> Iterator[Contestant]:
    if method != "anderson":
        return
    from scipy.optimize import NoConvergence, anderson

    f, z0 = in_numpy(problem), np.zeros_like(problem.x)
    scale = float(np.linalg.norm(problem.x))
    # alpha: F(z) = f(z) - z has a Jacobian near -1; no line search: a step costs one evaluation
    tuned: dict[str, Any] = {"alpha": 1.0, "M": 6, "line_search": None}
    settings: list[tuple[str, int, dict[str, Any]]] = [("default", 1, {})]
    for w0, blas in ((1e-2, 1), (1e-2, 2), (1e-5, 1)):
        settings.append((f"M 6, alpha 1, w0 {w0:g}, no line search; BLAS {blas}", blas, {**tuned, "w0": w0}))
    for setting, blas, options in settings:

        def solve(tolerance: float, options: dict[str, Any] = options) -> np.ndarray:
            try:
                return anderson(
                    lambda z: f(z, problem.x) - z, z0, f_tol=tolerance * scale, tol_norm=np.linalg.norm,
                    maxiter=STEPS, **options,
                )  # fmt: skip
            except NoConvergence as error:
                return np.asarray(error.args[0]).reshape(z0.shape)

        yield Contestant("SciPy", setting, solve, default=setting == "default", blas=blas)
