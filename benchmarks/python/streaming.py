# SPDX-License-Identifier: Apache-2.0
"""Frames whose input drifts linearly, z = tanh(W z + x_t) with x_t = x_0 + t drift d: cold, from the last frame's
solutions, and with what the method remembered. Evaluations per row and frame after the first, 4 rows, 20 frames, 5
draws; after frame 10 another scene: a new x, counted apart.

W as in the group `evaluations`, x and d ~ N(0, 1) for iid weights, 0.1 N(0, 1) for outliers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import deqcore
from harness.measure import Plan, case, figures

from .evaluations import iid, outlier

ROWS, FRAMES, CUT = 4, 20, 10
METHODS: dict[str, deqcore.Method] = {
    "anderson": deqcore.Anderson(),
    "broyden": deqcore.Broyden(),
    "broyden, history 40": deqcore.Broyden(history=40),
}


def cases(plan: Plan) -> Iterator[dict[str, Any]]:
    width, draws = (16, 1) if plan.quick else (400, 5)
    families = {
        "iid 0.9": [(iid(0.9, seed, width)[0], 1.0) for seed in range(draws)],
        "outliers 0.99 nonsymmetric": [(outlier(0.99, "nonsymmetric", seed, width)[0], 0.1) for seed in range(draws)],
    }
    for family, problems in families.items():
        for drift, rtol in ((0.02, 1e-3), (0.006, 1e-3), (0.002, 1e-3), (0.006, 1e-6)):
            for name, method in METHODS.items():
                counts = [stream(W, size, drift, rtol, method, seed) for seed, (W, size) in enumerate(problems)]
                mean = {key: figures(float(np.mean([count[key] for count in counts]))) for key in counts[0]}
                yield case(
                    f"frames, {family}, drift {drift}, rtol {rtol:g}", name, np.float64, ROWS, width, 1, counts=mean
                )


def stream(
    W: np.ndarray, size: float, drift: float, rtol: float, method: deqcore.Method, seed: int
) -> dict[str, float]:
    """Evaluations per row: of a frame, and of the first frame of another scene."""
    rng = np.random.default_rng(1000 + seed)
    layer, (x, d, another) = deqcore.maps.Dense(W), size * rng.standard_normal((3, ROWS, len(W)))
    warm: dict[str, Any] = dict.fromkeys(("cold", "state", "history"))
    steps: dict[str, list[float]] = {keep: [] for keep in warm}
    for frame in range(FRAMES):
        if frame == CUT:
            x = another
        for keep in warm:
            solution = deqcore.fixed_point(
                layer, np.zeros_like(x), row_args=(x,), method=method, rtol=rtol, max_steps=500, threads=1,
                warm=warm[keep], keep=None if keep == "cold" else keep,
            )  # fmt: skip
            warm[keep] = solution.warm
            steps[keep].append(float(solution.steps.mean()))
        x = x + drift * d
    frames = [frame for frame in range(1, FRAMES) if frame != CUT]
    counts = {keep: float(np.mean([taken[frame] for frame in frames])) for keep, taken in steps.items()}
    return counts | {f"{keep}_at_the_cut": taken[CUT] for keep, taken in steps.items()}
