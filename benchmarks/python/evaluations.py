# SPDX-License-Identifier: Apache-2.0
"""Map evaluations to \\|f(z) - z\\| <= 1e-8 \\|f(z)\\| on z = tanh(W z + b), from zero, width 400, 10 draws.

iid     W has independent normal entries, scaled by gain / sqrt(width); b ~ N(0, 1)
outlier W = Q diag(e) Q' with 12 eigenvalues from top to 0.6 top, every third negative, the rest uniform in +-0.3, and
        Q a random orthogonal basis; b ~ 0.1 N(0, 1). Nonsymmetric: plus 0.2 (A - A') / sqrt(2 width), A standard normal

On iid weights the spectrum fills a disc and no method of this kind gains much; trained layers have outliers.

Newton-Krylov's products with the Jacobian are counted apart, with the forcing of Eisenstat and Walker and with every
step solved to 1e-6 of the residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case

WIDTH, DRAWS = 400, 10
IID = (0.5, 0.9, 1.2, 1.5)
OUTLIER = ((0.9, "symmetric"), (0.99, "symmetric"), (1.05, "symmetric"), (0.99, "nonsymmetric"), (1.05, "nonsymmetric"))


def iid(gain: float, seed: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return gain * rng.standard_normal((width, width)) / np.sqrt(width), rng.standard_normal(width)


def outlier(top: float, kind: str, seed: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((width, width)))
    leading = np.linspace(top, 0.6 * top, 12)
    leading[2::3] *= -1
    W = (Q * np.concatenate([leading, rng.uniform(-0.3, 0.3, width - 12)])) @ Q.T
    if kind == "nonsymmetric":
        A = rng.standard_normal((width, width))
        W = W + 0.2 * (A - A.T) / np.sqrt(2 * width)
    return W, 0.1 * rng.standard_normal(width)


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    width, draws = (16, 2) if plan.quick else (WIDTH, DRAWS)
    problems = {f"iid {gain}": [iid(gain, seed, width) for seed in range(draws)] for gain in IID}
    for top, kind in OUTLIER:
        problems[f"outliers {top} {kind}"] = [outlier(top, kind, seed, width) for seed in range(draws)]
    methods = [("picard", deqcore.Picard())]
    methods += [(f"anderson, history {m}", deqcore.Anderson(history=m)) for m in (5, 10)]
    methods += [("anderson type I, history 10", deqcore.AndersonTypeI())]
    methods += [(f"broyden, history 10, {full}", deqcore.Broyden(full=full)) for full in ("restart", "compress")]
    methods += [("newton-krylov", deqcore.NewtonKrylov()), ("newton-krylov, 1e-6", deqcore.NewtonKrylov(forcing=1e-6))]
    for problem, drawn in problems.items():
        for name, method in methods:
            yield measure(problem, drawn, name, method, width)


def measure(problem: str, drawn: list[Any], name: str, method: deqcore.Method, width: int) -> dict[str, Any]:
    solved, products, rejected, singular = [], [], 0, 0
    newton = isinstance(method, deqcore.NewtonKrylov)
    for W, b in drawn:
        layer = deqcore.maps.Dense(W)
        solution = deqcore.fixed_point(
            layer, np.zeros(width), row_args=(b,), method=method, rtol=1e-8, threads=1,
            max_steps=None if newton else 500, on_failure="return",
        )  # fmt: skip
        rejected += int(solution.rejected.sum())
        singular += int(solution.singular.sum())
        if solution.success:
            solved.append(solution.nfe)
            products.append(solution.products)
    return case(
        f"evaluations to 1e-8, {problem}",
        name,
        np.float64,
        1,
        width,
        1,
        counts={
            "solved": len(solved),
            "of": len(drawn),
            "median_evaluations": float(np.median(solved)) if solved else None,
            **({"median_products": float(np.median(products)) if solved else None} if newton else {}),
            "rejected": rejected,
            "singular": singular,
        },
    )
