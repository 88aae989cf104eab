# SPDX-License-Identifier: Apache-2.0
"""How far approximate gradients are off, and what exact ones cost: z = tanh(W z + b), width 400, 10 draws.

W has independent normal entries, scaled by gain / sqrt(width); b and the gradient g ~ N(0, 1). Cosine and relative
error are against a dense solve in float64, medians over the draws.

SHINE is given what Broyden remembered of a forward solve to 1e-10, with as many pairs as steps; besides on weights with
outliers as in the group `evaluations`. GMRES from a given start spends one product on measuring it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, figures

from .evaluations import iid, outlier

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
    yield from shine(width, draws)


def shine(width: int, draws: int) -> Iterator[dict[str, Any]]:
    families = {f"tanh of gain {gain}": [iid(gain, seed, width) for seed in range(draws)] for gain in GAINS}
    for top, kind in ((0.9, "symmetric"), (0.99, "symmetric"), (0.9, "nonsymmetric"), (0.99, "nonsymmetric")):
        families[f"outliers {top} {kind}"] = [outlier(top, kind, seed, width) for seed in range(draws)]
    for family, problems in families.items():
        counts: dict[str, list[float]] = {}
        for seed, (W, b) in enumerate(problems):
            for name, count in shine_of(W, b[None], np.random.default_rng(1000 + seed)).items():
                counts.setdefault(name, []).append(count)
        fell_back = int(sum(counts.pop("fell_back")))
        medians = {name: figures(float(np.median(values))) for name, values in counts.items()}
        yield case(
            f"gradients, {family}", "shine", np.float64, 1, width, 1,
            counts={"fell_back": fell_back, "of": len(problems), **medians},
        )  # fmt: skip


def shine_of(W: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    layer, g = deqcore.maps.Dense(W), rng.standard_normal(b.shape)
    forward = deqcore.fixed_point(
        layer, np.zeros_like(b), row_args=(b,), method=deqcore.Broyden(history=200), rtol=1e-10, max_steps=200,
        keep="history",
    )  # fmt: skip
    z, raw = forward.value, deqcore.SHINE(forward.warm, np.inf)
    checks = {
        name: deqcore.check_gradient(layer, z, g, row_args=(b,), method=method)
        for name, method in {"cosine": raw, "cosine_of_g": deqcore.JacobianFree()}.items()
    }
    u0 = deqcore.shine_start(forward.warm, g)
    starts = {"from_zero": None, "from_g": g, "from_shine": u0, "from_shine_without_fallback": checks["cosine"].u}
    products = {
        f"products_{start}": deqcore.adjoint(layer, z, g, row_args=(b,), u0=u, rtol=1e-6, max_steps=500).nfe
        for start, u in starts.items()
    }
    # one product measures the start, one the end
    five = deqcore.adjoint(layer, z, g, row_args=(b,), u0=u0, max_steps=7, rtol=1e-14, on_failure="return").value
    exact = checks["cosine"].exact
    cosine = float((five * exact).sum() / np.linalg.norm(five) / np.linalg.norm(exact))
    cosines = {name: float(check.cosine[0]) for name, check in checks.items()}
    return {"fell_back": float((u0 == g).all()), **cosines, "cosine_after_five_steps": cosine, **products}
