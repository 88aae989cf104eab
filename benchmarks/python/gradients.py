# SPDX-License-Identifier: Apache-2.0
"""How far approximate gradients are off, and what exact ones cost: z = tanh(W z + b), width 400, 10 draws.

W has independent normal entries, scaled by gain / sqrt(width); b and the gradient g ~ N(0, 1). Cosine and relative
error are against a dense solve in float64, medians over the draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, figures

GAINS = (0.5, 0.9, 1.2)
METHODS: dict[str, tuple[deqcore.Method, float]] = {
    "jacobian-free": (deqcore.JacobianFree(), 1e-6),
    "phantom k=3": (deqcore.Phantom(3), 1e-6),
    "phantom k=5": (deqcore.Phantom(5), 1e-6),
    "phantom k=5, tau=0.5": (deqcore.Phantom(5, 0.5), 1e-6),
    "phantom k=10": (deqcore.Phantom(10), 1e-6),
    "gmres to 1e-6": (deqcore.GMRES(), 1e-6),
    "bicgstab to 1e-6": (deqcore.BiCGSTAB(), 1e-6),
    "anderson to 1e-6": (deqcore.Anderson(), 1e-6),
    "picard to 1e-6": (deqcore.Picard(), 1e-6),
}


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    width, draws = (16, 2) if plan.quick else (400, 10)
    for gain in GAINS:
        problems = []
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            layer = deqcore.maps.Dense(gain * rng.standard_normal((width, width)) / np.sqrt(width))
            b, g = rng.standard_normal((2, 1, width))
            z = deqcore.fixed_point(layer, np.zeros((1, width)), row_args=(b,), rtol=1e-12, max_steps=2000).value
            problems.append((layer, z, g, b))
        for name, (method, rtol) in METHODS.items():
            checks = [
                deqcore.check_gradient(layer, z, g, row_args=(b,), method=method, rtol=rtol, max_steps=1000)
                for layer, z, g, b in problems
            ]
            yield case(
                f"gradients, tanh of gain {gain}",
                name,
                np.float64,
                1,
                width,
                1,
                counts={
                    "products": float(np.median([check.products for check in checks])),
                    "cosine": figures(float(np.median([check.cosine for check in checks]))),
                    "relative_error": figures(float(np.median([check.relative_error for check in checks]))),
                },
            )
