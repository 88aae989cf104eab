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
    default: dict[str, Any] = {}
    # alpha: F(z) = f(z) - z has a Jacobian near -1; no line search: a step costs one evaluation
    tuned = [{"alpha": 1.0, "M": 6, "line_search": None, "w0": w0} for w0 in (1e-2, 1e-5)]
    for options in (default, *tuned):
        for blas in dict.fromkeys((1, problem.threads)):

            def solve(tolerance: float, options: dict[str, Any] = options) -> np.ndarray:
                try:
                    return anderson(
                        lambda z: f(z, problem.x) - z, z0, f_tol=tolerance * scale, tol_norm=np.linalg.norm,
                        maxiter=STEPS, **options,
                    )  # fmt: skip
                except NoConvergence as error:
                    return np.asarray(error.args[0]).reshape(z0.shape)

            setting = "default" if options is default else f"M 6, alpha 1, w0 {options['w0']:g}, no line search"
            yield Contestant(
                "SciPy", f"{setting}; BLAS {blas}", solve, default=options is default and blas == 1, blas=blas
            )  # fmt: skip
